"""Addresses that give one picture a request."""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler

import pytest
from PIL import Image

from storeguard.config.store import CameraConfig
from storeguard.testing.video import number_of, picture
from storeguard.video.frame import Frame
from storeguard.video.reader import CameraReader
from storeguard.video.reader_stats import ReaderState
from tests.video.http_servers import begin, http_server
from tests.waiting import wait_for


class SnapshotCamera:
    """Answers each request with its next picture, or with an error while `broken`."""

    def __init__(self, encoding: str) -> None:
        self.num_requests = 0
        self.broken = False
        self._encoding = encoding

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.num_requests += 1
        if self.broken:
            request.send_error(503)
            return
        content = io.BytesIO()
        Image.fromarray(picture(self.num_requests, (160, 96))).save(content, self._encoding)
        begin(request, f"image/{self._encoding.lower()}", len(content.getvalue()))
        request.wfile.write(content.getvalue())


def camera(source: str) -> CameraConfig:
    return CameraConfig(
        id="till",
        source=source,
        image_fps=10,
        read_timeout_s=120,
        open_timeout_s=120,
        reconnect={"initial_s": 0.1, "max_s": 0.2},
    )


@pytest.mark.parametrize(
    ("path", "encoding"),
    [
        ("snapshot.jpg", "JPEG"),
        ("cgi-bin/snapshot?channel=1", "JPEG"),  # only the content shows what it is
        ("cgi-bin/snapshot?channel=1", "PNG"),
        ("still.webp", "WEBP"),
    ],
)
def test_a_picture_address_is_requested_again_and_again(path: str, encoding: str):
    frames: list[Frame] = []
    with http_server(SnapshotCamera(encoding).answer) as address:
        playing = CameraReader(camera(f"{address}/{path}"), on_frame=frames.append)
        with playing:
            wait_for(lambda: len(frames) >= 5, found=playing.stats)
            stats = playing.stats()
    assert stats.state is ReaderState.PLAYING
    assert stats.reconnects == 0
    numbers = [number_of(frame.picture) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # At `image_fps` by the clock, not at the rate that FFmpeg invents for one picture.
    assert frames[4].time_s >= 0.4 - 0.01


def test_a_picture_address_that_fails_is_tried_again():
    frames: list[Frame] = []
    snapshots = SnapshotCamera("JPEG")
    with http_server(snapshots.answer) as address:
        playing = CameraReader(camera(f"{address}/snapshot.jpg"), on_frame=frames.append)
        with playing:
            wait_for(lambda: len(frames) >= 2)
            snapshots.broken = True
            wait_for(lambda: playing.stats().state is ReaderState.RECONNECTING)
            snapshots.broken = False
            num_before = len(frames)
            wait_for(lambda: len(frames) >= num_before + 2)
    assert "5XX Server Error" in (playing.stats().last_error or "")
