"""One camera's recorder: events and commands to manifests and clips, without Ray or a detector."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from storeguard.config import CameraConfig
from storeguard.errors import QueryError, RecordingError
from storeguard.events.clip_link import StoredClip, Wish
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.pipeline.recording import CameraRecorder, RecordingPlace
from storeguard.pipeline.verdict import Verdict
from storeguard.pipeline.wishes import needed_cache_s
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.storage.objects import ObjectStore
from storeguard.storage.spool import ClipItem, EventItem, SnapshotItem, Spool, WishItem
from storeguard.storage.uploader import Uploader
from storeguard.testing import FakeClock
from storeguard.testing_video import VideoSpec, make_video
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader
from tests.pipeline.held_clock import PATIENCE_S

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ZONE = {
    "id": "seat",
    "polygon": [[0, 0], [1, 0], [1, 1]],
    "rules": [
        {"type": "intrusion", "pre_roll_s": 2, "post_roll_s": 3},
        {"type": "loitering", "record": False},
    ],
}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedPacket]:
    """120 seconds at 5 pictures a second, a keyframe a second."""
    path = make_video(
        tmp_path_factory.mktemp("video") / "long.mp4", VideoSpec(fps=5, num_frames=600, gop=5)
    )
    read: list[EncodedPacket] = []
    camera = CameraConfig(id="till", source=str(path), pace="fast")
    reader = CameraReader(camera, on_frame=lambda _: None, on_packet=read.append, start=START)
    with reader:
        assert reader.join(PATIENCE_S)
    return read


def event(name: str = "e1", *, start_s: float, end_s: float | None = None, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": name,
        "version": 1 if end_s is None else 2,
        "type": EventType.INTRUSION,
        "status": EventStatus.OPEN if end_s is None else EventStatus.CLOSED,
        "store_id": "shop",
        "camera_id": "till",
        "zone_id": "seat",
        "person_id": f"person-{name}",
        "started_at": at(start_s),
        "ended_at": None if end_s is None else at(end_s),
        "updated_at": at(start_s if end_s is None else end_s),
        "rule": {"type": "intrusion", "record": True, "pre_roll_s": 2.0, "post_roll_s": 3.0},
        **more,
    }
    return Event(**fields)


def wait_until(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (outcome := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return outcome


@dataclass
class Till:
    """A camera whose video and verdicts come when the test says so."""

    recorder: CameraRecorder
    spool: Spool
    packets: list[EncodedPacket]
    fed: int = 0
    spoken: bool = False
    open: dict[str, Event] = field(default_factory=dict)

    def play(self, to_s: float) -> None:
        """Let the camera send until a moment."""
        while self.fed < len(self.packets) and self.packets[self.fed].captured_at < at(to_s):
            self.recorder.on_packet(self.packets[self.fed])
            self.fed += 1
            if self.fed % 50 == 0:  # ten seconds of video at a time, or the ring would move on
                wait_until(self.is_written)

    def is_written(self) -> bool:
        """Whether the recordings that go on hold all that the camera sent."""
        inner = self.recorder._recordings._recorder
        return all(inner._cursors.get(name, self.fed) >= self.fed for name in inner.active())

    def say(self, *events: Event) -> None:
        """Let the rules say what changed, and have the recorder act on it."""
        self.spoken = True
        for one in events:
            self.open[one.event_id] = one
            if one.status is EventStatus.CLOSED:
                del self.open[one.event_id]
        self.settle(*events)

    @property
    def opened(self) -> tuple[OpenEvent, ...]:
        return tuple(
            OpenEvent(one.event_id, one.type, one.zone_id, one.person_id)
            for one in self.open.values()
        )

    def settle(self, *events: Event) -> None:
        """One step of the recorder's own thread, now."""
        self.recorder._step(list(events), self.opened if self.spoken else None)

    def manifests(self, kind: type) -> list[Any]:
        return [item.manifest for item in self.spool.items() if isinstance(item.manifest, kind)]

    def clips(self, count: int = 1) -> list[ClipItem]:
        """The clips that are queued for upload, once there are so many."""

        def found() -> list[ClipItem] | None:
            self.settle()
            clips = [one for one in self.manifests(ClipItem) if one.upload]
            return clips if len(clips) >= count else None

        clips = wait_until(found)
        assert len(clips) == count
        return clips

    def idle(self) -> None:
        wait_until(lambda: self.settle() or not self.recorder.state().recording)
        self.settle()


