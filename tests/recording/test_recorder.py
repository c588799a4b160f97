"""What is recorded of events: spans, files, pictures."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from storeguard.config.store import CameraConfig
from storeguard.events.cursor import Cursor
from storeguard.events.event import ClipRef, EventType
from storeguard.events.faults import FaultCode
from storeguard.recording.clip_requests import needed_cache_s
from storeguard.recording.spool import ClipItem, RequestItem, SnapshotItem
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame
from tests.recording.recorder_harness import (
    JOURNAL,
    ZONE,
    MakeTill,
    at,
    decoded,
    event,
    verdict_of,
)


def test_an_event_is_recorded_from_its_pre_roll_to_its_post_roll(till: MakeTill):
    one = till()
    one.play(10.1)
    one.report(event(start_s=9.7))
    one.play(14)
    one.report(event(start_s=9.7, end_s=13.5))
    one.play(20)
    (clip,) = one.clips()
    (link,) = clip.links
    assert (link.event_id, link.start, link.end, link.final) == ("e1", at(7.7), at(16.5), True)
    assert clip.start == at(7)  # the last keyframe at or before
    assert clip.end >= at(16.5)
    assert clip.key.startswith("shop/till/2026-05-01/till_")
    assert decoded(one.spool.folder / clip.file) == clip.num_frames
    (request,) = one.manifests(RequestItem)
    assert not request.links[0].final
    assert request.fault is None
    one.close()
    checkpoint = one.spool.load()
    assert (checkpoint.requests, checkpoint.recordings) == ((), {})
    assert checkpoint.cursor == Cursor(journal_id=JOURNAL, seq=2)


def test_changes_that_are_reported_again_make_no_second_clip(till: MakeTill):
    one = till()
    one.play(10.1)
    opened, closed = event(start_s=9.7), event(start_s=9.7, end_s=9.9)
    one.recorder.step(verdict_of(opened, seq=1))
    one.recorder.step(verdict_of(opened, seq=1))
    one.recorder.step(verdict_of(closed, seq=2))
    one.recorder.step(verdict_of(closed, seq=2))
    one.play(30)
    one.recorder.step(verdict_of(closed, seq=2))
    one.close()
    (clip,) = one.clips()
    assert [link.event_id for link in clip.links] == ["e1"]
    assert len(one.manifests(RequestItem)) == 1


def test_overlapping_events_share_one_recording(till: MakeTill):
    one = till()
    one.play(10)
    one.report(*(event(f"e{n}", start_s=9.5) for n in range(30)))
    one.play(11)
    one.report(event("late", start_s=10.9))
    one.play(12)
    one.report(*(event(f"e{n}", start_s=9.5, end_s=11) for n in range(30)))
    one.report(event("late", start_s=10.9, end_s=11.9))
    one.play(30)
    (clip,) = one.clips()
    assert {link.event_id for link in clip.links} == {*(f"e{n}" for n in range(30)), "late"}
    assert clip.end >= at(14.9)
    assert clip.end < at(16)  # and not as long as an open event would hold it


def test_events_of_the_first_seconds_share_one_recording_too(till: MakeTill):
    """Nothing older than the camera's first picture is there for any of them."""
    one = till()
    one.play(0.5)
    one.report(event("a", start_s=0.2))
    one.play(1.5)
    one.report(event("b", start_s=1.2))
    one.report(event("a", start_s=0.2, end_s=1.3), event("b", start_s=1.2, end_s=1.4))
    one.play(20)
    (clip,) = one.clips()
    assert {link.event_id for link in clip.links} == {"a", "b"}


def test_a_long_event_has_several_files_and_each_knows_it(till: MakeTill):
    one = till(max_duration_s=10)
    one.play(10)
    one.report(event(start_s=9))
    for second in range(11, 40):
        one.play(second)
        one.tick()
    one.report(event(start_s=9, end_s=38))
    one.play(60)
    clips = one.clips()
    assert len(clips) == 4
    assert all(clip.links[0].event_id == "e1" for clip in clips)
    for before, after in pairwise(clips):
        assert abs(after.start - before.end) < timedelta(milliseconds=5)
    assert clips[-1].links[0].final
    assert clips[-1].end >= at(41)


def test_an_event_that_fires_late_is_linked_to_the_file_finished_before(till: MakeTill):
    one = till(max_duration_s=5)
    one.play(10)
    one.report(event("long", start_s=9))
    for second in range(11, 18):
        one.play(second)
        one.tick()
    assert len(one.clips()) == 1
    one.report(event("slow", start_s=11))  # began within the first file
    relinks = [clip for clip in one.manifests(ClipItem) if not clip.upload]
    assert [link.event_id for clip in relinks for link in clip.links] == ["slow"]


@pytest.mark.parametrize("late_s", [0.3, 6.0, 20.0])
def test_a_late_answer_costs_nothing_of_the_clip(till: MakeTill, late_s: float):
    """The rules could not be reached for a while; the same changes come with a later answer."""
    one = till()
    one.play(10 + late_s)
    one.report(event(start_s=10))
    one.play(40)
    one.report(event(start_s=10, end_s=39))
    one.play(60)
    (clip,) = one.clips()
    (link,) = clip.links
    assert (link.start, clip.start) == (at(8), at(8))
    assert clip.end >= at(42)


def test_an_event_first_reported_when_it_is_over_is_recorded_from_the_cache(till: MakeTill):
    one = till()
    one.play(20)
    one.report(event(start_s=10, end_s=12))
    one.play(21)
    (clip,) = one.clips()
    assert (clip.start, clip.end) == (at(8), at(15))


