"""A disk that becomes full at any moment of a recording: what is announced plays, to its end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import av
import pytest

from storeguard.config.store import Container, RecordingSettings
from storeguard.errors import RecordingError
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.clip_requests import ClipRequest
from storeguard.recording.recording import ClipFile, Recording
from storeguard.recording.recovery import recover, recover_files
from storeguard.recording.spool import ClipItem, RecorderCheckpoint, Spool
from storeguard.testing.video import number_of
from storeguard.video.packets import EncodedPacket
from tests.conftest import MakeVideo
from tests.video.clips import at, read_packets

FRAME = timedelta(seconds=0.1)
PAGE = 4096


@pytest.fixture(params=[0, 2], ids=["plain", "b-frames"])
def packets(video: MakeVideo, request: pytest.FixtureRequest) -> list[EncodedPacket]:
    return read_packets(video("mp4", num_frames=60, b_frames=request.param))


class SmallDisk:
    """A real one of a megabyte, with something else on it that takes the room."""

    def __init__(self, folder: Path) -> None:
        self.clips = folder / "clips"
        self.clips.mkdir()
        self._ballast = folder / "ballast"

    def leave(self, num_bytes: int) -> None:
        """Take all room but this much."""
        disk = os.statvfs(self._ballast.parent)
        with self._ballast.open("ab") as file:
            begin = file.tell()
            os.posix_fallocate(file.fileno(), begin, disk.f_bavail * disk.f_frsize - num_bytes)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def clear(self) -> None:
        self.free()
        for path in self.clips.iterdir():
            path.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(mounted)
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


@contextlib.contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow past this: a full disk, to the byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def recording_into(folder: Path, container: Container) -> Recording:
    return Recording(
        camera_id="till",
        settings=RecordingSettings(container=container),
        folder=folder,
        requested_start=at(1),
        requested_end=at(5),
        now=at(1),
    )


def feed(recording: Recording, packets: list[EncodedPacket]) -> list[ClipFile]:
    return [file for packet in packets for file in recording.feed(packet)]


def check(clip: ClipFile) -> None:
    """It decodes from its first picture to its last, and they are those of its span."""
    content = clip.path.read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (clip.sha256, clip.size_bytes)
    with av.open(str(clip.path)) as container:
        numbers = [number_of(frame) for frame in container.decode(video=0)]
    assert len(numbers) == clip.num_frames
    assert numbers[0] == 10
    assert numbers == sorted(set(numbers))
    assert clip.start == at(1)
    assert abs(clip.end - at((numbers[-1] + 1) / 10)) < FRAME / 2
    # In decoding order a picture comes before the two at most that are shown before it.
    whole = range(10, 50 if clip.complete else numbers[-1] - 2)
    assert set(whole) <= set(numbers)
    codes = {fault.code for fault in clip.faults}
    assert clip.end >= clip.requested_end if clip.complete else FaultCode.CUT_OFF in codes


def outcome(folder: Path, record: Callable[[], list[ClipFile]]) -> str:
    """Whether the recording is whole, cut off, or refused; nothing else is left in the folder."""
    files: list[ClipFile] = []
    with contextlib.suppress(RecordingError):
        files = record()
    assert {path for path in folder.iterdir() if not path.name.startswith("ballast")} == {
        file.path for file in files
    }
    for file in files:
        check(file)
    if not files:
        return "refused"
    (clip,) = files
    return "whole" if clip.complete else "cut off"


@pytest.mark.parametrize("container", list(Container))
def test_a_disk_with_any_room_left(
    disk: SmallDisk, packets: list[EncodedPacket], container: Container
):
    seen: Counter[str] = Counter()
    for num_pages in range(14):
        disk.clear()
        disk.leave(num_pages * PAGE)
        recording = recording_into(disk.clips, container)
        seen[
            outcome(
                disk.clips,
                lambda one=recording: (
                    feed(one, packets[10:]) + one.close(FaultCode.RECORDER_CLOSED)
                ),
            )
        ] += 1
    assert seen["refused"]
    assert seen["whole"]


@pytest.mark.parametrize("container", list(Container))
def test_a_disk_that_is_full_from_some_moment_on(
    disk: SmallDisk, packets: list[EncodedPacket], container: Container
):
    """And has room again before the end, for every other moment."""
    seen: Counter[str] = Counter()
    for number in range(10, 50, 3):
        disk.clear()
        recording = recording_into(disk.clips, container)

        def record(one: Recording = recording, number: int = number) -> list[ClipFile]:
            files = feed(one, packets[10:number])
            disk.leave(0)
            files += feed(one, packets[number : number + 6])
            if number % 2:
                disk.free()
            return files + feed(one, packets[number + 6 :]) + one.close(FaultCode.RECORDER_CLOSED)

        seen[outcome(disk.clips, record)] += 1
    assert seen["refused"]


@pytest.mark.parametrize("container", list(Container))
def test_files_cut_at_any_byte(tmp_path: Path, packets: list[EncodedPacket], container: Container):
    seen: Counter[str] = Counter()
    for limit in range(600, 20_000, 331):
        folder = tmp_path / str(limit)
        folder.mkdir()
        recording = recording_into(folder, container)

        def record(one: Recording = recording, limit: int = limit) -> list[ClipFile]:
            with files_up_to(limit):
                return feed(one, packets[10:]) + one.close(FaultCode.RECORDER_CLOSED)

        seen[outcome(folder, record)] += 1
    assert seen["cut off"]
    assert seen["refused"]
    assert seen["whole"]


@pytest.mark.parametrize("room", [True, False], ids=["room", "full"])
@pytest.mark.parametrize("container", list(Container))
def test_a_part_torn_at_any_byte_recovers(
    disk: SmallDisk, packets: list[EncodedPacket], tmp_path: Path, container: Container, room: bool
):
    recording = recording_into(tmp_path / "writer", container)
    feed(recording, packets[10:50])
    (part,) = (tmp_path / "writer").iterdir()
    left = part.read_bytes()
    recording.abort()
    saved: list[int] = []
    for length in range(0, len(left), 257):
        disk.clear()
        torn = disk.clips / part.name
        torn.write_bytes(left[:length])
        if not room:
            disk.leave(0)
        clips = recover_files(disk.clips)
        assert list(disk.clips.iterdir()) == [clip.path for clip in clips]
        for clip in clips:
            cut_off = Fault(code=FaultCode.CUT_OFF)
            check(replace(clip, faults=(cut_off, *clip.faults)))
            saved.append(clip.num_frames)
    assert saved == sorted(saved)
    assert {10, 20} <= set(saved)  # fragments, one after the other


@pytest.mark.parametrize("container", list(Container))
def test_a_spool_on_a_full_disk_recovers_once_there_is_room(
    disk: SmallDisk, packets: list[EncodedPacket], container: Container
):
    spool = Spool(disk.clips, prefix="shop/till")
    recording = recording_into(disk.clips, container)
    feed(recording, packets[10:50])
    (part,) = disk.clips.iterdir()
    left = part.read_bytes()
    recording.abort()
    part.write_bytes(left[:-700])
    request = ClipRequest(event_id="e1", start=at(1), end=at(5), final=True)
    recordings = {recording.recording_id: ("e1",)}
    spool.save(RecorderCheckpoint(requests=(request,), recordings=recordings))
    disk.leave(0)
    with pytest.raises(OSError, match="No space left"):
        recover(spool, goes_on=False)
    assert list(spool.items()) == []
    disk.free()
    recover(spool, goes_on=False)
    (item,) = [one.manifest for one in spool.items() if isinstance(one.manifest, ClipItem)]
    assert item.links == (request.span,)
    assert [fault.code for fault in item.faults] == [FaultCode.RECOVERED]
    with av.open(str(disk.clips / item.file)) as clip:
        numbers = [number_of(frame) for frame in clip.decode(video=0)]
    assert len(numbers) == item.num_frames >= 20
    assert item.end < at(5)
    waiting = len(list(spool.items()))
    recover(spool, goes_on=False)
    assert len(list(spool.items())) == waiting


def test_a_whole_clip_without_its_index_in_front_is_no_fault(
    disk: SmallDisk, packets: list[EncodedPacket]
):
    recording = recording_into(disk.clips, Container.MP4)
    feed(recording, packets[10:45])
    disk.leave(2 * PAGE)  # for the last fragments, not for another copy
    (clip,) = feed(recording, packets[45:]) + recording.close(FaultCode.RECORDER_CLOSED)
    assert clip.complete
    assert FaultCode.INDEX_AT_END in {fault.code for fault in clip.faults}
    check(clip)
    assert Spool(disk.clips, prefix="shop/till").clip_item(clip, []).faults == ()