MakeTill = Callable[..., Till]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves time: minutes of video play in seconds here.

    And the recorder's own thread takes a step only when it is told of something, so that it takes
    none in the middle of the test's.
    """
    monkeypatch.setattr("storeguard.pipeline.recordings._GATHER_S", 0.01)
    monkeypatch.setattr("storeguard.pipeline.recording._STEP_S", 3600.0)


@pytest.fixture
def till(packets: list[EncodedPacket], tmp_path: Path) -> Iterator[MakeTill]:
    made: list[CameraRecorder] = []

    def make(*, min_free_bytes: int = 0, root: Path = tmp_path, **recording: Any) -> Till:
        camera = CameraConfig.model_validate(
            {"id": "till", "source": "x", "zones": [ZONE], "recording": recording}
        )
        # Its clock stands still: a test that is held up is not taken for a silent camera.
        place = RecordingPlace("shop", root, min_free_bytes)
        recorder = CameraRecorder(camera, place, clock=FakeClock())
        made.append(recorder)
        return Till(recorder, Spool(root / "till", prefix="shop/till"), packets)

    yield make
    for recorder in made:
        recorder.close()


def decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_an_event_is_recorded_from_its_pre_roll_to_its_post_roll(till: MakeTill):
    one = till()
    one.play(10.1)
    one.say(event(start_s=9.7))
    one.play(14)
    one.say(event(start_s=9.7, end_s=13.5))
    one.play(20)
    (clip,) = one.clips()
    (link,) = clip.links
    assert (link.event_id, link.start, link.end, link.final) == ("e1", at(7.7), at(16.5), True)
    assert clip.start == at(7)  # the last keyframe at or before
    assert clip.end >= at(16.5)
    assert clip.key.startswith("shop/till/2026-05-01/till_")
    assert decoded(one.spool.folder / clip.file) == clip.num_frames
    one.idle()
    assert not list(one.spool.folder.glob("*.events.json"))
    (promise,) = one.manifests(WishItem)
    assert not promise.links[0].final
    assert promise.error is None


def test_verdicts_are_taken_in_without_waiting_for_the_disk(till: MakeTill):
    one = till()
    one.play(10.1)
    with one.recorder._lock:  # as if the disk hung
        one.open["e1"] = event(start_s=9.7)
        one.recorder.judged(Verdict("till", changes=(event(start_s=9.7),), open_events=one.opened))
        one.recorder.seen(*seen(10, 0.5))
    wait_until(lambda: one.recorder.state().recording)
    closed = event(start_s=9.7, end_s=9.9)
    one.recorder.judged(Verdict("till", changes=(closed,)))
    one.recorder.judged(Verdict("till", changes=(closed,)))  # and once more: no second clip

    def heard() -> bool:
        with one.recorder._lock:
            return one.recorder._book.wanted["e1"].final

    wait_until(heard)  # or the video would be recorded on, until more comes
    one.play(30)
    (clip,) = wait_until(lambda: one.manifests(ClipItem))
    assert [link.event_id for link in clip.links] == ["e1"]
    one.recorder.judged(Verdict("till", changes=(closed,)))
    one.recorder.close()
    assert len(one.manifests(ClipItem)) == 1


def test_overlapping_events_share_one_recording(till: MakeTill):
    one = till()
    one.play(10)
    one.say(*(event(f"e{n}", start_s=9.5) for n in range(30)))
    one.play(11)
    one.say(event("late", start_s=10.9))
    one.play(12)
    one.say(*(event(f"e{n}", start_s=9.5, end_s=11) for n in range(30)))
    one.say(event("late", start_s=10.9, end_s=11.9))
    one.play(30)
    (clip,) = one.clips()
    assert {link.event_id for link in clip.links} == {*(f"e{n}" for n in range(30)), "late"}
    assert clip.end >= at(14.9)
    assert clip.end < at(16)  # and not as long as an open event would hold it


def test_events_of_the_first_seconds_share_one_recording_too(till: MakeTill):
    """Nothing older than the camera's first picture is there for any of them."""
    one = till()
    one.play(0.5)
    one.say(event("a", start_s=0.2))
    one.play(1.5)
    one.say(event("b", start_s=1.2))
    one.say(event("a", start_s=0.2, end_s=1.3), event("b", start_s=1.2, end_s=1.4))
    one.play(20)
    (clip,) = one.clips()
    assert {link.event_id for link in clip.links} == {"a", "b"}


