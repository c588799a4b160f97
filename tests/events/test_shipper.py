from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from storeguard.errors import StoreError
from storeguard.events.changes import SnapshotStored
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal import Journal
from storeguard.events.query import EventQuery
from storeguard.events.shipper import Shipper, ShipperSettings
from storeguard.events.store import EventStore
from storeguard.testing import FakeClock
from tests.events.factories import QUICK, START, changed, event, visit
from tests.valkey import ValkeyProcess, running_valkey

MIB = 2**20


@pytest.fixture
def journal(journal_path: Path) -> Iterator[Journal]:
    with Journal(journal_path, max_bytes=16 * MIB) as journal:
        yield journal


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """A server of the test's own, which it may maltreat."""
    options = {"appendfsync": "no"}  # a slow disk holds no answer up; a kill loses nothing by it
    with running_valkey(tmp_path / "valkey", append_only=True, options=options) as server:
        yield server


def until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < limit, f"expected that {what}, it never came"
        time.sleep(0.02)


def assert_all_there(store: EventStore, numbers: range) -> None:
    """Every event once, in its newest version; nothing lost, nothing doubled."""
    found: list[Event] = []
    cursor = None
    while True:
        page = store.query(EventQuery(limit=1000, cursor=cursor))
        found += page.events
        cursor = page.next_cursor
        if cursor is None:
            break
    names = [one.event_id for one in found]
    assert len(names) == len(set(names)), "doubled"
    assert set(names) == {f"event-{number}" for number in numbers}, "lost"
    assert all(one.version == 3 and one.status is EventStatus.CLOSED for one in found)
    assert store.count() == len(numbers)


# ---------------------------------------------------------------------- step by step


def test_a_step_carries_a_batch_in_order(journal: Journal, store: EventStore) -> None:
    settings = ShipperSettings(batch=2, retain_days=None)
    shipper = Shipper(journal, store, settings=settings, is_live=lambda _: False)
    journal.commit([*visit(1), event(2), event(3)])
    assert [shipper.step(), shipper.step(), shipper.step()] == [2, 1, 0]
    journal.commit(visit(2))
    assert shipper.step() == 1
    stored = [change.event for change in store.changes_after("0-0")]
    assert stored == [visit(1)[-1], event(2), event(3), visit(2)[-1]]
    stats = shipper.stats()
    assert (stats.shipped, stats.created, stats.updated, stats.unchanged) == (4, 3, 1, 0)
    assert stats.backlog.events == 0


def test_events_are_stored_with_their_annotations(journal: Journal, store: EventStore) -> None:
    shipper = Shipper(journal, store, is_live=lambda _: False)
    journal.commit([event(1)])
    shipper.step()
    changed(journal, SnapshotStored("event-1", "picture"))
    shipper.step()
    journal.commit([event(1, 2, dwell_s=1.0)])
    shipper.step()
    stored = [change.event for change in store.changes_after("0-0")]
    assert [(one.version, one.dwell_s, one.snapshot is None) for one in stored] == [
        (1, None, True),
        (2, None, False),
        (3, 1.0, False),
    ]
    assert stored[-1] == journal.latest("event-1")


def test_latency_is_measured_once_and_for_live_sources(
    journal_path: Path, store: EventStore
) -> None:
    clock = FakeClock(START + timedelta(milliseconds=250))
    with Journal(journal_path, max_bytes=MIB, clock=clock) as journal:
        shipper = Shipper(journal, store, clock=clock, is_live=lambda one: one.camera_id == "table")
        journal.commit([event(0), event("file", camera_id="file")])
        journal.commit([event(0, 2, updated_at=START + timedelta(milliseconds=200))])
        shipper.step()  # the latency is that of the first version
        clock.advance(60)
        journal.commit([event(0, 3)])
        shipper.step()
        assert store.trim(max_events=0) == 2
        journal.reship()  # the data is stored again later: the latency stays
        shipper.step()
    live, played = store.get("event-0"), store.get("event-file")
    assert live is not None
    assert played is not None
    assert live.latency_ms.capture_to_store == 250.0
    assert played.latency_ms.capture_to_store is None


