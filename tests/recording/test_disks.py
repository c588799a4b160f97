"""Recording when disks are full or slow, and when processes are killed."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeguard.config.store import CameraConfig
from storeguard.errors import RecordingError
from storeguard.events.event import EventStatus
from storeguard.recording.camera_recorder import CameraRecorder, RecordingPlace
from storeguard.recording.recording import Recording
from storeguard.recording.spool import ClipItem, EventItem, Spool, WishItem
from storeguard.testing import FakeClock
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket
from tests.camera.held_clock import PATIENCE_S
from tests.recording.recorder_harness import (
    ZONE,
    MakeTill,
    Till,
    at,
    decoded,
    event,
    start,
    wait_until,
)


def test_a_nearly_full_disk_pauses_recording_and_it_recovers(
    till: MakeTill, monkeypatch: pytest.MonkeyPatch
):
    free = [10**9]
    monkeypatch.setattr("storeguard.recording.spool_writer.free_bytes", lambda _: free[0])
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


def test_what_a_slow_disk_is_still_writing_at_the_end_is_not_taken_for_left_behind(
    packets: list[EncodedPacket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("storeguard.recording.camera_recorder._CLOSE_S", 0.05)
    monkeypatch.setattr("storeguard.recording.camera_recorder._TAKE_OVER_S", 0.1)
    disk, begun, feed = threading.Event(), threading.Event(), Recording.feed

    def slowly(recording: Recording, packet: EncodedPacket) -> Any:
        begun.set()
        disk.wait()
        return feed(recording, packet)

    camera = CameraConfig.model_validate(
        {"id": "till", "source": "x", "recording": {"start_before_now_s": 1}}
    )
    spool = Spool(tmp_path / "till", prefix="shop/till")
    place = RecordingPlace("shop", tmp_path, 0)
    one = Till(CameraRecorder(camera, place, clock=FakeClock()), spool, packets)
    one.play(10)
    monkeypatch.setattr(Recording, "feed", slowly)
    answer = one.recorder.command(start())
    assert begun.wait(PATIENCE_S)
    try:
        one.recorder.close()
        del one  # as of a camera that was removed: only its threads go on
        gc.collect()
        with spool.writing() as free:
            assert not free
        with pytest.raises(RecordingError, match="another recorder still writes"):
            CameraRecorder(camera, place)
    finally:
        disk.set()
    with spool.writing(within_s=PATIENCE_S) as free:
        assert free
        manifests = [item.manifest for item in spool.items()]
    (clip,) = [item for item in manifests if isinstance(item, ClipItem) and item.upload]
    assert {link.event_id for link in clip.links} == set(answer.event_ids)
    assert decoded(spool.folder / clip.file) > 0


CRASH = """
import os, sys
sys.path.insert(0, {root_of_tests!r})
from pathlib import Path
import tests.recording.recorder_harness as tests
from storeguard.config.store import CameraConfig
from storeguard.recording.camera_recorder import CameraRecorder, RecordingPlace
from storeguard.recording.spool import Spool
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
        root_of_tests=str(Path(__file__).parents[2]), video=str(video), root=str(tmp_path)
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