def test_a_long_event_has_several_files_and_each_knows_it(till: MakeTill):
    one = till(max_duration_s=10)
    one.play(10)
    one.say(event(start_s=9))
    for second in range(11, 40):
        one.play(second)
        one.settle()
    one.say(event(start_s=9, end_s=38))
    one.play(60)
    clips = one.clips(4)
    assert all(clip.links[0].event_id == "e1" for clip in clips)
    for before, after in pairwise(clips):
        assert abs(after.start - before.end) < timedelta(milliseconds=5)
    assert clips[-1].links[0].final
    assert clips[-1].end >= at(41)


def test_an_event_that_fires_late_is_linked_to_the_file_finished_before(till: MakeTill):
    one = till(max_duration_s=5)
    one.play(10)
    one.say(event("long", start_s=9))
    for second in range(11, 18):
        one.play(second)
        one.settle()
    one.clips(1)
    one.say(event("slow", start_s=11))  # began within the first file
    relinks = [clip for clip in one.manifests(ClipItem) if not clip.upload]
    assert [link.event_id for clip in relinks for link in clip.links] == ["slow"]


@pytest.mark.parametrize("closing", ["told", "absent"])
def test_an_event_heard_of_only_as_open_is_recorded(till: MakeTill, closing: str):
    one = till()
    one.play(10)
    one.open["e1"] = event(start_s=3)
    one.say()
    one.play(12)
    if closing == "told":
        one.say(event(start_s=3, end_s=11))
    else:  # the rules died between taking its end down and saying so
        one.open.clear()
        one.say()
    one.play(40)
    (clip,) = one.clips()
    assert clip.start <= at(8)
    assert clip.links[0].final
    assert clip.end >= at(14 if closing == "told" else 15)


def test_a_closed_event_of_which_nothing_was_kept_is_told_so(till: MakeTill):
    one = till(cache_s=3)
    one.play(60)
    one.say(event(start_s=3, end_s=5))
    failures = [item for item in one.manifests(WishItem) if item.error]
    assert [link.event_id for item in failures for link in item.links] == ["e1"]
    assert "nothing of it was kept" in failures[0].error


@pytest.mark.parametrize("ahead_s", [60, 3600])
def test_an_event_ahead_of_the_cameras_clock_is_told_that_it_has_no_video(
    till: MakeTill, ahead_s: float
):
    """The clock was set back, the camera began anew, and the rules closed what was before."""
    one = till()
    one.play(10)
    one.say(event(start_s=10 + ahead_s, end_s=12 + ahead_s), event("now", start_s=8, end_s=9))
    failures = [item for item in one.manifests(WishItem) if item.error]
    assert [link.event_id for item in failures for link in item.links] == ["e1"]
    assert "clock was set back" in failures[0].error
    one.play(30)
    (clip,) = one.clips()
    assert [link.event_id for link in clip.links] == ["now"]


def test_record_false_keeps_none(till: MakeTill):
    one = till()
    one.play(10)
    rule = {"type": "loitering", "record": False}
    one.say(event(start_s=9, type=EventType.LOITERING, rule=rule))
    one.open["quiet"] = event("quiet", start_s=9, type=EventType.LOITERING)
    one.say()
    assert not one.recorder.state().recording
    assert not list(one.spool.items())


def test_rules_that_fall_silent_do_not_cut_an_open_event_short(till: MakeTill):
    one = till()
    one.play(10)
    one.say(event(start_s=9))
    one.play(28)  # nobody says anything for 18 s
    assert one.recorder.state().recording
    one.say(event(start_s=9, end_s=27))
    one.play(60)
    (clip,) = one.clips()
    assert clip.end >= at(30)


# --------------------------------------------------------------------------- commands


def start(**more: Any) -> RecordCommand:
    return RecordCommand.model_validate({"command": "start-recording", **more})


