"""A recorder of a camera: triggers, silence, full disks, and crashes that leave clips that play."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storeguard.config.store import Container, RecordingSettings
from storeguard.errors import NotFoundError, RecordingError
from storeguard.recording.part import part_of
from storeguard.recording.recorder import Recorder, recover
from storeguard.recording.recording import ClipFile, Recording
from storeguard.testing import FakeClock
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket, PacketRing
from tests.conftest import MakeVideo
from tests.video.clips import (
    PATIENCE_S,
    START,
    at,
    decoded_numbers,
    feed_all,
    fill,
    read_packets,
)


class Clips:
    """Collects what a recorder reports."""

    def __init__(self) -> None:
        self.files: list[ClipFile] = []
        self.errors: list[tuple[str, RecordingError]] = []
        self.came = threading.Event()

    def on_clip(self, clip: ClipFile) -> None:
        self.files.append(clip)
        self.came.set()

    def on_error(self, recording_id: str, error: RecordingError) -> None:
        self.errors.append((recording_id, error))
        self.came.set()


@pytest.fixture
def clips() -> Clips:
    return Clips()


@pytest.fixture
def packets(video: MakeVideo) -> list[EncodedPacket]:
    return read_packets(video("mp4", num_frames=100))


def recorder(ring: PacketRing, clips: Clips, folder: Path, **settings: object) -> Recorder:
    return Recorder(
        ring,
        camera_id="till",
        settings=RecordingSettings(**settings),
        folder=folder,
        on_clip=clips.on_clip,
        on_error=clips.on_error,
        clock=FakeClock(START),
    )


@pytest.fixture
def live(
    packets: list[EncodedPacket], clips: Clips, tmp_path: Path
) -> Iterator[tuple[PacketRing, Recorder, list[EncodedPacket]]]:
    """A ring with 5 s in it, its recorder, and the packets still to come."""
    ring = fill(packets[:50])
    recording = recorder(ring, clips, tmp_path)
    yield ring, recording, packets[50:]
    assert recording.close(timeout_s=PATIENCE_S)


Live = tuple[PacketRing, Recorder, list[EncodedPacket]]


def test_overlapping_triggers_make_one_clip(live: Live, clips: Clips):
    ring, recording, rest = live
    first = recording.start(at(3), at(6))
    assert recording.start(at(4.5), at(7)) == first
    assert recording.start(at(4), at(6.5)) == first  # never shortens
    for packet in rest:
        ring.append(packet)
    assert clips.came.wait(PATIENCE_S)
    (clip,) = clips.files
    assert (clip.start, clip.end, clip.requested_end) == (at(3), at(7), at(7))
    assert clip.recording_id == first


def test_a_trigger_that_reaches_further_back_gets_a_clip_of_its_own(live: Live, clips: Clips):
    ring, recording, rest = live
    first, second = recording.start(at(4), at(6)), recording.start(at(1), at(6))
    assert first != second
    for packet in rest:
        ring.append(packet)
    assert recording.close(timeout_s=PATIENCE_S)
    spans = {clip.recording_id: (clip.start, clip.end) for clip in clips.files}
    assert spans == {first: (at(4), at(6)), second: (at(1), at(6))}


def test_stop_ends_now_and_extend_goes_on(live: Live, clips: Clips):
    ring, recording, rest = live
    name = recording.start(at(4), None)
    recording.extend(name, at(60))
    ring.append(rest[0])
    recording.stop(name)
    for packet in rest[1:]:
        ring.append(packet)
    assert clips.came.wait(PATIENCE_S)
    assert clips.files[0].end == at(5.1)
    while recording.active():
        clips.came.wait(0.01)
    with pytest.raises(NotFoundError, match="no recording"):
        recording.stop(name)


def test_the_past_alone_can_be_recorded(live: Live, clips: Clips):
    _, recording, _ = live
    recording.start(at(1.5), at(2.5))
    assert clips.came.wait(PATIENCE_S)
    assert (clips.files[0].start, clips.files[0].end) == (at(1), at(2.5))


def by_clock(clock: FakeClock, ring: PacketRing, clips: Clips, folder: Path) -> Recorder:
    """A recorder whose clock is turned by hand."""
    return Recorder(
        ring,
        camera_id="till",
        settings=RecordingSettings(),
        folder=folder,
        on_clip=clips.on_clip,
        clock=clock,
    )


def test_a_camera_that_dies_ends_its_recording(
    packets: list[EncodedPacket], clips: Clips, tmp_path: Path
):
    clock = FakeClock(START)
    recording = by_clock(clock, fill(packets[:50]), clips, tmp_path)
    recording.start(at(3), at(8))
    while not clips.came.wait(0.05):
        clock.advance(1.0)
    (clip,) = clips.files
    assert not clip.complete
    assert "the camera sent no more" in clip.note
    assert clip.end == at(5)
    assert recording.close(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("wait_s", [0.2, 0.4])  # the ring's own, and one that lets packets gather
def test_a_silent_camera_is_noticed_in_seconds(
    packets: list[EncodedPacket],
    clips: Clips,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_s: float,
):
    clock, ring = FakeClock(START), fill(packets[:50])

    def gathering(number: int, *, timeout_s: float) -> bool:
        del timeout_s
        clock.advance(wait_s)
        return ring.next_number() > number

    monkeypatch.setattr(ring, "wait", gathering)
    monkeypatch.setattr("storeguard.recording.recorder.time", clock)
    recording = by_clock(clock, ring, clips, tmp_path)
    began_s = clock.monotonic()
    recording.start(at(3), at(8))
    assert clips.came.wait(PATIENCE_S)
    noticed_s = clock.monotonic() - began_s
    assert recording.close(timeout_s=PATIENCE_S)
    assert not clips.files[0].complete
    assert noticed_s == pytest.approx(
        6.0, abs=0.9
    )  # until what was asked for is over, and 3 s more


def test_a_process_that_stood_still_is_no_silent_camera(
    packets: list[EncodedPacket],
    clips: Clips,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    clock, ring, stalls = FakeClock(START), fill(packets[:50]), iter([20.0, 0.0, 15.0])
    wait = ring.wait

    def held_up(number: int, *, timeout_s: float) -> bool:
        clock.advance(timeout_s + next(stalls, 0.0))
        next(rest, None)  # the reader stood still too, and goes on a little later
        return wait(number, timeout_s=0.001)

    def read_on() -> Iterator[None]:
        yield
        for packet in packets[50:]:
            ring.append(packet)
            yield

    rest = read_on()
    monkeypatch.setattr(ring, "wait", held_up)
    monkeypatch.setattr("storeguard.recording.recorder.time", clock)
    recording = by_clock(clock, ring, clips, tmp_path)
    recording.start(at(3), at(8))
    assert clips.came.wait(PATIENCE_S)
    assert recording.close(timeout_s=PATIENCE_S)
    (clip,) = clips.files
    assert clip.complete
    assert clip.end >= at(8)


def test_a_recorder_too_slow_for_its_ring_says_so(packets: list[EncodedPacket], tmp_path: Path):
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(),
        folder=tmp_path,
        requested_start=at(1),
        requested_end=at(6),
        now=at(1),
    )
    files = [f for p in packets[10:25] for f in recording.feed(p)]
    recording.lost(8)
    files += [f for p in packets[33:] for f in recording.feed(p)]
    (clip,) = files
    assert not clip.complete
    assert "8 packets lost" in clip.note
    assert decoded_numbers(clip.path) == [*range(10, 25), *range(40, 60)]


def test_nothing_to_record_yet(clips: Clips, tmp_path: Path):
    recording = recorder(PacketRing(max_s=10, max_bytes=2**20), clips, tmp_path)
    with pytest.raises(RecordingError, match="no keyframe has come yet"):
        recording.start(at(0), at(1))
    assert recording.close(timeout_s=PATIENCE_S)


def test_an_end_before_the_start_is_refused(live: Live):
    _, recording, _ = live
    with pytest.raises(RecordingError, match="cannot end"):
        recording.start(at(3), at(2))


@pytest.mark.parametrize("container", list(Container))
def test_a_full_disk_is_an_error_and_leaves_no_junk(
    packets: list[EncodedPacket], tmp_path: Path, container: Container
):
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(container=container),
        folder=tmp_path,
        requested_start=at(0),
        requested_end=at(9),
        now=at(0),
        recording_id="0" * 32,
    )
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here to stand for a full disk")
    part = part_of(tmp_path / f"till_20260501T000000.000Z_00000000_0.{container}")
    part.symlink_to("/dev/full")  # every write fails with ENOSPC
    with pytest.raises(RecordingError, match="No space left") as caught:
        feed_all(recording, packets)
    assert caught.value.errno == errno.ENOSPC
    assert recording.done
    assert list(tmp_path.iterdir()) == []


def test_a_failed_recording_does_not_stop_the_next(live: Live, clips: Clips, tmp_path: Path):
    _, recording, _ = live
    tmp_path.rmdir()
    tmp_path.write_text("a file where the folder should be")
    name = recording.start(at(1), at(2))
    assert clips.came.wait(PATIENCE_S)
    assert [failed for failed, _ in clips.errors] == [name]
    tmp_path.unlink()
    clips.came.clear()
    recording.start(at(1), at(2))
    assert clips.came.wait(PATIENCE_S)
    assert len(clips.files) == 1
    stats = recording.stats()
    assert (stats.clips, stats.failed) == (1, 1)


# --------------------------------------------------------------------------- crashes

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from storeguard.config.store import RecordingSettings
from storeguard.recording.recording import Recording
from tests.video.clips import at, read_packets
packets = read_packets(Path(sys.argv[1]))
recording = Recording(camera_id="till", settings=RecordingSettings(container=sys.argv[3]),
    folder=Path(sys.argv[2]), requested_start=at(1), requested_end=at(60), now=at(1))
for packet in packets[10:]:
    recording.feed(packet)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("container", list(Container))
@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 2), ("hevc", 0), ("mjpeg", 0)])
def test_kill_9_leaves_a_file_that_plays_and_recovers(
    tmp_path: Path, container: Container, codec: str, b_frames: int
):
    suffix = "avi" if codec == "mjpeg" else "mp4"
    spec = VideoSpec(codec=codec, b_frames=b_frames, num_frames=100)
    source = make_video(tmp_path / f"source.{suffix}", spec)
    folder = tmp_path / "clips"
    root = str(Path(__file__).parent.parent.parent)
    words = [sys.executable, "-c", _KILLED, str(source), str(folder), str(container), root]
    assert subprocess.run(words, check=False).returncode == -9
    (part,) = folder.iterdir()
    assert part.name.startswith(".")
    numbers = decoded_numbers(part)  # plays as it is
    assert numbers == list(range(10, 10 + len(numbers)))
    (clip,) = recover(folder)
    assert list(folder.iterdir()) == [clip.path]
    assert decoded_numbers(clip.path) == numbers
    assert len(numbers) >= 60  # of 90: what a kill may cost is about a group of pictures
    assert clip.num_frames == len(numbers)
    assert (clip.camera_id, clip.start, clip.complete) == ("till", at(1), False)
    assert (clip.end - clip.start).total_seconds() == pytest.approx(len(numbers) / 10, abs=0.4)
    assert clip.requested_end == at(60)


def test_recover_removes_what_cannot_be_played(tmp_path: Path):
    junk = [
        tmp_path / ".a.mp4.part",
        tmp_path / ".b.mkv.part",
        tmp_path / "till" / ".c.mp4.part",
        tmp_path / "till" / ".d.mp4.final",
    ]
    (tmp_path / "till").mkdir()
    for index, path in enumerate(junk):
        path.write_bytes(b"\x00" * 500 * index)
    finished = tmp_path / "till" / "good.mp4"
    finished.write_bytes(b"somebody's finished clip")
    assert recover(tmp_path) == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [finished]


def test_recover_of_a_missing_folder_is_nothing(tmp_path: Path):
    assert recover(tmp_path / "never made") == []