def test_failures_back_off_up_to_a_bound(journal_path: Path) -> None:
    clock = FakeClock()
    with Journal(journal_path, max_bytes=MIB, clock=clock) as journal:
        shipper = Shipper(journal, EventStore("redis://127.0.0.1:1"), jitter=lambda: 0.0)
        error = StoreError("down")
        waits = [shipper._failed(error) for _ in range(7)]
        assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert shipper.stats().retries == 7
        assert shipper.stats().last_error == "down"
        shipper._succeeded()
        assert shipper._failed(error) == 0.2
        shaken = Shipper(journal, EventStore("redis://127.0.0.1:1"), jitter=lambda: -1.0)
        assert shaken._failed(error) == pytest.approx(0.14)


def test_old_events_leave_journal_and_store(journal_path: Path, store: EventStore) -> None:
    clock = FakeClock(START)
    settings = ShipperSettings(retain_days=1, trim_every_s=60, journal_retain_s=3600)
    with Journal(journal_path, max_bytes=MIB, clock=clock) as journal:
        shipper = Shipper(journal, store, settings=settings, clock=clock)
        journal.commit([*visit(1), *visit(2)])
        shipper.step()
        assert store.count() == 2
        clock.advance(86_402)
        shipper.step()
        assert store.count() == 1
        assert shipper.stats().trimmed == 1
        assert journal.latest("event-1") is None


# ---------------------------------------------------------------------- real faults


def freeze(server: ValkeyProcess) -> Callable[[], None]:
    server.pause()
    return server.resume


def command(*words: str, undo: tuple[str, ...]) -> Callable[[ValkeyProcess], Callable[[], None]]:
    def inflict(server: ValkeyProcess) -> Callable[[], None]:
        def run(arguments: tuple[str, ...]) -> None:
            with server.client() as client:
                client.execute_command(*arguments)

        run(words)
        return lambda: run(undo)

    return inflict


def restarted(*, empty: bool) -> Callable[[ValkeyProcess], Callable[[], None]]:
    def inflict(server: ValkeyProcess) -> Callable[[], None]:
        server.kill()
        if empty:
            for file in server.folder.rglob("*.aof*"):
                file.unlink()
        return server.start

    return inflict


def snapshot_fails(server: ValkeyProcess) -> Callable[[], None]:
    """MISCONF: the server refuses writes because its last background save failed."""
    with server.client() as client:
        (server.folder / "dump.rdb").mkdir()  # renaming over a folder fails
        client.config_set("save", "1 1")
        client.set("some", "thing")
        until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok", "the save failed"
        )

    def mend() -> None:
        (server.folder / "dump.rdb").rmdir()
        with server.client() as client:
            client.config_set("save", "")
            client.config_set("stop-writes-on-bgsave-error", "no")
            with contextlib.suppress(redis.ResponseError):
                client.delete("some")

    return mend


