"""The dashboard's views of one event and of one camera, in a real browser."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from storeguard.events.event import ClipPart, ClipRef, EventStatus, EventType
from storeguard.testing.video import VideoSpec, make_video
from tests.serve.dashboard_system import (
    DashboardSystem,
    event,
)
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"clip": ClipRef(error="the disk was full")}, "There is no clip: the disk was full"),
        ({"rule": {"record": False}}, "because this rule keeps no video"),
        ({"status": EventStatus.OPEN, "ended_at": None}, "the event is still going on"),
        ({"clip": ClipRef()}, "it is still being saved"),
        ({}, "no video was kept"),
        ({"clip": ClipRef(uri="file:///gone.mp4")}, "There is no clip: file:///gone.mp4"),
    ],
)
def test_an_event_without_a_clip_shows_the_reason(
    system: DashboardSystem, page: Page, more: dict[str, Any], words: str
) -> None:
    system.events.put(event(1, **more))
    page.goto(system.url)
    page.locator(".event").first.click()
    expect(page.locator("#event-view .note")).to_contain_text(words)


def test_a_clip_plays_and_seeks(system: DashboardSystem, page: Page, tmp_path: Path) -> None:
    file = tmp_path / "clip.webm"
    make_video(file, VideoSpec(codec="vp8", num_frames=60))
    system.objects.files["file:///clip.webm"] = file.read_bytes()
    one = event(1)
    clip = ClipRef(uri="file:///clip.webm", start=one.started_at - timedelta(seconds=3))
    system.events.put(one)
    page.goto(system.url)
    page.locator(".event").first.click()
    expect(page.locator("#event-view .note")).to_contain_text("no video was kept")
    system.events.put(one.model_copy(update={"version": 2, "clip": clip}))  # while it is open
    wait_for(lambda: page.evaluate("document.querySelector('video')?.readyState >= 1"))
    assert page.evaluate("document.querySelector('video').videoWidth") == 160
    page.locator("#event-view .view-main button").first.click()
    wait_for(lambda: page.evaluate("document.querySelector('video').currentTime > 1.9"))
    assert page.evaluate("document.querySelector('video').error") is None


@pytest.mark.parametrize("audio", [None, "aac"])  # with sound, a browser plays the sound alone
def test_a_clip_that_the_browser_cannot_play_is_converted(
    system: DashboardSystem, page: Page, tmp_path: Path, audio: str | None
) -> None:
    file = make_video(tmp_path / "clip.mp4", VideoSpec(codec="hevc", num_frames=60, audio=audio))
    system.objects.files["file:///clip.mp4"] = file.read_bytes()
    system.events.put(event(1, clip=ClipRef(uri="file:///clip.mp4")))
    page.goto(system.url)
    page.locator(".event").first.click()
    wait_for(lambda: page.evaluate("document.querySelector('video')?.readyState >= 2"))
    assert page.evaluate("document.querySelector('video').videoWidth") == 160
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(6.0, abs=0.2)
    assert page.evaluate("document.querySelector('video').currentSrc.endsWith('?codec=h264')")
    expect(page.locator("#event-view .note")).to_contain_text("Converted to H.264")
    link = page.evaluate("document.querySelector('.view-main a').href")
    assert httpx.get(link, timeout=120).content == file.read_bytes()


def test_a_clip_that_cannot_be_converted_shows_the_reason(
    system: DashboardSystem, page: Page
) -> None:
    system.objects.files["file:///clip.mp4"] = b"this is no video"
    system.events.put(event(1, clip=ClipRef(uri="file:///clip.mp4")))
    page.goto(system.url)
    page.locator(".event").first.click()
    expect(page.locator("#event-view .note")).to_contain_text("cannot be converted to H.264")


def test_the_files_of_a_long_clip_play_one_after_the_other(
    system: DashboardSystem, page: Page, tmp_path: Path
) -> None:
    one = event(1)
    parts = []
    for name, frames in (("first", 15), ("second", 60)):
        file = tmp_path / f"{name}.webm"
        make_video(file, VideoSpec(codec="vp8", num_frames=frames))
        system.objects.files[f"file:///{name}.webm"] = file.read_bytes()
        parts.append(ClipPart(uri=f"file:///{name}.webm", start=one.started_at, end=one.started_at))
    clip = ClipRef(uri=parts[0].uri, start=one.started_at, end=one.started_at)
    system.events.put(one.model_copy(update={"clip": clip}))
    page.goto(system.url)
    page.locator(".event").first.click()
    wait_for(lambda: page.evaluate("document.querySelector('video')?.readyState >= 1"))
    assert "File" not in page.locator("#event-view .view-main").inner_text()
    longer = clip.model_copy(update={"parts": (parts[1],)})
    system.events.put(
        one.model_copy(update={"version": 2, "clip": longer})
    )  # it grows while it is shown
    expect(page.locator("#event-view .view-main")).to_contain_text("File 1 of 2")
    page.evaluate("document.querySelector('video').muted = true")
    page.evaluate("void document.querySelector('video').play()")
    expect(page.locator("#event-view .view-main")).to_contain_text("File 2 of 2")
    wait_for(
        lambda: page.evaluate("document.querySelector('video').currentSrc.endsWith('/clip?part=1')")
    )
    wait_for(lambda: page.evaluate("document.querySelector('video').duration > 1.5"))
    hrefs = "[...document.querySelectorAll('.view-main a')].map(link => link.href)"
    links = page.evaluate(hrefs)
    assert [httpx.get(link, timeout=120).content for link in links] == [
        system.objects.files[part.uri] for part in parts
    ]


def test_a_camera_is_shown_large_with_its_zones_and_records(
    system: DashboardSystem, page: Page
) -> None:
    page.goto(system.url)
    page.locator(".tile").first.click()
    expect(page.locator("#camera-view polygon").first).to_be_attached()
    shown = page.locator("#camera-view").inner_text()
    for words in ("table", "stays 3 s or longer", "rtsp://***@10.0.0.7/1", "h264"):
        assert words in shown
    expect(page.locator("#camera-view .stage")).to_have_attribute("data-live", "yes")
    wait_for(lambda: system.cameras.watched == 1)
    page.locator("#camera-view").get_by_role("button", name="Record now").click()
    wait_for(lambda: system.cameras.commands == [("table", "start-recording")])
    system.cameras.more["table"] = {"recording": True}
    expect(page.locator("#camera-view dl")).to_contain_text("now")
    assert (
        "Stop recording" not in page.locator("#camera-view").inner_text()
    )  # the rules' recordings cannot be stopped
    by_hand = event(1, type=EventType.MANUAL, status=EventStatus.OPEN, ended_at=None)
    system.events.put(by_hand)
    expect(page.locator("#camera-view")).to_contain_text("Stop recording")
    page.keyboard.press("Escape")
    expect(page.locator("#camera-view")).not_to_have_attribute("open", "")
    expect(page.locator(".tile .rec").first).to_be_visible()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {
                "type": EventType.SHOPLIFTING_SUSPECTED,
                "score": 0.873,
                "attributes": {"threshold": 0.6, "decision": "suspected"},
            },
            "Suspected: 87 %, suspected from 60 %",
        ),
        (
            {
                "score": 0.91,  # of the detector
                "attributes": {
                    "shoplifting": {"score": 0.2, "threshold": 0.6, "decision": "not suspected"}
                },
            },
            "Not suspected: 20 %, suspected from 60 %",
        ),
        ({"score": 0.91}, None),  # no theft check ran
    ],
)
def test_an_event_shows_the_result_of_the_theft_check(
    system: DashboardSystem, page: Page, more: dict[str, Any], words: str | None
) -> None:
    system.events.put(event(1, **more))
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(1)
    page.locator(".event").first.click()
    expect(page.locator("#event-view")).to_have_attribute("open", "")
    if words is None:
        assert "Theft check" not in str(page.locator("#event-view").text_content())
    else:
        expect(page.locator("#event-view .view-side")).to_contain_text(words)


def test_an_event_shows_its_persons_attributes(system: DashboardSystem, page: Page) -> None:
    prediction = {
        "label": "carries one",
        "share": 0.8,
        "votes": 5,
        "model": {"name": "m", "sha256": "0"},
    }
    system.events.put(event(1, attributes={"basket": prediction, "direction": "in"}))
    page.goto(system.url)
    expect(page.locator(".event")).to_have_count(1)
    page.locator(".event").first.click()
    expect(page.locator("#event-view")).to_have_attribute("open", "")
    expect(page.locator("#event-view .view-side")).to_contain_text("Basket")
    expect(page.locator("#event-view .view-side")).to_contain_text("carries one (4 of 5 looks)")
