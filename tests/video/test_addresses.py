"""What a camera receives of an address, and what a user sees of one that fails."""

from __future__ import annotations

import base64
import logging
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from storeguard.clock import SystemClock
from storeguard.config.store import CameraConfig, Pace, ReconnectSettings
from storeguard.errors import SourceError
from storeguard.video.reader import CameraReader, read_frames
from storeguard.video.reader_stats import ReaderState
from storeguard.video.source import open_source
from storeguard.video.stream import SourceKind, kind_of
from tests.conftest import MakeVideo
from tests.waiting import wait_for

SECRET = "Zx9Qv7"


@contextmanager
def login_server() -> Iterator[tuple[int, list[str]]]:
    """An RTSP server that wants a login and refuses it; its port, and the logins received."""
    logins: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            number = b"0"
            for line in lines:
                if line.lower().startswith(b"cseq:"):
                    number = line.split(b":")[1].strip()
                if match := re.match(rb"Authorization: Basic (\S+)", line):
                    logins.append(base64.b64decode(match[1]).decode())
                if line.strip():
                    continue
                wants = b"" if logins else b'WWW-Authenticate: Basic realm="cam"\r\n'
                status = b"403 Forbidden" if logins else b"401 Unauthorized"
                connection.sendall(
                    b"RTSP/1.0 " + status + b"\r\nCSeq: " + number + b"\r\n" + wants + b"\r\n"
                )

    def serve() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], logins
    finally:
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    "password",
    ["plain", "p[x]", "p/x", "p?x", "p#x", "p@x", "p:x", "a/@b", "100%", "p x", "p%40x", "p&=+x"],
)
@pytest.mark.parametrize("scheme", ["rtsp", "RTSP"])
def test_the_camera_receives_the_password_that_was_written(scheme: str, password: str) -> None:
    with login_server() as (port, logins):
        camera = CameraConfig(
            id="door", source=f"{scheme}://admin:{password}@127.0.0.1:{port}/stream1"
        )
        with (
            pytest.raises(SourceError) as caught,
            open_source(camera, clock=SystemClock()),
        ):
            pass

    assert logins == [f"admin:{unquote(password)}"]
    assert f"rtsp://***@127.0.0.1:{port}/stream1: cannot be opened: " in str(caught.value)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("rtsp://cam/s", SourceKind.RTSP),
        ("RTSPS://cam/s", SourceKind.RTSP),
        ("https://cam/s", SourceKind.HTTP),
        ("rtmp://cam/live/s", SourceKind.STREAM),
        ("srt://cam:9000", SourceKind.STREAM),
        ("udp://@239.0.0.1:1234", SourceKind.STREAM),
        ("/dev/video0", SourceKind.DEVICE),
        ("file:///dev/null", SourceKind.FILE),
        ("file:///tmp", SourceKind.IMAGES),
    ],
)
def test_kinds(address: str, kind: SourceKind) -> None:
    assert kind_of(address) is kind


def test_a_file_address_is_read_like_its_path(video: MakeVideo, tmp_path: Path) -> None:
    path = shutil.copy(video("mp4"), tmp_path / "a b.mp4")

    frames = list(read_frames(CameraConfig(id="film", source=path.as_uri())))

    assert "%20" in path.as_uri()
    assert len(frames) == len(list(read_frames(CameraConfig(id="film", source=str(path)))))


@pytest.mark.parametrize(
    "address",
    [
        "rtmp://u:{secret}@127.0.0.1:{port}/live/{secret}",
        "rtsps://u:{secret}@127.0.0.1:{port}/s",
        "rtsp://u:{secret}]@127.0.0.1:{port}/s",
        "RTSP://u:[{secret}@127.0.0.1:{port}/s",
        "http://u:{secret}@127.0.0.1:{port}/s?token={secret}",
        "tcp://127.0.0.1:{port}?{secret}",
        "srt://127.0.0.1:{port}?passphrase={secret}",
    ],
)
def test_every_network_address_is_retried_and_its_secret_never_shown(
    address: str, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    camera = CameraConfig(
        id="door",
        source=address.format(secret=SECRET, port=free_port),
        reconnect=ReconnectSettings(initial_s=0.01, max_s=0.02),
    )

    with CameraReader(camera, on_frame=lambda _: None) as reader:
        wait_for(lambda: reader.stats().reconnects >= 2)
        stats = reader.stats()

    assert stats.state is ReaderState.RECONNECTING
    assert stats.last_error is not None
    assert "camera 'door'" in stats.last_error
    for said in (stats.last_error, repr(stats), caplog.text, repr(camera)):
        assert SECRET not in said


def test_an_unexpected_error_is_retried_and_its_text_never_shown(
    video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    class FailingClock(SystemClock):
        def __init__(self) -> None:
            self.failures_left = 1

        def monotonic(self) -> float:
            if self.failures_left:
                self.failures_left -= 1
                raise RuntimeError(f"cannot read {SECRET}")
            return super().monotonic()

    camera = CameraConfig(
        id="film",
        source=str(video("mp4")),
        pace=Pace.FAST,
        reconnect=ReconnectSettings(initial_s=0.01, max_s=0.02),
    )

    with CameraReader(camera, on_frame=lambda _: None, clock=FailingClock()) as reader:
        assert reader.join(60)
        stats = reader.stats()

    assert stats.state is ReaderState.ENDED
    assert stats.frames_decoded > 0
    assert stats.reconnects > 0
    assert stats.last_error is not None
    assert "reading failed unexpectedly: RuntimeError" in stats.last_error
    assert "RuntimeError" in caplog.text
    assert SECRET not in stats.last_error
    assert SECRET not in caplog.text


def test_a_consumers_error_is_shown_without_its_text(
    video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(_: object) -> None:
        raise RuntimeError(f"cannot post to http://{SECRET}")

    camera = CameraConfig(id="film", source=str(video("mp4")), pace=Pace.FAST)

    with CameraReader(camera, on_frame=refuses) as reader:
        assert reader.join(60)
        last_error = reader.stats().last_error

    assert last_error == "the consumer of its frames or packets raised RuntimeError"
    assert SECRET not in caplog.text
