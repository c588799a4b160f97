"""Live cameras: a real RTSP server on loopback that dies, freezes and comes back; MJPEG over HTTP."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from storeguard.config import CameraConfig
from storeguard.testing_video import number_of, picture
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket, MediaKind
from storeguard.video.reader import CameraReader, ReaderState
from tests.rtsp_server import RtspServer
from tests.video.conftest import MakeVideo

Serve = Callable[[Path], RtspServer]


def camera(source: str) -> CameraConfig:
    return CameraConfig(
        id="door",
        source=source,
        open_timeout_s=2.0,
        read_timeout_s=1.0,
        reconnect={"initial_s": 0.1, "max_s": 0.2},
    )


def wait_for(what: str, condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain for: {what}"
        time.sleep(0.02)


def assert_only_forward(frames: list[Frame]) -> None:
    times = [frame.captured_at for frame in frames]
    assert times == sorted(set(times))
    assert [frame.index for frame in frames] == list(range(len(frames)))


@pytest.mark.parametrize(
    ("codec", "b_frames", "audio"),
    [("h264", 0, "aac"), ("hevc", 0, None), ("h264", 2, None)],
)
def test_rtsp_plays_in_real_time(
    video: MakeVideo, rtsp_server: Serve, codec: str, b_frames: int, audio: str | None
):
    path = video("mp4", codec=codec, b_frames=b_frames, audio=audio, num_frames=100)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    packets: list[EncodedPacket] = []
    playing = CameraReader(
        camera(server.url(path.name)), on_frame=frames.append, on_packet=packets.append
    )
    with playing:
        wait_for("25 frames", lambda: len(frames) >= 25)
        stats = playing.stats()
    assert stats.state is ReaderState.PLAYING
    assert stats.codec == codec
    assert stats.dropped == {}
    assert_only_forward(frames)
    steps_s = [b.time_s - a.time_s for a, b in pairwise(frames[4:])]
    assert sorted(steps_s)[len(steps_s) // 2] == pytest.approx(0.1, abs=0.02)
    numbers = [number_of(frame.picture) for frame in frames]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert any(p.kind is MediaKind.AUDIO for p in packets) == (audio is not None)


def test_rtsp_server_killed_and_back(
    video: MakeVideo, rtsp_server: Serve, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    playing = CameraReader(
        camera(server.url(path.name, user="user:secret")), on_frame=frames.append
    )
    with playing:
        wait_for("frames", lambda: len(frames) >= 5)
        server.kill()
        died_s = time.monotonic()
        wait_for("notice", lambda: playing.stats().state is ReaderState.RECONNECTING)
        num_before = len(frames)
        server.start()
        wait_for("frames again", lambda: len(frames) >= num_before + 5)
        away_s = time.monotonic() - died_s
        stats = playing.stats()
    assert stats.connects == 2
    assert stats.reconnects >= 1
    assert_only_forward(frames)
    # The outage is a gap of about its real length in capture time.
    gap_s = max(b.time_s - a.time_s for a, b in pairwise(frames))
    assert 0.1 < gap_s < away_s + 0.5
    assert not any(frame.scene_cut for frame in frames)
    assert "secret" not in (stats.last_error or "") + caplog.text
    assert "***@127.0.0.1" in (stats.last_error or "")


def test_rtsp_server_goes_silent_and_speaks_again(video: MakeVideo, rtsp_server: Serve):
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    playing = CameraReader(camera(server.url(path.name)), on_frame=frames.append)
    with playing:
        wait_for("frames", lambda: len(frames) >= 5)
        server.freeze()
        wait_for("notice", lambda: playing.stats().state is ReaderState.RECONNECTING)
        assert "sent nothing for" in (playing.stats().last_error or "")
        # Half-open from the start: accepts connections, says nothing.
        wait_for("a vain attempt", lambda: "no answer" in (playing.stats().last_error or ""))
        server.thaw()
        num_before = len(frames)
        wait_for("frames again", lambda: len(frames) >= num_before + 5)
    assert_only_forward(frames)


def test_a_slow_consumer_does_not_make_the_camera_look_dead(video: MakeVideo, rtsp_server: Serve):
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    gate = threading.Event()
    playing = CameraReader(camera(server.url(path.name)), on_frame=lambda _: gate.wait(30))
    with playing:
        wait_for("frames", lambda: playing.stats().frames_in >= 5)
        # Longer than the read deadline: packets keep being read while the consumer is stuck.
        stuck_s = time.monotonic()
        wait_for("two seconds", lambda: time.monotonic() - stuck_s > 2)
        stats = playing.stats()
        gate.set()
    assert stats.state is ReaderState.PLAYING
    assert stats.reconnects == 0
    assert stats.frames_in >= 20


class _Mjpeg(BaseHTTPRequestHandler):
    """A camera's MJPEG page: one JPEG after another, 10 a second."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for number in range(40):
                content = io.BytesIO()
                Image.fromarray(picture(number, (160, 96))).save(content, "JPEG")
                jpeg = content.getvalue()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(0.1)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def mjpeg_camera() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Mjpeg) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_mjpeg_over_http_is_timed_by_arrival():
    frames: list[Frame] = []
    with mjpeg_camera() as port:
        address = f"http://user:secret@127.0.0.1:{port}/video?token=hidden"
        playing = CameraReader(camera(address), on_frame=frames.append)
        with playing:
            wait_for("the stream to end and come again", lambda: playing.stats().connects >= 2)
            wait_for("frames", lambda: number_of(frames[-1].picture) < 39)
            stats = playing.stats()
    assert_only_forward(frames)
    numbers = [number_of(frame.picture) for frame in frames]
    assert numbers[:39] == list(range(39))
    steps_s = sorted(b.time_s - a.time_s for a, b in pairwise(frames))
    assert steps_s[len(steps_s) // 2] == pytest.approx(0.1, abs=0.03)
    assert stats.reanchors == {}
    assert "secret" not in (stats.last_error or "")
    assert "hidden" not in (stats.last_error or "")


@pytest.mark.parametrize("user", ["user:secret", "user:se@cr/et"])
def test_credentials_of_any_shape_stay_hidden(user: str, free_port: int):
    address = f"rtsp://{user}@127.0.0.1:{free_port}/stream"
    with CameraReader(camera(address), on_frame=lambda _: None) as playing:
        wait_for("an error", lambda: playing.stats().last_error is not None)
    error = playing.stats().last_error or ""
    assert user.split(":")[1] not in error
    assert "cr/et" not in error
