"""A camera whose connection lives while its picture does not."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import av
import pytest

from storeguard.config.store import CameraConfig
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.frame import Frame
from storeguard.video.reader import CameraReader
from storeguard.video.reader_stats import ReaderState
from tests.video.http_servers import begin, http_server
from tests.waiting import wait_for

VIDEO_S, OTHER_S = 3, 120
_DRIP_BYTES = 188 * 4  # a few packets of the transport stream


def with_audio(film: Path, path: Path) -> Path:
    """A transport stream whose video ends long before its audio."""
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream("mp2", rate=48_000)
        sound.layout = "mono"
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
        for number in range(OTHER_S * 48_000 // 1152):
            frame = av.AudioFrame(format="s16", layout="mono", samples=1152)
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.sample_rate, frame.pts = 48_000, number * 1152
            frame.time_base = Fraction(1, 48_000)
            out.mux(sound.encode(frame))
    return path


def with_metadata(film: Path, path: Path) -> Path:
    """A transport stream whose video ends long before its data stream."""
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        data = out.add_data_stream("klv")
        data.time_base = Fraction(1, 90_000)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
        for number in range(OTHER_S * 10):
            packet = av.Packet(bytes(800))
            packet.stream, packet.time_base = data, data.time_base
            packet.pts = packet.dts = number * 9000
            out.mux(packet)
    return path


@pytest.mark.parametrize(("add", "found"), [(with_audio, "audio"), (with_metadata, "data")])
def test_video_that_dies_while_the_rest_goes_on_is_noticed(
    tmp_path: Path, add: Callable[[Path, Path], Path], found: str
):
    film = make_video(tmp_path / "film.mp4", VideoSpec(num_frames=VIDEO_S * 10))
    content = add(film, tmp_path / "stream.ts").read_bytes()
    over = Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        begin(request, "video/mp2t")
        half = len(content) // 2  # past the end of the video
        request.wfile.write(content[:half])
        for start in range(half, len(content), _DRIP_BYTES):
            request.wfile.write(content[start : start + _DRIP_BYTES])
            request.wfile.flush()
            if over.wait(0.05):
                return

    frames: list[Frame] = []
    with http_server(drip) as address:
        camera = CameraConfig(id="till", source=f"{address}/stream", read_timeout_s=1)
        with CameraReader(camera, on_frame=frames.append) as playing:
            wait_for(lambda: playing.stats().reconnects, found=playing.stats)
            error = playing.stats().last_error or ""
            over.set()
    assert len(frames) >= VIDEO_S * 10 - 2
    assert "sent no video for" in error
    assert f"while its {found} stream went on (read_timeout_s 1)" in error


def without_keyframes(film: Path, path: Path) -> Path:
    """A transport stream that begins in the middle of its only group of pictures."""
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = copy
                out.mux(packet)
    return path


def test_video_without_pictures_is_reported(tmp_path: Path):
    film = make_video(tmp_path / "film.mp4", VideoSpec(num_frames=600, gop=600))
    content = without_keyframes(film, tmp_path / "stream.ts").read_bytes()
    over = Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        begin(request, "video/mp2t")
        third = len(content) // 3
        request.wfile.write(content[:third])  # enough for FFmpeg to find the stream
        for start in range(third, len(content), _DRIP_BYTES):
            request.wfile.write(content[start : start + _DRIP_BYTES])
            request.wfile.flush()
            if over.wait(0.1):
                return

    frames: list[Frame] = []
    with http_server(drip) as address:
        camera = CameraConfig(id="till", source=f"{address}/stream", read_timeout_s=2)
        with CameraReader(camera, on_frame=frames.append) as playing:
            wait_for(lambda: playing.stats().state is ReaderState.NO_PICTURE, found=playing.stats)
            stats = playing.stats()
            over.set()
    assert stats.frames_in > 0
    assert stats.no_picture_s > 2
    assert stats.dropped["before_keyframe"] > 0
    assert not frames
