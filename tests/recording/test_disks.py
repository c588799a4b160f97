"""Recording when disks are full or slow, and when processes are killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storeguard.errors import RecordingError
from storeguard.events.event import EventStatus
from storeguard.events.faults import FaultCode
from storeguard.recording.recorder import RecordingPlace
from storeguard.recording.recovery import recover
from storeguard.recording.spool import ClipItem, EventItem, RequestItem, Spool
from storeguard.testing.video import VideoSpec, make_video
from tests.recording.recorder_harness import MakeTill, at, decoded, event, start


def test_a_nearly_full_disk_pauses_recording_and_it_recovers(till: MakeTill, tmp_path: Path):
    free = [10**9]
    place = RecordingPlace("shop", tmp_path, 10**6, free=lambda _: free[0])
    one = till(place=place)
    one.play(10)
    one.report(event("before", start_s=9))
    free[0] = 10
    one.tick()
    state = one.recorder.state
    assert state.paused
    assert state.error is not None
    assert "less than 1000000 bytes free" in state.error
    one.play(15)
    one.report(event("during", start_s=14), event("before", start_s=9, end_s=14))
    with pytest.raises(RecordingError, match="paused"):
        one.command(start())
    one.report(event("during", start_s=14, end_s=14.5))
    faults = {
        link.event_id: item.fault
        for item in one.manifests(RequestItem)
        for link in item.links
        if link.final
    }
    assert {name: fault and fault.code for name, fault in faults.items()} == {
        "before": FaultCode.PAUSED,
        "during": FaultCode.PAUSED,
    }
    (clip,) = one.clips()  # what there was of the first is kept
    assert clip.links[0].event_id == "before"
    free[0] = 10**9
    one.tick()
    assert not one.recorder.state.paused
    one.play(20)
    one.report(event("after", start_s=19))
    assert one.recorder.state.recording


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


def test_a_full_disk_ends_the_recording_and_is_reported_once_there_is_room(
    till: MakeTill, small_disk: Path
):
    one = till(root=small_disk)
    ballast = small_disk / "ballast"
    one.play(10)
    one.report(event(start_s=9))
    fill_up(ballast)
    one.play(30)  # the muxer meets the full disk
    assert one.recorder.state.error is not None
    one.report(event(start_s=9, end_s=29))
    ballast.unlink()
    one.tick()
    failed = [item for item in one.manifests(RequestItem) if item.fault]
    assert [link.event_id for item in failed for link in item.links] == ["e1"]
    assert failed[0].fault.code is FaultCode.WRITE_FAILED
    assert "No space left" in failed[0].fault.in_words() or "cannot" in failed[0].fault.detail
    # And the next event is recorded as if nothing had been.
    one.clock.advance(60)
    one.play(40)
    one.report(event("next", start_s=39))
    one.play(42)
    one.report(event("next", start_s=39, end_s=41))
    one.play(60)
    (clip,) = [clip for clip in one.clips() if clip.links[0].event_id == "next"]
    assert decoded(one.spool.folder / clip.file) == clip.num_frames


def test_closing_finishes_what_is_open_and_reports_what_it_covers(till: MakeTill):
    one = till(start_before_now_s=1)
    one.play(10)
    one.report(event(start_s=9))
    answer = one.command(start())
    one.play(12)
    one.close()
    (clip,) = [item for item in one.manifests(ClipItem) if item.upload]
    spans = {link.event_id: link for link in clip.links}
    assert spans.keys() == {"e1", *answer.event_ids}
    assert all(link.final and link.end <= clip.end for link in spans.values())
    closed = one.manifests(EventItem)[-1].event
    assert closed.status is EventStatus.CLOSED
    assert one.spool.load().requests == ()


def test_a_camera_that_falls_silent_ends_its_recording_and_one_that_stood_still_does_not(
    till: MakeTill,
):
    one = till(start_before_now_s=2)
    one.play(10)
    one.command(start(duration_s=3))
    one.clock.advance(60)  # the process stood still, and so did the camera's reader
    one.tick()
    assert one.recorder.state.recording
    for _ in range(70):
        one.clock.advance(0.1)
        one.tick()
    (clip,) = one.clips()
    assert [fault.code for fault in clip.faults] == [FaultCode.CAMERA_SILENT]
    assert clip.end == at(10)
    assert not one.recorder.state.recording


CRASH = """
import os, sys
sys.path.insert(0, {root_of_tests!r})
from pathlib import Path
import tests.recording.recorder_harness as tests
from storeguard.config.store import CameraConfig
from storeguard.video.reader import CameraReader

packets = []
reader = CameraReader(
    CameraConfig(id="till", source={video!r}, pace="fast"),
    on_frame=lambda _: None, on_packet=packets.append, start=tests.START,
)
with reader:
    assert reader.join(180)
one = tests.till_of(packets, Path({root!r}), max_duration_s=10, start_before_now_s=1)
one.play(10)
one.report(tests.event("rule", start_s=9))
asked = one.command(tests.start(duration_s=60))
one.play(26)
assert list(one.spool.folder.glob(".*.part")) and one.manifests(tests.ClipItem)
print(asked.event_ids[0], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recorder was killed 26 s into its video, 16 s into its events; the manual event's id."""
    video = make_video(
        tmp_path_factory.mktemp("video") / "v.mp4", VideoSpec(fps=5, num_frames=200, gop=5)
    )
    script = CRASH.format(
        root_of_tests=str(Path(__file__).parents[2]), video=str(video), root=str(tmp_path)
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


def test_kill_9_leaves_clips_that_play_and_events_that_know_them(till: MakeTill, killed: str):
    manual = killed
    one = till()
    clips = one.clips()
    assert len(clips) >= 2
    for clip in clips:
        assert decoded(one.spool.folder / clip.file) > 0
        assert {link.event_id for link in clip.links} == {"rule", manual}
    assert clips[-1].end > at(20)
    events = [item.event for item in one.manifests(EventItem)]
    assert [(item.event_id, item.status) for item in events] == [
        (manual, EventStatus.OPEN),
        (manual, EventStatus.CLOSED),
    ]
    files = {path.name for path in one.spool.folder.iterdir() if not path.name.endswith(".json")}
    assert files - {".writer.lock"} == {clip.file for clip in clips}

    # The rule's event is still open: its video goes on, and is final when it closes.
    one.fed = 30 * 5
    one.play(35)
    one.seq = one.recorder.state.cursor.seq if one.recorder.state.cursor else 0
    one.report(event("rule", start_s=9, end_s=34))
    one.play(50)
    last = one.clips()[-1]
    assert [(link.event_id, link.final, link.end) for link in last.links] == [
        ("rule", True, at(37))
    ]
    assert last.end >= at(37)


def test_without_a_recorder_to_go_on_every_request_ends(killed: str, tmp_path: Path):
    """The camera was removed, or runs on another node: the uploader takes the spool over."""
    spool = Spool(tmp_path / "till", prefix="shop/till")
    assert spool.interrupted() == 2
    checkpoint = recover(spool, goes_on=False)
    assert checkpoint.requests == ()
    assert spool.interrupted() == 0
    clips = [item.manifest for item in spool.items() if isinstance(item.manifest, ClipItem)]
    final = {link.event_id for clip in clips for link in clip.links if link.final}
    assert final == {"rule", killed}
    waiting = len(list(spool.items()))
    assert recover(spool, goes_on=False).requests == ()
    assert len(list(spool.items())) == waiting