STOP = RecordCommand(command="stop-recording")


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ({}, (15, 40)),  # start_before_now_s 5, default_duration_s 20
        ({"duration_s": 3}, (15, 23)),
        ({"start": at(12), "end": at(17)}, (12, 17)),  # all past
        ({"start": at(18), "end": at(23)}, (18, 23)),
        ({"end": at(21)}, (15, 21)),
    ],
)
def test_a_command_saves_start_before_now_plus_duration(
    till: MakeTill, command: dict[str, Any], asked: tuple[float, float]
):
    one = till(smart_record="commands", start_before_now_s=5)
    one.play(20)
    answer = one.recorder.command(start(**command))
    assert (answer.start, answer.end) == (at(asked[0]), at(asked[1]))
    one.play(60)
    (clip,) = one.clips()
    assert clip.start <= at(asked[0])
    assert clip.end >= at(asked[1])
    one.idle()
    opened, closed = (item.event for item in one.manifests(EventItem))
    assert opened.type is closed.type is EventType.MANUAL
    assert (opened.status, closed.status) == (EventStatus.OPEN, EventStatus.CLOSED)
    assert (opened.person_id, opened.zone_id) == (None, None)
    assert closed.version == opened.version + 1
    assert closed.ended_at == at(asked[1])
    final = [
        link
        for item in one.manifests(ClipItem) + one.manifests(WishItem)
        for link in item.links
        if link.final
    ]
    assert (final[-1].start, final[-1].end) == (at(asked[0]), at(asked[1]))


def test_who_sees_a_recording_closed_sees_the_whole_span_that_was_asked(
    till: MakeTill, tmp_path: Path
):
    one = till(smart_record="commands", start_before_now_s=5)
    one.play(20)
    one.recorder.command(start(duration_s=3))
    one.play(60)
    one.idle()
    desk = Desk()
    uploader = Uploader(
        one.spool.folder.parent,
        ObjectStore(str(tmp_path / "objects")),
        desk,
        store_id="shop",
    )
    while uploader.step():
        pass
    assert desk.span_when_closed == [(at(15), at(23))]


class Desk:
    """Takes what the uploader hands on; notes which span was told of an event as it closed."""

    def __init__(self) -> None:
        self.spans: dict[str, tuple[datetime, datetime]] = {}
        self.span_when_closed: list[tuple[datetime, datetime]] = []

    def journal(self, event: Event) -> None:
        if event.status is EventStatus.CLOSED:
            self.span_when_closed.append(self.spans[event.event_id])

    def link_wishes(self, wishes: Sequence[Wish], error: str | None) -> int:
        del error
        for one in wishes:
            start, end = self.spans.get(one.event_id, (one.start, one.end))
            self.spans[one.event_id] = (min(start, one.start), max(end, one.end))
        return len(wishes)

    def link_clip(self, stored: StoredClip, wishes: Sequence[Wish]) -> int:
        assert stored.uri
        return self.link_wishes(wishes, None)

    def link_snapshot(self, event_id: str, uri: str) -> bool:
        assert uri
        return event_id in self.spans


def test_stop_ends_what_was_asked_for_now_and_nothing_else(till: MakeTill):
    one = till(start_before_now_s=2)
    one.play(20)
    one.say(event(start_s=19))
    answer = one.recorder.command(start())
    one.play(25)
    stopped = one.recorder.command(STOP)
    assert stopped.event_ids == answer.event_ids
    assert stopped.end == at(25)
    one.play(30)
    one.say(event(start_s=19, end_s=29))
    one.play(60)
    (clip,) = one.clips()  # the automatic recording went on
    spans = {link.event_id: (link.start, link.end) for link in clip.links}
    assert spans == {answer.event_ids[0]: (at(18), at(25)), "e1": (at(17), at(32))} or (
        len(spans) == 2 and clip.end >= at(32)
    )


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        (STOP, RecordingError, "nothing to stop"),
        (start(start=at(500)), QueryError, "a minute ahead"),
        (start(start=at(2), end=at(2.5)), QueryError, "expected after"),  # nothing so old is kept
        (RecordCommand(command="stop-recording", duration_s=3), QueryError, "at most 'end'"),
    ],
)
def test_impossible_commands_are_answered(
    till: MakeTill, command: RecordCommand, error: type[Exception], says: str
):
    one = till(cache_s=5)
    one.play(60)
    with pytest.raises(error, match=says):
        one.recorder.command(command)


def test_a_command_before_the_first_picture_is_answered(till: MakeTill):
    with pytest.raises(RecordingError, match="no keyframe has come yet"):
        till().recorder.command(start())