FAULTS: dict[str, tuple[Callable[[ValkeyProcess], Callable[[], None]], str]] = {
    "killed": (restarted(empty=False), "refused"),
    "killed, comes back empty": (restarted(empty=True), "refused"),
    "hung": (freeze, "[Tt]ime"),
    # of writes alone: an UNPAUSE has to get through, since a pause that ends by itself may end early
    "paused": (
        command("CLIENT", "PAUSE", "3600000", "WRITE", undo=("CLIENT", "UNPAUSE")),
        "[Tt]ime",
    ),
    "out of memory": (
        command("CONFIG", "SET", "maxmemory", "1", undo=("CONFIG", "SET", "maxmemory", "0")),
        "OOM|maxmemory",
    ),
    "read-only replica": (
        command("REPLICAOF", "127.0.0.1", "1", undo=("REPLICAOF", "NO", "ONE")),
        "read only|READONLY",
    ),
    "too few replicas": (
        command(
            *("CONFIG", "SET", "min-replicas-to-write", "1"),
            undo=("CONFIG", "SET", "min-replicas-to-write", "0"),
        ),
        "NOREPLICAS|enough good replicas",
    ),
    "cannot save": (snapshot_fails, "MISCONF|snapshot"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_store_loses_and_doubles_nothing(
    journal: Journal, server: ValkeyProcess, fault: str
) -> None:
    inflict, expected = FAULTS[fault]
    with (
        EventStore(server.url, timeout_s=1.0) as shipped_to,
        EventStore(server.url, timeout_s=60) as store,
    ):
        shipper = Shipper(journal, shipped_to, settings=QUICK)
        shipper.start()
        try:
            journal.commit([one for number in range(20) for one in visit(number)])
            assert shipper.flush(180)
            mend = inflict(server)
            journal.commit([one for number in range(20, 40) for one in visit(number)])
            tried = shipper.stats().retries

            def failed() -> bool:
                stats = shipper.stats()
                named = re.search(expected, stats.last_error or "")
                return bool(stats.retries >= tried + 2 and stats.connected is False and named)

            until(failed, "attempts have failed")
            assert shipper.stats().backlog.events > 0
            mend()
            journal.commit([one for number in range(40, 60) for one in visit(number)])
            until(lambda: shipper.stats().connected is True, "it works again")
            assert shipper.flush(180)
            until(lambda: store.count() == 60, "all are there")
            assert shipper.flush(180)
            assert shipper.stats().last_error is not None
        finally:
            assert shipper.stop(drain_s=60)
        assert_all_there(store, range(60))
        # the order of changes is that of the journal
        changes = store.changes_after("0-0", 10_000)
        seen: dict[str, int] = {}
        for change in changes:
            assert change.event.version > seen.get(change.event.event_id, 0)
            seen[change.event.event_id] = change.event.version
        if "empty" not in fault:
            firsts = list(dict.fromkeys(one.event.event_id for one in changes))
            assert firsts == [f"event-{number}" for number in range(60)]


def test_data_lost_under_a_running_server_is_stored_again(
    journal: Journal, server: ValkeyProcess
) -> None:
    with (
        EventStore(server.url, timeout_s=60) as store,
        Shipper(journal, store, settings=QUICK) as shipper,
    ):
        journal.commit([one for number in range(10) for one in visit(number)])
        assert shipper.flush(180)
        with server.client() as client:
            client.flushall()
        until(lambda: store.count() == 10, "all are there again")
        assert shipper.flush(180)
        assert_all_there(store, range(10))
        assert shipper.stats().reshipped == 10


def test_a_shipper_started_later_finds_the_backlog(journal_path: Path, store: EventStore) -> None:
    with Journal(journal_path, max_bytes=MIB) as journal:
        journal.commit(visit(0))
    for _ in range(2):  # the second start finds nothing to do
        with (
            Journal(journal_path, max_bytes=MIB) as journal,
            Shipper(journal, store, settings=QUICK) as shipper,
        ):
            assert shipper.flush(180)
    assert_all_there(store, range(1))


def test_stopping_while_the_store_is_down_returns(journal: Journal) -> None:
    shipper = Shipper(journal, EventStore("redis://127.0.0.1:1"))
    shipper.start()
    journal.commit([event(1)])
    assert not shipper.stop(drain_s=0.1)
    assert journal.backlog().events == 1


WORKER = """
import sys, time
from storeguard.events.journal import Journal
from storeguard.events.shipper import Shipper
from storeguard.events.store import EventStore
from tests.events.factories import QUICK, visit

with Journal(sys.argv[1], max_bytes=2**26) as journal:
    with Shipper(journal, EventStore(sys.argv[2]), settings=QUICK) as shipper:
        first = int((journal.checkpoint("next") or b"0").decode())
        for number in range(first, first + 2000):  # the kill may be late
            journal.commit(visit(number), {"next": str(number + 1).encode()})
            print(number, flush=True)
        time.sleep(600)
"""


def test_what_was_sent_is_stored_after_kill_9(tmp_path: Path, server: ValkeyProcess) -> None:
    """Process and store are killed in turns; what was committed is stored, once."""
    path = tmp_path / "journal.db"
    sent = 0
    for turn in range(4):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), server.url],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert worker.stdout is not None
        worker.stdout.readline()
        if turn == 2:
            server.kill()
        time.sleep(0.2)
        os.kill(worker.pid, signal.SIGKILL)
        sent_numbers = worker.stdout.read().split()
        worker.stdout.close()
        worker.wait()
        sent = max(sent, int(sent_numbers[-1]) + 1 if sent_numbers else 0)
        if turn == 2:
            server.start()
    with (
        Journal(path, max_bytes=64 * MIB) as journal,
        EventStore(server.url, timeout_s=60) as store,
    ):
        checkpoint = journal.checkpoint("next")
        assert checkpoint is not None
        committed = int(checkpoint)
        assert committed >= sent
        with Shipper(journal, store, settings=QUICK) as shipper:
            assert shipper.flush(180)
        assert_all_there(store, range(committed))
