"""A real RTSP server on loopback, as a pytest plugin: the fixture `rtsp_server`.

It runs in a process of its own, so that a test can kill it, freeze it (half-open: connections
stay, nothing is sent) and start it again on the same port.
"""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real_parts import missing
from tests.valkey import free_port

_PROGRAM = """
import asyncio, sys
from aio_rtsp_toolkit import server
from aio_rtsp_toolkit.server_streaming import RtspStreamingMixin

def put(self, loop, queue, item, stop):
    # The library's own cancels and puts again every 50 ms, and so sends a picture twice where the
    # first one has just found its place.
    future = asyncio.run_coroutine_threadsafe(queue.put(item), loop)
    while not stop.is_set():
        try:
            future.result(timeout=0.05)
            return True
        except TimeoutError:
            continue
        except Exception:
            return False
    future.cancel()
    return False

RtspStreamingMixin._threadsafe_queue_put = put
asyncio.run(server.serve(sys.argv[1], "127.0.0.1", int(sys.argv[2])))
"""
_START_S = 180.0


class RtspServer:
    """Serves the video files of one folder over RTSP/TCP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, file_name: str, *, user: str = "", repeat: bool = True) -> str:
        """Address of a file; `user` is `name:password`."""
        login = f"{user}@" if user else ""
        times = "/play_count_0" if repeat else ""
        return f"rtsp://{login}127.0.0.1:{self.port}/{file_name}{times}"

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self.folder), str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + _START_S
        while time.monotonic() < until_s and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError("the RTSP server did not come up")

    def freeze(self) -> None:
        """Send nothing more, but keep the connections."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End at once, as in a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _send(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the RTSP server is not running")
        self._process.send_signal(number)


@pytest.fixture
def rtsp_server() -> Iterator[Callable[[Path], RtspServer]]:
    """Makes running RTSP servers: `rtsp_server(folder)`; killed after the test."""
    if importlib.util.find_spec("aio_rtsp_toolkit") is None:
        missing("aio-rtsp-toolkit, the RTSP server, is not installed; pip install storeguard[test]")
    servers: list[RtspServer] = []

    def make(folder: Path) -> RtspServer:
        server = RtspServer(folder)
        server.start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.kill()
