from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from storeguard.errors import StoreError
from storeguard.events.embedded import EmbeddedValkey
from storeguard.events.store import EventStore
from tests.events.factories import event
from tests.valkey import ValkeyProcess, free_port
from tests.waiting import wait_for


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> None:
    wait_for(lambda: not is_running(pid), found=lambda: f"process {pid}")


def patient(folder: Path, *, port: int | None = None) -> EmbeddedValkey:
    """One that may take minutes to start."""
    return EmbeddedValkey(folder, port=port, ready_timeout_s=180)


def test_data_and_address_survive_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    # A port that the system gives to no other process while the server is stopped.
    with patient(folder, port=free_port()) as server, EventStore(server.url, timeout_s=60) as store:
        url = server.url
        store.upsert([(event(1), None)])
    assert server.pid is None
    with patient(folder) as server, EventStore(server.url, timeout_s=60) as store:
        assert server.url == url
        assert store.get("event-1") == event(1)
        assert server.start() == url  # already running


def test_strangers_are_kept_out(tmp_path: Path) -> None:
    with patient(tmp_path) as server:
        stranger = EventStore(f"redis://127.0.0.1:{server.port}", timeout_s=60)
        with stranger, pytest.raises(StoreError, match=r"[Aa]uth"):
            stranger.ping()
        for name in ("password", "valkey.conf"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        addresses = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{server.port:04X}" in addresses
        assert f"00000000:{server.port:04X}" not in addresses


def test_a_taken_port_is_told_or_replaced(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StoreError, match=f"port {port} on 127.0.0.1 is taken"):
            EmbeddedValkey(tmp_path, port=port).start()
        (tmp_path / "port").write_text(str(port))
        with patient(tmp_path) as server:
            assert server.port != port


def test_a_port_taken_before_the_server_has_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = patient(tmp_path)
    choose = server._choose_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found_free = iter([taken.getsockname()[1]])
        monkeypatch.setattr(server, "_choose_port", lambda: next(found_free, None) or choose())
        with server, EventStore(server.url, timeout_s=60) as store:
            store.ping()
            assert server.port != taken.getsockname()[1]


def test_a_stale_server_that_ended_by_itself_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    (tmp_path / "valkey.pid").write_text(str(ended.pid))
    server = patient(tmp_path)
    found = iter([True])  # it runs at the first check, and no longer at the second
    monkeypatch.setattr(server, "_is_our_server", lambda _: next(found, False))
    with server, EventStore(server.url, timeout_s=60) as store:
        store.ping()


def test_one_server_a_folder(tmp_path: Path) -> None:
    with patient(tmp_path), pytest.raises(StoreError, match="another Storeguard process"):
        EmbeddedValkey(tmp_path).start()


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with patient(tmp_path):
        pass
    (aof,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    aof.write_bytes(b"*3\r\n$garbage\r\n" * 9)
    server = patient(tmp_path)
    with pytest.raises(StoreError, match="did not start") as caught:
        server.start()
    assert "Bad file format" in str(caught.value)
    assert server.pid is None


def test_a_server_that_died_is_started_again(tmp_path: Path) -> None:
    with (
        patient(tmp_path, port=free_port()) as server,
        EventStore(server.url, timeout_s=60) as store,
    ):
        store.upsert([(event(1), None)])
        assert not server.ensure_running()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        wait_for(server.ensure_running)
        assert store.get("event-1") == event(1)  # acknowledged writes outlive the process


PARENT = """
import sys, threading, time
from storeguard.events.embedded import EmbeddedValkey

server = EmbeddedValkey(sys.argv[1], ready_timeout_s=180)
starter = threading.Thread(target=server.start)  # the thread that starts it ends at once
starter.start()
starter.join()
time.sleep(0.3)
print(server.pid, flush=True)
time.sleep(600)
"""


def orphan(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    assert is_running(pid)
    return parent, pid


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    parent, pid = orphan(tmp_path)
    parent.kill()
    parent.wait()
    wait_until_gone(pid)
    with patient(tmp_path):
        pass


def test_a_stale_server_is_ended(tmp_path: Path) -> None:
    stale = ValkeyProcess(tmp_path, options={"pidfile": str(tmp_path / "valkey.pid")})
    stale.start()
    try:
        with patient(tmp_path) as server, EventStore(server.url, timeout_s=60) as store:
            store.ping()
            assert stale._process is not None
            assert stale._process.wait(60) is not None
    finally:
        stale.kill()
