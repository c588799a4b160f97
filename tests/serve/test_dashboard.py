"""The dashboard's page in a real browser: cameras, events, filters, signing in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from storeguard.camera.status import CameraState
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.events.event import ClipRef, EventStatus, EventType, SnapshotRef
from storeguard.inference.batcher import BatcherStats
from tests.serve.browser import Browser, Tab, soon
from tests.serve.dashboard_house import (
    NASTY,
    TOKEN,
    House,
    event,
    jpeg,
    serving,
)


def sentences(tab: Tab) -> list[str]:
    return list(tab.run("[...document.querySelectorAll('.event .words')].map(w => w.innerText)"))


def test_cameras_and_events_are_shown(house: House, tab: Tab) -> None:
    house.events.put(
        event(1),
        event(2, type=EventType.INTRUSION, snapshot=SnapshotRef(uri="file:///a.jpg")),
        event(3, status=EventStatus.OPEN, ended_at=None, dwell_s=75.4),
    )
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 3")
    assert sentences(tab) == [
        "Somebody has been at 'table' for 1 min 15 s",
        "Somebody entered 'table'",
        "Somebody was at 'table' for 12 s",
    ]
    assert "1 h ago" in tab.text(".event time")
    assert "stayed 12 s" in tab.text(".row:nth-of-type(3)")
    tab.wait("document.querySelector('.event .thumb img')?.naturalWidth === 64")
    tab.wait("document.querySelectorAll('.tile').length === 2")
    table, door = tab.run("[...document.querySelectorAll('.tile')].map(tile => tile.innerText)")
    for words in ("table", "Playing", "2 people", "25 fps in", "4.8 fps checked", "4 dropped"):
        assert words in table
    assert "Reconnecting" in door
    assert "connection was lost" in door
    tab.wait_text("#health-words", "Camera door is not playing (reconnecting)")
    tab.wait_text("#stream-state", "live")


def test_pictures_are_live_while_looked_at_and_stop_when_not(house: House, tab: Tab) -> None:
    tab.open(house.url)
    tab.wait("document.querySelector('.tile[data-live=yes]') !== null")
    colour = (
        "[...document.querySelector('.tile canvas').getContext('2d')"
        ".getImageData(5, 5, 1, 1).data].join()"
    )
    first = tab.run(colour)
    tab.wait(f"{colour} !== {json.dumps(first)}")  # the picture moves
    # `door` does not play: single pictures do.
    soon(lambda: house.cameras.watched == 1, "not one stream")
    tab.call("Page.navigate", url="about:blank")
    soon(lambda: house.cameras.watched == 0, "the stream goes on unwatched")


def test_a_wall_of_cameras_leaves_connections_for_the_rest(house: House, tab: Tab) -> None:
    for number in range(9):
        name = f"camera-{number}"
        house.cameras.settings[name] = CameraConfig(id=name, source="/dev/video1")
        house.cameras.states[name] = CameraState.PLAYING
        house.cameras.pictures[name] = [jpeg()]
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.tile[data-pictured]').length === 11")
    # Six connections in all, one for the events.
    soon(lambda: 1 <= house.cameras.watched <= 3, "no stream, or more than there are lines for")
    house.events.put(event(1))
    tab.wait("document.querySelectorAll('.event').length === 1")


def test_an_event_that_arrives_later_appears_and_changes_without_reload(
    house: House, tab: Tab
) -> None:
    tab.open(house.url)
    tab.wait_text("#events-notice", "Nothing has happened yet")
    tab.wait_text("#stream-state", "live")
    first = event(1, status=EventStatus.OPEN, ended_at=None, dwell_s=3.0)
    house.events.put(first)
    tab.wait_text("#events-list", "Somebody has been at 'table' for 3 s")
    newer = first.model_copy(update={"version": 2, "dwell_s": 4.0})
    house.events.put(newer, first)  # a repeated old version changes nothing
    tab.wait_text("#events-list", "for 4 s")
    house.events.put(event(2))
    tab.wait("document.querySelectorAll('.event').length === 2")
    assert sentences(tab)[1] == "Somebody has been at 'table' for 4 s"


def test_new_events_wait_while_somebody_reads_further_down(house: House, tab: Tab) -> None:
    house.events.put(*(event(number) for number in range(60)))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 50")
    tab.wait_text("#stream-state", "live")
    # From here on nothing arrives above the list that could move it.
    tab.wait("document.querySelectorAll('.tile').length === 2")
    tab.wait_text("#health-words", "Camera door is not playing")
    tab.run("document.querySelectorAll('.event')[30].scrollIntoView()")
    place = "document.querySelectorAll('.event')[30].getBoundingClientRect().top"
    # The page learns of the scrolling with its next frame, and its observer before a later one.
    tab.run(
        "new Promise(resolve => new IntersectionObserver(([top]) => {"
        "if (!top.isIntersecting) resolve(); }).observe(document.querySelector('#events-top')))"
    )
    before = tab.run(place)
    house.events.put(event(100), event(101))
    tab.wait_text("#events-new", "2 new events")
    assert tab.run(place) == before
    tab.click("#events-new")
    tab.wait("document.querySelectorAll('.event').length === 52")
    assert tab.run("document.querySelector('.row').dataset.id") == "event-0101"


def test_older_events_follow_page_by_page(house: House, tab: Tab) -> None:
    house.events.put(*(event(number) for number in range(120)))
    tab.open(house.url)
    for shown in (50, 100, 120):
        tab.wait(f"document.querySelectorAll('.event').length === {shown}")
        assert tab.run("document.querySelector('#events-older').hidden") is (shown == 120)
        if shown < 120:
            tab.click("#events-older")
    ids = tab.run("[...document.querySelectorAll('.row')].map(row => row.dataset.id)")
    assert ids == [f"event-{number:04d}" for number in reversed(range(120))]


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
    house: House, tab: Tab, name: str, value: str, expected: list[str]
) -> None:
    house.events.put(
        event(0),
        event(1, zone_id="shelf"),
        event(2, camera_id="door", status=EventStatus.OPEN, ended_at=None),
        event(3, type=EventType.INTRUSION),
    )
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 4")
    ids = "[...document.querySelectorAll('.row')].map(row => row.dataset.id).join()"
    tab.choose(name, value)
    tab.wait(f"{ids} === {json.dumps(','.join(expected))}")
    fits = house.events.events[expected[0]].model_copy(
        update={"event_id": "event-9998", "started_at": datetime.now(UTC)}
    )
    house.events.put(event(9), fits)
    tab.wait(f"{ids} === {json.dumps(','.join(['event-9998', *expected]))}")
    assert tab.run("location.search") == f"?{name}={value}"
    tab.open(f"{house.url}/?{name}={value}")  # the address keeps the filter
    tab.wait(f"{ids} === {json.dumps(','.join(['event-9998', *expected]))}")
    tab.click("#filters [type=reset]")
    tab.wait("document.querySelectorAll('.event').length === 6")


def test_an_event_that_arrives_before_the_page_asked_for_is_kept(house: House, tab: Tab) -> None:
    tab.open(house.url)
    tab.wait_text("#stream-state", "live")
    tab.wait_text("#events-notice", "Nothing has happened")
    house.events.answering.clear()
    tab.choose("camera", "table")
    tab.wait("document.querySelector('#events-list.loading') !== null")
    soon(lambda: house.events.num_waiting, "no page is asked for")
    house.events.put(event(1, zone_id="attic"))
    # it has arrived
    tab.wait("document.querySelector('#filters [name=zone] [value=attic]') !== null")
    house.events.answering.set()
    tab.wait("document.querySelectorAll('.event').length === 1")


def test_from_and_to_are_local_times(house: House, tab: Tab) -> None:
    tab.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for number in range(3):
        started = noon + timedelta(hours=number)
        house.events.put(event(number, started_at=started, ended_at=started))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 3")
    tab.choose("start", "2026-01-31T18:30")  # 13:00 UTC
    tab.wait("document.querySelectorAll('.event').length === 2")
    tab.choose("end", "2026-01-31T19:30")
    tab.wait("document.querySelectorAll('.event').length === 1")
    assert tab.run("document.querySelector('.row').dataset.id") == "event-0001"
    tab.choose("end", "2026-01-31T17:30")
    tab.wait_text("#filters-fault", "before")


def test_names_from_the_store_are_text(house: House, tab: Tab) -> None:
    house.events.put(
        event(1, zone_id=NASTY, camera_id=NASTY, person_id=NASTY, clip=ClipRef(error=NASTY))
    )
    house.cameras.more["door"] = {"last_error": NASTY}
    tab.open(f"{house.url}/?zone={httpx.QueryParams({'q': NASTY})['q'].replace('<', '%3C')}")
    tab.wait_text("#events-list", NASTY)
    tab.click(".event")
    tab.wait_text("#event-view", f"There is no clip: {NASTY}")
    tab.press("Escape")
    tab.wait("!document.querySelector('#event-view').open")
    tab.click(".wall li:nth-child(2) .tile")
    tab.wait_text("#camera-view", NASTY)
    assert tab.run("window.hacked === undefined")
    assert tab.run("document.querySelector('img[src=x], .words b') === null")


def test_a_token_is_asked_for_and_signs_in(tab: Tab) -> None:
    with serving(House(ApiSettings(token=TOKEN))) as house:
        house.events.put(event(1))
        tab.open(house.url)
        tab.wait("document.querySelector('#login')?.open")
        assert tab.run("document.querySelectorAll('.event, .tile').length") == 0
        for token, outcome in (("wrong-token-0123456", False), (TOKEN, True)):
            tab.run(f"document.querySelector('#login [name=token]').value = {json.dumps(token)}")
            tab.click("#login [type=submit]")
            if not outcome:
                tab.wait_text("#login-fault", "not the access token")
        tab.wait("document.querySelectorAll('.event').length === 1")
        tab.wait("document.querySelectorAll('.tile').length === 2")
        tab.wait_text("#stream-state", "live")
        assert tab.run("document.querySelector('#login')?.open") is False
        tab.click("#sign-out")
        tab.wait("document.querySelector('#login')?.open")


def test_the_keyboard_reaches_all(house: House, tab: Tab) -> None:
    house.events.put(event(1), event(2))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 2")
    tab.wait("document.querySelectorAll('.tile').length === 2")
    reached = set()
    for _ in range(14):
        tab.press("Tab")
        reached.add(tab.run("document.activeElement.className || document.activeElement.id"))
    assert {"skip", "tile", "small", "event"} <= reached
    tab.run("document.querySelector('.event').focus()")
    tab.press("ArrowDown")
    assert tab.run("document.activeElement.closest('.row').dataset.id") == "event-0001"
    tab.press("Enter")
    tab.wait("document.querySelector('#event-view').open")
    tab.press("Escape")
    tab.wait("!document.querySelector('#event-view').open")
    assert tab.run("document.activeElement.closest('.row').dataset.id") == "event-0001"
    unnamed = (
        "[...document.querySelectorAll('button, input, select, a')].filter(one => "
        "one.checkVisibility() && !one.textContent && !one.ariaLabel && !one.labels?.length).length"
    )
    assert tab.run(unnamed) == 0


def test_faults_are_told_in_words_and_heal(house: House, tab: Tab) -> None:
    house.cameras.states["door"] = CameraState.PLAYING
    house.cameras.down = house.events.down = True
    house.detector = None
    tab.open(house.url)
    tab.wait_text("#events-notice", "The events cannot be shown")
    tab.wait_text("#cameras-notice", "The cameras cannot be shown")
    tab.wait_text("#health-words", "Events cannot be looked up")
    tab.wait_text("#health-words", "People are not being detected")
    house.cameras.down = house.events.down = False
    house.detector = BatcherStats(*([0] * 6))
    house.events.put(event(1))
    tab.wait("document.querySelectorAll('.tile').length === 2")
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.wait_text("#health-words", "Everything works")
    tab.wait_text("#stream-state", "live")


def test_a_refusal_of_what_was_asked_before_signing_in_signs_nobody_out(tab: Tab) -> None:
    with serving(House(ApiSettings(token=TOKEN))) as house:
        tab.open(house.url)
        tab.wait("document.querySelector('#login')?.open")
        tab.run(
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
        tab.wait("window.answered")
        tab.run(f"document.querySelector('#login [name=token]').value = {json.dumps(TOKEN)}")
        tab.click("#login [type=submit]")
        tab.wait("document.querySelectorAll('.tile').length === 2")
        tab.run("window.letGo()")
        assert tab.wait("window.refused") == 401
        assert tab.run("document.querySelector('#login').open") is False


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 2560])
def test_nothing_overflows_sideways(house: House, browser: Browser, width: int) -> None:
    long = "a-camera-or-zone-with-a-very-long-name-" * 4
    house.events.put(event(1, zone_id=long, camera_id=long), event(2))
    tab = Tab(browser, width, 800, dark=True)
    try:
        tab.open(house.url)
        tab.wait("document.querySelectorAll('.event').length === 2")
        tab.wait("document.querySelectorAll('.tile').length === 2")
        assert tab.run("document.documentElement.scrollWidth") <= width
        tab.click(".event")
        tab.wait("document.querySelector('#event-view').open")
        assert tab.run(
            "(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#event-view'))"
        )
    finally:
        tab.close()