def test_events_do_not_record_where_only_commands_do(till: MakeTill):
    one = till(smart_record="commands")
    one.play(10)
    one.recorder.judged(Verdict("till", changes=(event(start_s=9),)))
    time.sleep(0.1)
    one.settle()
    assert not one.recorder.state().recording


# --------------------------------------------------------------------------- pictures


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
    one.recorder.seen(*seen(9, scores[0]))
    one.say(event(start_s=9))
    for number, score in enumerate(scores[1:]):
        one.recorder.seen(*seen(10 + number, score))
    one.say(event(start_s=9, end_s=14))
    items: list[SnapshotItem] = one.manifests(SnapshotItem)
    assert {item.key for item in items} == {"shop/till/2026-05-01/e1.jpg"}
    shown = [brightness(one.spool.folder / item.file) / 250 for item in items]
    assert shown == pytest.approx(pictures, abs=0.02)


# --------------------------------------------------------------------------- disks and crashes


def test_a_nearly_full_disk_pauses_recording_and_it_recovers(
    till: MakeTill, monkeypatch: pytest.MonkeyPatch
):
    free = [10**9]
    monkeypatch.setattr("storeguard.pipeline.spool_writer.free_bytes", lambda _: free[0])
    one = till(min_free_bytes=10**6)
    one.play(10)
    one.say(event("before", start_s=9))
    free[0] = 10
    one.settle()
    state = one.recorder.state()
    assert state.paused
    assert state.error is not None
    assert "less than 1000000 bytes free" in state.error
    one.play(15)
    one.say(event("during", start_s=14), event("before", start_s=9, end_s=14))
    with pytest.raises(RecordingError, match="paused"):
        one.recorder.command(start())
    one.say(event("during", start_s=14, end_s=14.5))
    one.idle()
    told = {
        link.event_id: item.error
        for item in one.manifests(WishItem)
        for link in item.links
        if link.final
    }
    assert told.keys() == {"before", "during"}
    assert all(error and "paused" in error for error in told.values())
    (clip,) = one.clips()  # what there was of the first is kept
    assert clip.links[0].event_id == "before"
    free[0] = 10**9
    one.settle()
    assert not one.recorder.state().paused
    one.play(20)
    one.say(event("after", start_s=19))
    assert one.recorder.state().recording


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of three megabytes."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_ends_the_recording_and_is_told_once_there_is_room(
    till: MakeTill, small_disk: Path
):
    one = till(root=small_disk)
    ballast = small_disk / "ballast"
    one.play(10)
    one.say(event(start_s=9))
    fill_up(ballast)
    one.play(30)  # the muxer meets the full disk
    wait_until(lambda: one.settle() or one.recorder.state().error)
    one.say(event(start_s=9, end_s=29))
    one.settle()
    ballast.unlink()
    wait_until(lambda: one.settle() or any(item.error for item in one.manifests(WishItem)))
    told = [item for item in one.manifests(WishItem) if item.error]
    assert [link.event_id for item in told for link in item.links] == ["e1"]
    assert "No space left" in told[0].error or "cannot" in told[0].error
    # And the next event is recorded as if nothing had been.
    one.recorder._recordings._not_before_s = 0.0
    one.play(40)
    one.say(event("next", start_s=39))
    one.play(42)
    one.say(event("next", start_s=39, end_s=41))
    one.play(60)
    clips = wait_until(
        lambda: (
            one.settle()
            or [clip for clip in one.manifests(ClipItem) if clip.links[0].event_id == "next"]
        )
    )
    assert decoded(one.spool.folder / clips[0].file) == clips[0].num_frames


def test_closing_finishes_what_is_open_and_tells_what_it_covers(till: MakeTill):
    one = till(start_before_now_s=1)
    one.play(10)
    one.say(event(start_s=9))
    answer = one.recorder.command(start())
    one.play(12)
    one.recorder.close()
    (clip,) = [item for item in one.manifests(ClipItem) if item.upload]
    spans = {link.event_id: link for link in clip.links}
    assert spans.keys() == {"e1", *answer.event_ids}
    assert all(link.final and link.end <= clip.end for link in spans.values())
    closed = one.manifests(EventItem)[-1].event
    assert closed.status is EventStatus.CLOSED
    assert not list(one.spool.folder.glob("*.events.json"))


