"""The dashboard's views of one event and of one camera, in a real browser."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from storeguard.events.event import ClipPart, ClipRef, EventStatus, EventType
from storeguard.testing.video import VideoSpec, make_video
from tests.serve.browser import Tab, soon
from tests.serve.dashboard_house import (
    House,
    event,
)


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
def test_an_event_without_a_clip_says_why(
    house: House, tab: Tab, more: dict[str, Any], words: str
) -> None:
    house.events.put(event(1, **more))
    tab.open(house.url)
    tab.click(".event")
    tab.wait_text("#event-view .note", words)


def test_a_clip_plays_and_seeks(house: House, tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "clip.webm"
    make_video(file, VideoSpec(codec="vp8", num_frames=60))
    house.objects.files["file:///clip.webm"] = file.read_bytes()
    one = event(1)
    clip = ClipRef(uri="file:///clip.webm", start=one.started_at - timedelta(seconds=3))
    house.events.put(one)
    tab.open(house.url)
    tab.click(".event")
    tab.wait_text("#event-view .note", "no video was kept")
    house.events.put(one.model_copy(update={"version": 2, "clip": clip}))  # while it is open
    tab.wait("document.querySelector('video')?.readyState >= 1")
    assert tab.run("document.querySelector('video').videoWidth") == 160
    tab.click("#event-view .view-main button")
    tab.wait("document.querySelector('video').currentTime > 1.9")
    assert tab.run("document.querySelector('video').error") is None


def test_the_files_of_a_long_clip_play_one_after_the_other(
    house: House, tab: Tab, tmp_path: Path
) -> None:
    one = event(1)
    parts = []
    for name, frames in (("first", 15), ("second", 60)):
        file = tmp_path / f"{name}.webm"
        make_video(file, VideoSpec(codec="vp8", num_frames=frames))
        house.objects.files[f"file:///{name}.webm"] = file.read_bytes()
        parts.append(ClipPart(uri=f"file:///{name}.webm", start=one.started_at, end=one.started_at))
    clip = ClipRef(uri=parts[0].uri, start=one.started_at, end=one.started_at)
    house.events.put(one.model_copy(update={"clip": clip}))
    tab.open(house.url)
    tab.click(".event")
    tab.wait("document.querySelector('video')?.readyState >= 1")
    assert "File" not in tab.text("#event-view .view-main")
    longer = clip.model_copy(update={"parts": (parts[1],)})
    house.events.put(one.model_copy(update={"version": 2, "clip": longer}))  # it grows meanwhile
    tab.wait_text("#event-view .view-main", "File 1 of 2")
    tab.run("document.querySelector('video').muted = true")
    tab.run("void document.querySelector('video').play()")
    tab.wait_text("#event-view .view-main", "File 2 of 2")
    tab.wait("document.querySelector('video').currentSrc.endsWith('/clip?part=1')")
    tab.wait("document.querySelector('video').duration > 1.5")
    hrefs = "[...document.querySelectorAll('.view-main a')].map(link => link.href)"
    links = tab.run(hrefs)
    assert [httpx.get(link, timeout=120).content for link in links] == [
        house.objects.files[part.uri] for part in parts
    ]


def test_a_camera_is_shown_large_with_its_zones_and_records(house: House, tab: Tab) -> None:
    tab.open(house.url)
    tab.click(".tile")
    tab.wait("document.querySelector('#camera-view polygon') !== null")
    shown = tab.text("#camera-view")
    for words in ("table", "stays 3 s or longer", "rtsp://***@10.0.0.7/1", "h264"):
        assert words in shown
    tab.wait("document.querySelector('#camera-view .stage').dataset.live === 'yes'")
    soon(lambda: house.cameras.watched == 1, "the tiles below do not wait")
    tab.run(
        "[...document.querySelectorAll('#camera-view button')]"
        ".find(button => button.innerText === 'Record now').click()"
    )
    soon(lambda: house.cameras.commands == [("table", "start-recording")], "no command came")
    house.cameras.more["table"] = {"recording": True}
    tab.wait("document.querySelector('#camera-view dl').innerText.includes('now')")
    assert "Stop recording" not in tab.text("#camera-view")  # not what the rules have begun
    by_hand = event(1, type=EventType.MANUAL, status=EventStatus.OPEN, ended_at=None)
    house.events.put(by_hand)
    tab.wait_text("#camera-view", "Stop recording")
    tab.press("Escape")
    tab.wait("!document.querySelector('#camera-view').open")
    tab.wait("!document.querySelector('.tile .rec').hidden")


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
        ({"score": 0.91}, None),  # nobody looked
    ],
)
def test_an_event_tells_what_the_theft_check_made_of_it(
    house: House, tab: Tab, more: dict[str, Any], words: str | None
) -> None:
    house.events.put(event(1, **more))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.click(".event")
    tab.wait("document.querySelector('#event-view').open")
    if words is None:
        assert "Theft check" not in tab.run("document.querySelector('#event-view').textContent")
    else:
        tab.wait_text("#event-view .view-side", words)


def test_an_event_tells_what_is_said_of_its_person(house: House, tab: Tab) -> None:
    said = {"label": "carries one", "share": 0.8, "votes": 5, "model": {"name": "m", "sha256": "0"}}
    house.events.put(event(1, attributes={"basket": said, "direction": "in"}))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.click(".event")
    tab.wait("document.querySelector('#event-view').open")
    tab.wait_text("#event-view .view-side", "Basket")
    tab.wait_text("#event-view .view-side", "carries one (4 of 5 looks)")
