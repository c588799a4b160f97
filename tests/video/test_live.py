"""Live cameras: a real RTSP server on loopback that dies, freezes and returns; MJPEG over HTTP."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from PIL import Image

from storeguard.config.store import CameraConfig
from storeguard.testing.video import number_of, picture
from storeguard.video.decode_queue import QueueLimits
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket, MediaKind
from storeguard.video.reader import CameraReader
from storeguard.video.reader_stats import ReaderState
from tests.conftest import MakeVideo
from tests.rtsp_server import RtspServer

Serve = Callable[[Path], RtspServer]
FRESH = timedelta(seconds=0.4)
LONG_QUEUE = QueueLimits(max_wait_s=600)  # nothing is dropped, however late decoding is


def camera(
    source: str, *, open_timeout_s: float = 120, read_timeout_s: float = 120
) -> CameraConfig:
    """With long deadlines by default: a machine that stands still is no dead camera."""
    return CameraConfig(
        id="door",
        source=source,
        open_timeout_s=open_timeout_s,
        read_timeout_s=read_timeout_s,
        reconnect={"initial_s": 0.1, "max_s": 0.2},
    )


def wait_for(what: str, condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited for: {what}"
        time.sleep(0.02)


def assert_only_forward(frames: list[Frame]) -> None:
    times = [frame.captured_at for frame in frames]
    assert times == sorted(set(times))
    assert [frame.index for frame in frames] == list(range(len(frames)))


def median_step_s(frames: list[Frame]) -> float:
    return median(b.time_s - a.time_s for a, b in pairwise(frames))


@pytest.mark.parametrize(
    ("codec", "b_frames", "audio"),
    [("h264", 0, "aac"), ("hevc", 0, None), ("h264", 2, None)],
)
def test_rtsp_plays_in_real_time(
    video: MakeVideo, rtsp_server: Serve, codec: str, b_frames: int, audio: str | None
):
    path = video("mp4", codec=codec, b_frames=b_frames, audio=audio, num_frames=1000)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    packets: list[EncodedPacket] = []
    playing = CameraReader(
        camera(server.url(path.name)),
        on_frame=frames.append,
        on_packet=packets.append,
        queue=LONG_QUEUE,
    )
    with playing:
        wait_for("25 frames", lambda: len(frames) >= 25)
        # At once, unless connecting was late: then the first frames follow each other faster.
        wait_for(
            "steps of the camera's own length",
            lambda: median_step_s(frames[-21:]) == pytest.approx(0.1, abs=0.02),
        )
        stats = playing.stats()
    assert stats.state is ReaderState.PLAYING
    assert stats.codec == codec
    assert stats.dropped == {}
    assert_only_forward(frames)
    numbers = [number_of(frame.picture) for frame in frames[:900]]  # before it starts over
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert any(p.kind is MediaKind.AUDIO for p in packets) == (audio is not None)


def test_rtsp_server_killed_and_back(
    video: MakeVideo, rtsp_server: Serve, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    packets: list[EncodedPacket] = []
    playing = CameraReader(
        camera(server.url(path.name, user="user:secret")),
        on_frame=frames.append,
        on_packet=packets.append,
    )

    def num_again() -> int:
        again = next((packet for packet in packets if packet.connection == 1), None)
        return 0 if again is None else sum(f.captured_at >= again.captured_at for f in frames)

    with playing:
        wait_for("frames", lambda: len(frames) >= 5)
        wait_for("a fresh one", lambda: datetime.now(UTC) - frames[-1].captured_at < FRESH)
        died_s = time.monotonic()
        server.kill()
        wait_for("notice", lambda: playing.stats().state is ReaderState.RECONNECTING)
        server.start()
        wait_for("frames again", lambda: num_again() >= 5)
        away_s = time.monotonic() - died_s
        stats = playing.stats()
    assert {packet.connection for packet in packets} == {0, 1}
    assert stats.reconnects >= 1
    assert_only_forward(frames)
    # The outage is a gap of about its real length in capture time.
    gap_s = max(b.time_s - a.time_s for a, b in pairwise(frames))
    assert 0.1 < gap_s < away_s + 0.5
    assert not any(frame.scene_cut for frame in frames)
    assert "secret" not in (stats.last_error or "") + caplog.text
    assert "***@127.0.0.1" in (stats.last_error or "")


def test_rtsp_server_stops_sending_and_returns(
    video: MakeVideo, rtsp_server: Serve, caplog: pytest.LogCaptureFixture
):
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    frames: list[Frame] = []
    address = server.url(path.name)
    playing = CameraReader(
        camera(address, open_timeout_s=2, read_timeout_s=1), on_frame=frames.append
    )
    with playing:
        wait_for("frames", lambda: len(frames) >= 5)
        server.freeze()
        # Each attempt replaces the error of the one before; the log has all of them.
        wait_for("notice", lambda: "sent nothing for" in caplog.text)
        # Half-open from the start: it accepts connections and sends nothing.
        wait_for("a failed attempt", lambda: "no answer" in caplog.text)
        wait_for("the state", lambda: playing.stats().state is ReaderState.RECONNECTING)
        server.thaw()
        num_before = len(frames)
        wait_for("frames again", lambda: len(frames) >= num_before + 5)
    assert_only_forward(frames)


def test_a_slow_consumer_does_not_make_the_camera_look_dead(video: MakeVideo, rtsp_server: Serve):
    path = video("mp4", num_frames=100)
    server = rtsp_server(path.parent)
    gate = threading.Event()
    shown: list[Frame] = []

    def stuck(frame: Frame) -> None:
        shown.append(frame)
        gate.wait()

    address = server.url(path.name)
    playing = CameraReader(camera(address, open_timeout_s=2, read_timeout_s=1), on_frame=stuck)
    since_s, since = 0.0, playing.stats()

    def undisturbed() -> bool:
        """Whether it played for twice the read deadline, without a reconnect in between."""
        nonlocal since_s, since
        now = playing.stats()
        if now.state is not ReaderState.PLAYING or not shown or now.reconnects != since.reconnects:
            since_s, since = time.monotonic(), now
        return (
            time.monotonic() - since_s > 2
            and now.state is ReaderState.PLAYING
            and now.frames_in >= since.frames_in + 15
        )

    with playing:
        try:
            wait_for("the consumer to be stuck", lambda: bool(shown))
            since_s, since = time.monotonic(), playing.stats()
            # Longer than the read deadline: packets keep being read all the while.
            wait_for("two seconds", undisturbed)
            assert len(shown) == 1
        finally:
            gate.set()


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
        playing = CameraReader(camera(address), on_frame=frames.append, queue=LONG_QUEUE)
        with playing:
            wait_for("the end of the stream", lambda: playing.stats().reconnects >= 1)
            wait_for("its frames", lambda: len(frames) > 40)
            stats = playing.stats()
    assert_only_forward(frames)
    numbers = [number_of(frame.picture) for frame in frames]
    assert numbers[:39] == list(range(39))
    # As far apart as they arrived, not the 40 ms that FFmpeg invents.
    steps_s = [(b.time_s - a.time_s, b.received_s - a.received_s) for a, b in pairwise(frames)]
    assert median(abs(captured_s - arrived_s) for captured_s, arrived_s in steps_s) < 0.02
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