CRASH = """
import os, sys
sys.path.insert(0, {tests!r})
import importlib.util
spec = importlib.util.spec_from_file_location("recording_tests", {file!r})
tests = importlib.util.module_from_spec(spec)
sys.modules["recording_tests"] = tests
spec.loader.exec_module(tests)
from pathlib import Path
from storeguard.config import CameraConfig
from storeguard.pipeline.recording import CameraRecorder, RecordingPlace
from storeguard.storage.spool import Spool
from storeguard.video.reader import CameraReader

packets = []
reader = CameraReader(
    CameraConfig(id="till", source={video!r}, pace="fast"),
    on_frame=lambda _: None, on_packet=packets.append, start=tests.START,
)
with reader:
    assert reader.join(tests.PATIENCE_S)
root = Path({root!r})
camera = CameraConfig.model_validate(
    dict(id="till", source="x", zones=[tests.ZONE], recording=dict(max_duration_s=10, start_before_now_s=1))
)
recorder = CameraRecorder(camera, RecordingPlace("shop", root, 0))
one = tests.Till(recorder, Spool(root / "till", prefix="shop/till"), packets)
one.play(10)
one.say(tests.event("rule", start_s=9))
asked = recorder.command(tests.start(duration_s=60))
for second in range(11, 26):
    one.play(second)
    one.settle()
tests.wait_until(lambda: list((root / "till").glob(".*.part")) and len(one.manifests(tests.ClipItem)) >= 1)
tests.wait_until(one.is_written)
print(asked.event_ids[0], flush=True)
os.kill(os.getpid(), 9)
"""


def test_kill_9_leaves_clips_that_play_and_events_that_know_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    video = make_video(
        tmp_path_factory.mktemp("video") / "v.mp4", VideoSpec(fps=5, num_frames=200, gop=5)
    )
    script = CRASH.format(
        tests=str(Path(__file__).parents[2]), file=__file__, video=str(video), root=str(tmp_path)
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == -9, done.stderr
    asked = done.stdout.strip()

    camera = CameraConfig.model_validate({"id": "till", "source": "x", "zones": [ZONE]})
    recorder = CameraRecorder(camera, RecordingPlace("shop", tmp_path, 0))
    try:
        spool = Spool(tmp_path / "till", prefix="shop/till")
        manifests = [item.manifest for item in spool.items()]
    finally:
        recorder.close()
    clips = [one for one in manifests if isinstance(one, ClipItem) and one.upload]
    assert len(clips) >= 2
    for clip in clips:
        assert decoded(spool.folder / clip.file) > 0
        assert {link.event_id for link in clip.links} == {"rule", asked}
    assert clips[-1].end > at(20)
    events = [one.event for one in manifests if isinstance(one, EventItem)]
    assert [(one.event_id, one.status) for one in events] == [
        (asked, EventStatus.OPEN),
        (asked, EventStatus.CLOSED),
    ]
    files = {path.name for path in spool.folder.iterdir() if not path.name.endswith(".json")}
    assert files == {".writer.lock", *(clip.file for clip in clips)}


def test_the_second_recorder_of_a_folder_waits_for_the_first(till: MakeTill, tmp_path: Path):
    first = till()
    begun = threading.Event()
    camera = CameraConfig(id="till", source="x")

    def take_over() -> None:
        second = CameraRecorder(camera, RecordingPlace("shop", tmp_path, 0))
        begun.set()
        second.close()

    thread = threading.Thread(target=take_over)
    thread.start()
    assert not begun.wait(0.3)
    first.recorder.close()
    assert begun.wait(PATIENCE_S)
    thread.join()


def test_the_cache_reaches_back_as_far_as_every_rule_asks():
    def camera(*rules: dict[str, Any], **more: Any) -> CameraConfig:
        zone = {"id": "z", "polygon": ZONE["polygon"], "rules": list(rules)}
        return CameraConfig.model_validate({"id": "c", "source": "x", "zones": [zone], **more})

    slow = {"type": "loitering", "loiter_s": 60, "pre_roll_s": 10}
    assert needed_cache_s(camera()) == 30
    assert needed_cache_s(camera(slow)) == 75  # fires a minute after it began
    assert needed_cache_s(camera({**slow, "record": False})) == 30
    assert needed_cache_s(camera(slow, recording={"cache_s": 100})) == 100
