"""Servers that send much at once: a whole group of pictures, a segment, the end of a stall."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from threading import Event

from storeguard.config.store import CameraConfig
from storeguard.testing.video import number_of
from storeguard.video.frame import Frame
from storeguard.video.reader import CameraReader
from tests.conftest import MakeVideo
from tests.video.http_servers import begin, http_server
from tests.waiting import wait_for


def test_a_group_of_pictures_at_the_start_is_decoded_whole(video: MakeVideo):
    path = video("ts", num_frames=600, gop=600)
    over = Event()

    def send_all(request: BaseHTTPRequestHandler) -> None:
        begin(request, "video/mp2t")
        request.wfile.write(path.read_bytes())
        request.wfile.flush()
        over.wait()

    frames: list[Frame] = []
    with http_server(send_all) as address:
        camera = CameraConfig(id="till", source=f"{address}/stream", read_timeout_s=120)
        with CameraReader(camera, on_frame=frames.append) as playing:
            # FFmpeg keeps the last two pictures until more arrives.
            wait_for(lambda: len(frames) >= 598, found=lambda: f"{len(frames)} pictures")
            assert playing.stats().dropped == {}
            over.set()
    assert [number_of(frame.picture) for frame in frames[:598]] == list(range(598))
