"""The dashboard's page in a real browser: cameras, events, filters, signing in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from storeguard.camera.status import CameraState
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.events.event import ClipRef, EventStatus, EventType, SnapshotRef
from storeguard.inference.batcher import BatcherStats
from tests.serve.browser import opened_page
from tests.serve.dashboard_system import (
    NASTY,
    TOKEN,
    DashboardSystem,
    event,
    jpeg,
    serving,
)
from tests.waiting import wait_for


def sentences(page: Page) -> list[str]:
    return page.locator(".event .words").all_inner_texts()


def choose(page: Page, name: str, value: str) -> None:
    """Set a filter as a person does."""
    if page.locator("#filters").is_hidden():
        page.locator("#filters-toggle").click()
    field = page.locator(f"#filters [name={name}]")
    if name in {"start", "end"}:
        field.fill(value)
        field.blur()
    else:
        field.select_option(value)


def sign_in(page: Page, token: str) -> None:
    page.locator("#login [name=token]").fill(token)
    page.locator("#login [type=submit]").click()


def expect_ids(page: Page, ids: list[str]) -> None:
    """Wait until the list consists of these events, in this order."""
    rows = page.locator(".row")
    expect(rows).to_have_count(len(ids))
    for row, event_id in zip(rows.all(), ids, strict=True):
        expect(row).to_have_attribute("data-id", event_id)


def test_cameras_and_events_are_shown(system: DashboardSystem, page: Page) -> None:
    system.events.put(
        event(1),
        event(2, type=EventType.INTRUSION, snapshot=SnapshotRef(uri="file:///a.jpg")),
        event(3, status=EventStatus.OPEN, ended_at=None, dwell_s=75.4),
    )
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(3)
    assert sentences(page) == [
        "Somebody has been at 'table' for 1 min 15 s",
        "Somebody entered 'table'",
        "Somebody was at 'table' for 12 s",
    ]
    assert "1 h ago" in page.locator(".event time").first.inner_text()
    assert "stayed 12 s" in page.locator(".row:nth-of-type(3)").inner_text()
    wait_for(
        lambda: page.evaluate("document.querySelector('.event .thumb img')?.naturalWidth === 64")
    )
    expect(page.locator(".tile")).to_have_count(2)
    table, door = page.locator(".tile").all_inner_texts()
    for words in ("table", "Playing", "2 people", "25 fps in", "4.8 fps checked", "4 dropped"):
        assert words in table
    assert "Reconnecting" in door
    assert "connection was lost" in door
    expect(page.locator("#health-words")).to_contain_text(
        "Camera door is not playing (reconnecting)"
    )
    expect(page.locator("#stream-state")).to_contain_text("live")


def test_pictures_are_live_while_visible_and_stop_when_not(
    system: DashboardSystem, page: Page
) -> None:
    page.goto(system.url)
    expect(page.locator(".tile[data-live=yes]").first).to_be_attached()
    colour = (
        "[...document.querySelector('.tile canvas').getContext('2d')"
        ".getImageData(5, 5, 1, 1).data].join()"
    )
    first = page.evaluate(colour)
    wait_for(lambda: page.evaluate(f"{colour} !== {json.dumps(first)}"))  # the picture moves
    # `door` does not play: single pictures do.
    wait_for(lambda: system.cameras.watched == 1)
    page.goto("about:blank")
    wait_for(lambda: system.cameras.watched == 0)


def test_a_wall_of_cameras_leaves_connections_for_the_rest(
    system: DashboardSystem, page: Page
) -> None:
    for number in range(9):
        name = f"camera-{number}"
        system.cameras.settings[name] = CameraConfig(id=name, source="/dev/video1")
        system.cameras.states[name] = CameraState.PLAYING
        system.cameras.pictures[name] = [jpeg()]
    page.goto(system.url)
    expect(page.locator(".tile[data-pictured]")).to_have_count(11)
    # Six connections in all, one for the events.
    wait_for(lambda: 1 <= system.cameras.watched <= 3)
    system.events.put(event(1))
    expect(page.locator(".event")).to_have_count(1)


def test_an_event_that_arrives_later_appears_and_changes_without_reload(
    system: DashboardSystem, page: Page
) -> None:
    page.goto(system.url)
    expect(page.locator("#events-notice")).to_contain_text("Nothing has happened yet")
    expect(page.locator("#stream-state")).to_contain_text("live")
    first = event(1, status=EventStatus.OPEN, ended_at=None, dwell_s=3.0)
    system.events.put(first)
    expect(page.locator("#events-list")).to_contain_text("Somebody has been at 'table' for 3 s")
    newer = first.model_copy(update={"version": 2, "dwell_s": 4.0})
    system.events.put(newer, first)  # a repeated old version changes nothing
    expect(page.locator("#events-list")).to_contain_text("for 4 s")
    system.events.put(event(2))
    expect(page.locator(".event")).to_have_count(2)
    assert sentences(page)[1] == "Somebody has been at 'table' for 4 s"


def test_new_events_wait_while_the_list_is_scrolled(system: DashboardSystem, page: Page) -> None:
    system.events.put(*(event(number) for number in range(60)))
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(50)
    expect(page.locator("#stream-state")).to_contain_text("live")
    # After these nothing above the list changes its height.
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator("#health-words")).to_contain_text("Camera door is not playing")
    page.locator(".event").nth(30).evaluate("event => event.scrollIntoView()")
    place = "document.querySelectorAll('.event')[30].getBoundingClientRect().top"
    # The page notices the scrolling with its next frame, and its observer later.
    page.evaluate(
        "new Promise(resolve => new IntersectionObserver(([top]) => {"
        "if (!top.isIntersecting) resolve(); }).observe(document.querySelector('#events-top')))"
    )
    before = page.evaluate(place)
    system.events.put(event(100), event(101))
    expect(page.locator("#events-new")).to_contain_text("2 new events")
    assert page.evaluate(place) == before
    page.locator("#events-new").first.click()
    expect(page.locator(".event")).to_have_count(52)
    assert page.locator(".row").first.get_attribute("data-id") == "event-0101"


def test_older_events_follow_page_by_page(system: DashboardSystem, page: Page) -> None:
    system.events.put(*(event(number) for number in range(120)))
    page.goto(system.url)
    for shown in (50, 100, 120):
        expect(page.locator(".event")).to_have_count(shown)
        assert page.locator("#events-older").is_hidden() is (shown == 120)
        if shown < 120:
            page.locator("#events-older").first.click()
    expect_ids(page, [f"event-{number:04d}" for number in reversed(range(120))])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("type", "intrusion", ["event-0003"]),
        ("camera", "door", ["event-0002"]),
        ("zone", "shelf", ["event-0001"]),
        ("status", "open", ["event-0002"]),
    ],
)
def test_filters_hold_for_pages_and_for_what_arrives(
    system: DashboardSystem, page: Page, name: str, value: str, expected: list[str]
) -> None:
    system.events.put(
        event(0),
        event(1, zone_id="shelf"),
        event(2, camera_id="door", status=EventStatus.OPEN, ended_at=None),
        event(3, type=EventType.INTRUSION),
    )
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(4)
    choose(page, name, value)
    expect_ids(page, expected)
    fits = system.events.events[expected[0]].model_copy(
        update={"event_id": "event-9998", "started_at": datetime.now(UTC)}
    )
    system.events.put(event(9), fits)
    expect_ids(page, ["event-9998", *expected])
    assert page.evaluate("location.search") == f"?{name}={value}"
    page.goto(f"{system.url}/?{name}={value}")  # the address keeps the filter
    expect_ids(page, ["event-9998", *expected])
    page.locator("#filters [type=reset]").first.click()
    expect(page.locator(".event")).to_have_count(6)


def test_an_event_that_arrives_before_the_requested_page_is_kept(
    system: DashboardSystem, page: Page
) -> None:
    page.goto(system.url)
    expect(page.locator("#stream-state")).to_contain_text("live")
    expect(page.locator("#events-notice")).to_contain_text("Nothing has happened")
    system.events.answering.clear()
    choose(page, "camera", "table")
    expect(page.locator("#events-list.loading").first).to_be_attached()
    wait_for(lambda: system.events.num_waiting)
    system.events.put(event(1, zone_id="attic"))
    # it has arrived
    expect(page.locator("#filters [name=zone] [value=attic]")).to_be_attached()
    system.events.answering.set()
    expect(page.locator(".event")).to_have_count(1)


def test_from_and_to_are_local_times(system: DashboardSystem, browser: Browser) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for number in range(3):
        started = noon + timedelta(hours=number)
        system.events.put(event(number, started_at=started, ended_at=started))
    with opened_page(browser, timezone="Asia/Kolkata") as page:
        page.goto(system.url)
        expect(page.locator(".event")).to_have_count(3)
        choose(page, "start", "2026-01-31T18:30")  # 13:00 UTC
        expect(page.locator(".event")).to_have_count(2)
        choose(page, "end", "2026-01-31T19:30")
        expect(page.locator(".event")).to_have_count(1)
        assert page.locator(".row").get_attribute("data-id") == "event-0001"
        choose(page, "end", "2026-01-31T17:30")
        expect(page.locator("#filters-fault")).to_contain_text("before")


def test_names_from_the_store_are_text(system: DashboardSystem, page: Page) -> None:
    system.events.put(
        event(1, zone_id=NASTY, camera_id=NASTY, person_id=NASTY, clip=ClipRef(error=NASTY))
    )
    system.cameras.more["door"] = {"last_error": NASTY}
    page.goto(f"{system.url}/?zone={httpx.QueryParams({'q': NASTY})['q'].replace('<', '%3C')}")
    expect(page.locator("#events-list")).to_contain_text(NASTY)
    page.locator(".event").first.click()
    expect(page.locator("#event-view")).to_contain_text(f"There is no clip: {NASTY}")
    page.keyboard.press("Escape")
    expect(page.locator("#event-view")).not_to_have_attribute("open", "")
    page.locator(".wall li:nth-child(2) .tile").first.click()
    expect(page.locator("#camera-view")).to_contain_text(NASTY)
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("img[src=x], .words b").count() == 0


def test_the_token_is_required_and_signs_in(page: Page, tmp_path: Path) -> None:
    with serving(DashboardSystem(ApiSettings(token=TOKEN), folder=tmp_path)) as system:
        system.events.put(event(1))
        page.goto(system.url)
        expect(page.locator("#login")).to_have_attribute("open", "")
        assert page.locator(".event, .tile").count() == 0
        for token, outcome in (("wrong-token-0123456", False), (TOKEN, True)):
            sign_in(page, token)
            if not outcome:
                expect(page.locator("#login-fault")).to_contain_text("not the access token")
        expect(page.locator(".event")).to_have_count(1)
        expect(page.locator(".tile")).to_have_count(2)
        expect(page.locator("#stream-state")).to_contain_text("live")
        expect(page.locator("#login")).not_to_have_attribute("open", "")
        page.locator("#sign-out").first.click()
        expect(page.locator("#login")).to_have_attribute("open", "")


def test_the_keyboard_reaches_everything(system: DashboardSystem, page: Page) -> None:
    system.events.put(event(1), event(2))
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(2)
    expect(page.locator(".tile")).to_have_count(2)
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.className || document.activeElement.id"))
    assert {"skip", "tile", "small", "event"} <= reached
    page.locator(".event").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.row').dataset.id") == "event-0001"
    page.keyboard.press("Enter")
    expect(page.locator("#event-view")).to_have_attribute("open", "")
    page.keyboard.press("Escape")
    expect(page.locator("#event-view")).not_to_have_attribute("open", "")
    assert page.evaluate("document.activeElement.closest('.row').dataset.id") == "event-0001"
    unnamed = (
        "[...document.querySelectorAll('button, input, select, a')].filter(one => "
        "one.checkVisibility() && !one.textContent && !one.ariaLabel && !one.labels?.length).length"
    )
    assert page.evaluate(unnamed) == 0


def test_faults_are_shown_in_words_and_disappear(system: DashboardSystem, page: Page) -> None:
    system.cameras.states["door"] = CameraState.PLAYING
    system.cameras.down = system.events.down = True
    system.detector = None
    page.goto(system.url)
    expect(page.locator("#events-notice")).to_contain_text("The events cannot be shown")
    expect(page.locator("#cameras-notice")).to_contain_text("The cameras cannot be shown")
    expect(page.locator("#health-words")).to_contain_text("Events cannot be looked up")
    expect(page.locator("#health-words")).to_contain_text("People are not being detected")
    system.cameras.down = system.events.down = False
    system.detector = BatcherStats(*([0] * 6))
    system.events.put(event(1))
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator(".event")).to_have_count(1)
    expect(page.locator("#health-words")).to_contain_text("Everything works")
    expect(page.locator("#stream-state")).to_contain_text("live")


def test_a_late_refusal_of_an_earlier_request_does_not_sign_out(page: Page, tmp_path: Path) -> None:
    with serving(DashboardSystem(ApiSettings(token=TOKEN), folder=tmp_path)) as system:
        page.goto(system.url)
        expect(page.locator("#login")).to_have_attribute("open", "")
        page.evaluate(
            "(async () => {"
            "const real = window.fetch, late = new Promise(go => { window.letGo = go; });"
            "window.fetch = async (path, options) => {"
            "  const answer = await real(path, options);"
            "  if (path.endsWith('/cameras/door')) { window.answered = true; await late; }"
            "  return answer; };"
            "const api = await import('/dashboard/api.js');"
            "api.get('/api/v1/cameras/door').catch(fault => { window.refused = fault.status; });"
            "})()"
        )
        wait_for(lambda: page.evaluate("window.answered"))
        sign_in(page, TOKEN)
        expect(page.locator(".tile")).to_have_count(2)
        page.evaluate("window.letGo()")
        wait_for(lambda: page.evaluate("window.refused === 401"))
        expect(page.locator("#login")).not_to_have_attribute("open", "")


@pytest.mark.parametrize("width", [390, 768])  # both with the cameras above the events
def test_pictures_fill_their_column_and_stay_so(
    system: DashboardSystem, browser: Browser, width: int
) -> None:
    settled_ratio = (
        "new Promise(resolve => setTimeout(() => {"
        "const box = document.querySelector('.screen').getBoundingClientRect();"
        "resolve(box.width / box.height); }, 200))"
    )
    with opened_page(browser, width=width, height=800) as page:
        page.goto(system.url)
        expect(page.locator(".tile")).to_have_count(2)
        assert page.evaluate(settled_ratio) == pytest.approx(16 / 9, abs=0.02)


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 2560])
def test_nothing_overflows_sideways(system: DashboardSystem, browser: Browser, width: int) -> None:
    long = "a-camera-or-zone-with-a-very-long-name-" * 4
    system.events.put(event(1, zone_id=long, camera_id=long), event(2))
    with opened_page(browser, width=width, height=800, dark=True) as page:
        page.goto(system.url)
        expect(page.locator(".event")).to_have_count(2)
        expect(page.locator(".tile")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(".event").first.click()
        expect(page.locator("#event-view")).to_have_attribute("open", "")
        assert page.evaluate(
            "(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#event-view'))"
        )
