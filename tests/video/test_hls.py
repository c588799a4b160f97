"""Live HLS: seconds of video at once, and nothing between two segments."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import Path

from storeguard.config.store import CameraConfig
from storeguard.testing.video import number_of
from storeguard.video.frame import Frame
from storeguard.video.reader import CameraReader
from storeguard.video.reader_stats import ReaderState
from tests.conftest import MakeVideo
from tests.video.http_servers import LiveHls, http_server
from tests.waiting import wait_for

SEGMENT_S = 4
READ_TIMEOUT_S = 2.0  # shorter than a segment: the playlist stands still for longer


def test_segments_longer_than_the_read_timeout_play_smoothly(video: MakeVideo, tmp_path: Path):
    hls = LiveHls(video("mp4", num_frames=600, gop=20), tmp_path, segment_s=SEGMENT_S)
    frames: list[Frame] = []
    with http_server(hls.answer) as address:
        camera = CameraConfig(
            id="till", source=f"{address}/live.m3u8", read_timeout_s=READ_TIMEOUT_S
        )
        with CameraReader(camera, on_frame=frames.append) as playing:
            wait_for(lambda: len(frames) >= 100, found=playing.stats)
            stats = playing.stats()
    assert stats.state is ReaderState.PLAYING
    assert stats.last_error is None
    assert stats.dropped == {}
    numbers = [number_of(frame.picture) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # Played by their timestamps, not a segment at once: detection has time for each picture.
    # At most a second is made up for after a stall.
    assert frames[30].received_s - frames[0].received_s > 1.9


def test_a_stream_that_ends_ended_by_the_other_side(video: MakeVideo, tmp_path: Path):
    hls = LiveHls(video("mp4", num_frames=600, gop=20), tmp_path, segment_s=2)

    def answer(request: BaseHTTPRequestHandler) -> None:
        hls.is_over = hls.num_playlists > 3
        hls.answer(request)

    with http_server(answer) as address:
        camera = CameraConfig(id="till", source=f"{address}/live.m3u8", read_timeout_s=1)
        with CameraReader(camera, on_frame=lambda _: None) as playing:
            wait_for(lambda: playing.stats().reconnects, found=playing.stats)
            assert "the other side ended the stream" in (playing.stats().last_error or "")
