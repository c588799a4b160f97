"""Opening and reading: every format, and a clear answer to every bad input."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import pytest
from PIL import Image

from storeguard.clock import SystemClock
from storeguard.config.store import CameraConfig
from storeguard.errors import EmptySourceError, SourceError, SourceTimeoutError
from storeguard.testing.video import make_audio, number_of, picture
from storeguard.video.packets import MediaKind
from storeguard.video.reader import read_frames
from storeguard.video.source import open_source
from tests.conftest import MakeVideo
from tests.video.cut_files import cut_short


def camera(source: object, **settings: object) -> CameraConfig:
    return CameraConfig(id="till", source=str(source), **settings)


@pytest.mark.parametrize(
    ("suffix", "codec", "b_frames", "audio"),
    [
        ("mp4", "h264", 0, None),
        ("mp4", "h264", 2, "aac"),  # reordered pictures
        ("mp4", "hevc", 2, "aac"),
        ("ts", "h264", 2, "aac"),  # Annex B, timestamps that do not begin at 0
        ("ts", "hevc", 0, None),
        ("mkv", "hevc", 2, "libopus"),
        ("webm", "vp8", 0, "libopus"),
        ("avi", "mjpeg", 0, "pcm_s16le"),
        ("avi", "mpeg4", 0, None),
        ("flv", "h264", 2, None),
    ],
)
def test_every_frame_comes_once_in_order_with_its_time(
    video: MakeVideo, suffix: str, codec: str, b_frames: int, audio: str | None
):
    path = video(suffix, codec=codec, b_frames=b_frames, audio=audio)
    with open_source(camera(path), clock=SystemClock()) as source:
        facts = source.facts
    assert (facts.codec, facts.wh, facts.average_fps) == (codec, (160, 96), pytest.approx(10))
    frames = list(read_frames(camera(path)))
    assert [number_of(f.picture) for f in frames] == list(range(30))
    assert [f.index for f in frames] == list(range(30))
    assert [f.time_s for f in frames] == pytest.approx([i / 10 for i in range(30)], abs=0.002)


def test_avi_without_presentation_times_still_has_rising_ones(video: MakeVideo):
    frames = list(read_frames(camera(video("avi", b_frames=2))))
    assert [number_of(f.picture) for f in frames] == list(range(30))
    times_s = [f.time_s for f in frames]
    assert times_s == sorted(set(times_s))
    assert times_s[-1] == pytest.approx(2.9, abs=0.25)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
def test_the_same_packets_end_at_the_same_time_in_every_container(
    video: MakeVideo, tmp_path: Path, suffix: str
):
    path = tmp_path / f"paused.{suffix}"
    with (
        av.open(str(video("mp4", num_frames=200, b_frames=2))) as source,
        av.open(str(path), "w") as out,
    ):
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            # The recorder paused for 4.9 s after 10 s, and again after 15 s.
            num_pauses = sum(packet.pts * packet.time_base >= at_s for at_s in (10, 15))
            pause = round(num_pauses * 4.9 / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + pause, packet.dts + pause, copy
            out.mux(packet)
    frames = list(read_frames(camera(path)))
    assert [number_of(f.picture) for f in frames] == list(range(200))
    expected_s = [i / 10 + 4.9 * ((i >= 100) + (i >= 150)) for i in range(200)]
    assert [f.time_s for f in frames] == pytest.approx(expected_s, abs=0.002)


@pytest.mark.parametrize("threads", [0, 1])
def test_reading_twice_gives_the_same(video: MakeVideo, threads: int):
    path = video("mp4", b_frames=2)
    once, twice = (
        [(f.captured_at, number_of(f.picture)) for f in read_frames(camera(path), threads=threads)]
        for _ in range(2)
    )
    assert once == twice


@pytest.mark.parametrize("offset_s", [0.0, 1.0, 1.25])
def test_start_offset_skips_to_the_frame(video: MakeVideo, offset_s: float):
    frames = list(read_frames(camera(video("mp4", gop=10), start_offset_s=offset_s)))
    first = number_of(frames[0].picture)
    assert first / 10 >= offset_s > first / 10 - 0.1
    assert frames[0].time_s == 0
    assert number_of(frames[-1].picture) == 29


def test_images_of_mixed_types_and_sizes(tmp_path: Path):
    for index, (suffix, wh) in enumerate(
        [("jpg", (160, 96)), ("png", (160, 96)), ("jpg", (96, 64))]
    ):
        Image.fromarray(picture(index, wh)).save(tmp_path / f"{index}.{suffix}")
    (tmp_path / "notes.txt").write_text("no image")
    frames = list(read_frames(camera(tmp_path, image_fps=4)))
    assert [number_of(f.picture) for f in frames] == [0, 1, 2]
    assert [f.wh for f in frames] == [(160, 96), (160, 96), (96, 64)]
    assert [f.time_s for f in frames] == [0.0, 0.25, 0.5]


def test_resolution_change_in_the_middle(video: MakeVideo, tmp_path: Path):
    both = tmp_path / "both.ts"
    with both.open("wb") as out:
        for part in (video("ts"), video("ts", wh=(192, 112), first_number=100)):
            out.write(part.read_bytes())
    frames = list(read_frames(camera(both)))
    assert [f.wh for f in frames] == [(160, 96)] * 30 + [(192, 112)] * 30
    assert [number_of(f.picture) for f in frames] == [*range(30), *range(100, 130)]
    times_s = [f.time_s for f in frames]
    assert times_s == pytest.approx([i / 10 for i in range(60)], abs=0.01)
    with open_source(camera(both), clock=SystemClock()) as source:
        sizes = [p.format.wh for p in source.packets() if p.format.kind is MediaKind.VIDEO]
    assert sizes == [(160, 96)] * 30 + [(192, 112)] * 30


def _missing(folder: Path) -> Path:
    return folder / "nothing.mp4"


def _empty_folder(folder: Path) -> Path:
    return folder


def _zero_bytes(folder: Path) -> Path:
    path = folder / "zero.mp4"
    path.touch()
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.mp4"
    path.write_text("This is not a video.\n" * 100)
    return path


def _sound(folder: Path) -> Path:
    return make_audio(folder / "sound.mp4")


def _fifo(folder: Path) -> Path:
    path = folder / "pipe.mp4"
    os.mkfifo(path)
    return path


def _broken_image(folder: Path) -> Path:
    (folder / "0.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (_missing, SourceError, "no such file"),
        (_empty_folder, EmptySourceError, "no images in the folder"),
        (_zero_bytes, EmptySourceError, "0 bytes"),
        (_text, SourceError, "not a video"),
        (_sound, EmptySourceError, "expected a video stream, found audio"),
        (_fifo, SourceError, "expected a regular file"),  # would block without end
        (_broken_image, EmptySourceError, "none of its 1 images can be read"),
    ],
)
def test_bad_input_is_reported_clearly(
    tmp_path: Path, make: object, kind: type[SourceError], words: str
):
    with pytest.raises(kind, match=words) as caught:
        list(read_frames(camera(make(tmp_path))))
    assert "camera 'till'" in str(caught.value)


def test_start_offset_past_the_end(video: MakeVideo):
    with pytest.raises(EmptySourceError, match=r"start_offset_s is 60.*3\.0 s long"):
        list(read_frames(camera(video("mp4"), start_offset_s=60)))


def test_mp4_cut_off_before_its_index(video: MakeVideo, tmp_path: Path):
    whole = video("mp4").read_bytes()  # the index comes last
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="cut off before its index"):
        list(read_frames(camera(path)))


def test_truncated_video_delivers_its_frames_and_then_raises(video: MakeVideo, tmp_path: Path):
    path = cut_short(video("mp4", num_frames=100), tmp_path / "front.mp4")
    numbers: list[int] = []
    frames = (number_of(frame.picture) for frame in read_frames(camera(path)))
    with pytest.raises(SourceError, match=r"truncated: declares 10\.0 s of video"):
        numbers.extend(frames)
    assert numbers[:40] == list(range(40))
    assert len(numbers) < 80


def test_damaged_packets_are_skipped(video: MakeVideo, tmp_path: Path):
    path = tmp_path / "damaged.ts"
    shutil.copy(video("ts", num_frames=60), path)
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + 2000] = bytes(2000)
    path.write_bytes(content)
    frames = list(read_frames(camera(path)))
    assert 30 < len(frames) <= 60
    assert number_of(frames[-1].picture) == 59


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_half_open_server_while_opening(scheme: str, silent_server: int):
    address = f"{scheme}://user:secret@127.0.0.1:{silent_server}/stream?token=hidden"
    settings = {"open_timeout_s": 0.5, "read_timeout_s": 0.5}
    with pytest.raises(SourceTimeoutError, match="no answer within") as caught:
        list(read_frames(camera(address, **settings)))
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_connection_refused(scheme: str, free_port: int):
    address = f"{scheme}://user:secret@127.0.0.1:{free_port}/stream"
    # An error close to the deadline would be reported as the deadline.
    settings = {"open_timeout_s": 120, "read_timeout_s": 120}
    with pytest.raises(SourceError, match="Connection refused") as caught:
        list(read_frames(camera(address, **settings)))
    assert "secret" not in str(caught.value)


def test_missing_device():
    with pytest.raises(SourceError, match="no such device"):
        list(read_frames(camera("/dev/video987")))
