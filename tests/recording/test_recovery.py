"""What a crash leaves of clip files plays, and is recovered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storeguard.config.store import Container
from storeguard.recording.recovery import recover_files
from storeguard.testing.video import VideoSpec, make_video
from tests.video.clips import at, decoded_numbers

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
    (clip,) = recover_files(folder)
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
    finished.write_bytes(b"a finished clip")
    assert recover_files(tmp_path) == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [finished]


def test_recover_of_a_missing_folder_is_nothing(tmp_path: Path):
    assert recover_files(tmp_path / "never made") == []