def test_the_end_of_an_event_whose_journal_was_lost_is_now(till: MakeTill):
    """A damaged journal was set aside, and with it the memory of what is open."""
    one = till()
    one.play(10)
    one.report(event(start_s=9))
    one.play(15)
    one.journal_id, one.seq = "journal-2", 0
    one.report(event("new", start_s=14))
    one.play(30)
    one.report(event("new", start_s=14, end_s=29))
    one.play(60)
    spans = {
        link.event_id: (link.start, link.end)
        for item in one.manifests(ClipItem) + one.manifests(RequestItem)
        for link in item.links
        if link.final
    }
    assert spans == {"e1": (at(7), at(18)), "new": (at(12), at(32))}


def test_an_event_that_another_recorder_has_dealt_with_is_left_alone(till: MakeTill):
    """A camera that moved to another node reads the journal from its beginning."""
    one = till()
    one.play(20)
    clip = ClipRef(requested_start=at(3), requested_end=at(9))
    one.report(event("old", start_s=5, end_s=6, clip=clip))
    assert not one.recorder.state.recording
    assert one.manifests(RequestItem) == []


def test_a_closed_event_of_which_nothing_was_kept_gets_a_fault(till: MakeTill):
    one = till(cache_s=3)
    one.play(60)
    one.report(event(start_s=3, end_s=5))
    failures = [item for item in one.manifests(RequestItem) if item.fault]
    assert [link.event_id for item in failures for link in item.links] == ["e1"]
    assert failures[0].fault.code is FaultCode.NOTHING_KEPT


@pytest.mark.parametrize("ahead_s", [60, 3600])
def test_an_event_ahead_of_the_cameras_clock_gets_a_fault(till: MakeTill, ahead_s: float):
    """The clock was set back, the camera began anew, and the rules closed what was before."""
    one = till()
    one.play(10)
    one.report(event(start_s=10 + ahead_s, end_s=12 + ahead_s), event("now", start_s=8, end_s=9))
    failures = [item for item in one.manifests(RequestItem) if item.fault]
    assert [link.event_id for item in failures for link in item.links] == ["e1"]
    assert failures[0].fault.code is FaultCode.CLOCK_SET_BACK
    one.play(30)
    (clip,) = one.clips()
    assert [link.event_id for link in clip.links] == ["now"]


def test_record_false_keeps_none(till: MakeTill):
    one = till()
    one.play(10)
    rule = {"type": "loitering", "record": False}
    one.report(event(start_s=9, type=EventType.LOITERING, rule=rule))
    assert not one.recorder.state.recording
    assert not list(one.spool.items())


def test_rules_that_fall_silent_do_not_cut_an_open_event_short(till: MakeTill):
    one = till()
    one.play(10)
    one.report(event(start_s=9))
    one.play(28)  # no verdict for 18 s
    assert one.recorder.state.recording
    one.report(event(start_s=9, end_s=27))
    one.play(60)
    (clip,) = one.clips()
    assert clip.end >= at(30)


def seen(seconds: float, score: float) -> tuple[Frame, Observation]:
    number = int(seconds * 5)
    picture = av.VideoFrame.from_ndarray(
        np.full((96, 160, 3), min(255, int(score * 250)), np.uint8), format="rgb24"
    )
    frame = Frame("till", number, at(seconds), seconds, picture, False, 1.0, 0.0)
    observation = Observation(
        camera_id="till",
        epoch="a",
        seq=number,
        captured_at=at(seconds),
        person_id=("person-e1",),
        xyxy=np.array([[0.1, 0.1, 0.5, 0.9]], np.float32),
        score=np.array([score], np.float32),
    )
    return frame, observation


def brightness(path: Path) -> float:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return float(frame.to_ndarray(format="gray").mean())


@pytest.mark.parametrize(
    ("scores", "pictures"),
    [
        ([0.5, 0.6, 0.9, 0.7], [0.5, 0.9]),  # the best comes later
        ([0.8, 0.6, 0.7], [0.8]),  # the opening was the best
    ],
)
def test_the_picture_is_the_openings_and_then_the_best(
    till: MakeTill, scores: list[float], pictures: list[float]
):
    one = till()
    one.play(10)
    one.see(*seen(9, scores[0]))
    one.report(event(start_s=9))
    for number, score in enumerate(scores[1:]):
        one.see(*seen(10 + number, score))
    one.report(event(start_s=9, end_s=14))
    items: list[SnapshotItem] = one.manifests(SnapshotItem)
    assert {item.key for item in items} == {"shop/till/2026-05-01/e1.jpg"}
    shown = [brightness(one.spool.folder / item.file) / 250 for item in items]
    assert shown == pytest.approx(pictures, abs=0.02)


def test_the_cache_reaches_back_as_far_as_every_rule_asks():
    def camera(*rules: dict[str, Any], **more: Any) -> CameraConfig:
        zone = {"id": "z", "polygon": ZONE["polygon"], "rules": list(rules)}
        return CameraConfig.model_validate({"id": "c", "source": "x", "zones": [zone], **more})

    slow = {"type": "loitering", "loiter_s": 60, "pre_roll_s": 10}
    assert needed_cache_s(camera()) == 30
    assert needed_cache_s(camera(slow)) == 75  # fires a minute after it began
    assert needed_cache_s(camera({**slow, "record": False})) == 30
    assert needed_cache_s(camera(slow, recording={"cache_s": 100})) == 100
