from __future__ import annotations

import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storeguard.errors import JournalError
from storeguard.events.annotations import Annotations
from storeguard.events.changes import (
    ClipFailed,
    ClipRequested,
    ClipStored,
    KeepSet,
    SnapshotStored,
)
from storeguard.events.clip import ClipSpan, StoredClip
from storeguard.events.cursor import Cursor
from storeguard.events.event import EventStatus, EventType
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Backlog, ChangeBatch, Journal
from storeguard.testing import FakeClock
from tests.events.factories import START, changed, event

MIB = 2**20


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db", max_bytes=MIB, clock=clock) as journal:
        yield journal


def waiting(journal: Journal) -> list[tuple[str, int]]:
    return [(entry.event.event_id, entry.event.version) for entry in journal.pending(1_000_000)]


def confirm_all(journal: Journal) -> None:
    journal.confirm({entry.event.event_id: entry.seq for entry in journal.pending(1_000_000)})


def changes(batch: ChangeBatch) -> list[tuple[str, int]]:
    return [(change.event.event_id, change.event.version) for change in batch.changes]


def test_events_wait_in_order_of_their_last_change_until_confirmed(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([event(1), event(2)])
    clock.advance(5)
    journal.commit([event(1, 2)])
    entries = journal.pending(2)
    assert [entry.event for entry in entries] == [event(2), event(1, 2)]
    assert [entry.opened_at for entry in entries] == [event(2).updated_at, event(1).updated_at]
    backlog = journal.backlog()
    assert (backlog.events, backlog.oldest_s) == (2, 5.0)
    journal.confirm({"event-2": entries[0].seq})
    assert waiting(journal) == [("event-1", 2)]
    assert 0 < journal.backlog().bytes < backlog.bytes
    confirm_all(journal)
    assert journal.backlog() == Backlog(0, 0, None)


def test_what_changed_after_it_was_read_waits_again(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1)])
    (entry,) = journal.pending(1)
    clock.advance(5)
    journal.commit([event(1, 2)])
    journal.confirm({"event-1": entry.seq})
    (entry,) = journal.pending(1)
    assert entry.event.version == 2
    assert entry.opened_at is None  # its opening is stored
    assert journal.backlog().oldest_s == 5.0
    confirm_all(journal)
    clock.advance(5)
    journal.commit([event(1, 3)])
    assert journal.backlog().oldest_s == 0.0


def test_events_and_checkpoints_are_one(journal: Journal) -> None:
    assert journal.checkpoint("rules") is None
    journal.commit([event(1)], {"rules": b"\x00\xff", "other": b""})
    assert (journal.checkpoint("rules"), journal.checkpoint("other")) == (b"\x00\xff", b"")
    journal.commit((), {"rules": b"later"})
    with pytest.raises(JournalError):  # a value that SQLite cannot keep: nothing is written
        journal.commit([event(2)], {"rules": object()})  # type: ignore[dict-item]
    assert journal.checkpoint("rules") == b"later"
    assert waiting(journal) == [("event-1", 1)]


def test_replayed_versions_are_ignored(journal: Journal) -> None:
    for _ in range(2):
        journal.commit([event(1), event(1, 2), event(1, 3)])
    journal.commit([event(1, 2)])
    assert waiting(journal) == [("event-1", 3)]
    assert changes(journal.changes_after(None)) == [("event-1", 3)]


# ---------------------------------------------------------------------- annotations


def test_annotations_and_rules_number_versions_together(journal: Journal) -> None:
    journal.commit([event(1)])
    annotated = changed(journal, SnapshotStored("event-1", "picture"))
    assert annotated.version == 2
    # The rules know nothing of the annotation: their second version becomes the third.
    closing = event(1, 2, status=EventStatus.CLOSED, dwell_s=4.0)
    journal.commit([closing])
    latest = journal.latest("event-1")
    assert latest is not None
    assert (latest.version, latest.dwell_s, latest.status) == (3, 4.0, EventStatus.CLOSED)
    assert latest.snapshot == annotated.snapshot
    journal.commit([closing])  # replayed
    assert journal.latest("event-1") == latest
    # The rules' fifth version, of which the journal was given no fourth, is the fifth.
    journal.commit([event(1, 5)])
    assert waiting(journal) == [("event-1", 5)]


def test_an_event_that_is_not_there(journal: Journal) -> None:
    assert journal.latest("event-7") is None
    with pytest.raises(KeyError, match="event-7"), journal.edit() as rows:
        rows.annotate("event-7", Annotations())


# ---------------------------------------------------------------------- changes after a cursor


def test_a_reader_is_given_each_changed_event_once_in_its_newest_state(journal: Journal) -> None:
    assert journal.changes_after(None) == ChangeBatch(journal.journal_id, (), 0)
    journal.commit([event(1), event(2), event(1, 2)])
    batch = journal.changes_after(None)
    assert changes(batch) == [("event-2", 1), ("event-1", 2)]
    assert [change.seq for change in batch.changes] == [2, 3]
    assert batch.last_seq == 3
    assert journal.changes_after(None) == batch  # reading marks nothing
    assert journal.changes_after(batch.cursor) == ChangeBatch(journal.journal_id, (), 3)
    changed(journal, KeepSet("event-2", True))
    journal.commit([event(3)])
    assert changes(journal.changes_after(batch.cursor)) == [("event-2", 2), ("event-3", 1)]


def test_a_reader_who_lost_an_answer_is_given_the_same_and_what_came_since(
    journal: Journal,
) -> None:
    journal.commit([event(1), event(2)])
    lost = journal.changes_after(None)
    journal.commit([event(3)])
    again = journal.changes_after(None)
    assert again.changes[: len(lost.changes)] == lost.changes
    assert changes(again)[len(lost.changes) :] == [("event-3", 1)]


def test_changes_come_in_batches(journal: Journal) -> None:
    journal.commit([event(number) for number in range(5)])
    cursor, sizes = None, []
    while (batch := journal.changes_after(cursor, limit=2)).changes:
        sizes.append(len(batch.changes))
        cursor = batch.cursor
    assert sizes == [2, 2, 1]
    assert cursor == Cursor(journal_id=journal.journal_id, seq=5)


def test_a_camera_is_given_its_own_changes_alone(journal: Journal) -> None:
    journal.commit([event(1), event(2, camera_id="door"), event(3)])
    batch = journal.changes_after(None, camera_id="table")
    assert changes(batch) == [("event-1", 1), ("event-3", 1)]
    journal.commit([event(4, camera_id="door")])
    assert journal.changes_after(batch.cursor, camera_id="table").changes == ()


def test_a_recorder_is_not_given_what_its_own_uploads_change(journal: Journal) -> None:
    journal.commit([event(1)])
    cursor = journal.changes_after(None, by_rules=True).cursor
    changed(journal, SnapshotStored("event-1", "picture"))
    assert journal.changes_after(cursor, camera_id="table", by_rules=True).changes == ()
    assert changes(journal.changes_after(cursor)) == [("event-1", 2)]
    journal.commit([event(1, 2, status=EventStatus.CLOSED)])
    (change,) = journal.changes_after(cursor, camera_id="table", by_rules=True).changes
    assert (change.seq, change.event.status) == (3, EventStatus.CLOSED)
    assert change.event.snapshot is not None


def test_storing_pruning_and_storing_again_change_nothing_for_readers(journal: Journal) -> None:
    journal.commit([event(1)])
    cursor = journal.changes_after(None).cursor
    confirm_all(journal)
    journal.reship()
    confirm_all(journal)
    assert journal.changes_after(cursor).changes == ()


def test_a_cursor_of_another_journal_starts_at_the_beginning(
    journal: Journal, tmp_path: Path
) -> None:
    journal.commit([event(1), event(2)])
    with Journal(tmp_path / "fresh.db", max_bytes=MIB) as fresh:
        assert fresh.journal_id != journal.journal_id
        fresh.commit([event(3)])
        assert changes(fresh.changes_after(journal.changes_after(None).cursor)) == [("event-3", 1)]
    with Journal(journal.path, max_bytes=MIB) as again:
        assert again.journal_id == journal.journal_id


def test_sequence_numbers_are_not_reused(journal: Journal) -> None:
    journal.commit([event(1), event(2, status=EventStatus.CLOSED)])
    confirm_all(journal)
    assert journal.prune(-1.0) == 1
    journal.commit([event(3)])
    assert journal.changes_after(None).last_seq == 3


# ---------------------------------------------------------------------- events without video


RECORDED = {"rule": {"record": True}, "status": EventStatus.CLOSED}


def without_video(journal: Journal, after_seq: int = 0, **how: Any) -> list[str]:
    found = journal.without_video(after_seq, **{"limit": 9, **how})
    return [change.event.event_id for change in found]


def test_closed_events_without_video_are_found(journal: Journal, clock: FakeClock) -> None:
    open_, closed = event(1, rule={"record": True}), event(2, **RECORDED)
    journal.commit([open_, closed, event(3, status=EventStatus.CLOSED), event(4, **RECORDED)])
    assert without_video(journal) == ["event-2", "event-4"]
    assert without_video(journal, limit=1) == ["event-2"]
    assert without_video(journal, journal.without_video(limit=1)[0].seq) == ["event-4"]
    clock.advance(60)
    journal.commit([event(1, 2, **RECORDED)])
    assert without_video(journal, unchanged_s=60) == ["event-2", "event-4"]
    assert without_video(journal) == ["event-2", "event-4", "event-1"]


def test_an_event_has_its_video_once_all_of_it_is_stored_or_a_fault_explains_it(
    journal: Journal,
) -> None:
    journal.commit([event(1, **RECORDED), event(2, **RECORDED)])
    for name in ("event-1", "event-2"):
        end = START + timedelta(seconds=10)
        span = ClipSpan(event_id=name, start=START, end=end, final=True)
        changed(journal, ClipRequested(span))
        assert name in without_video(journal)
        if name == "event-1":
            file = StoredClip(uri="a", start=START, end=end, sha256="ab")
            changed(journal, ClipStored(span, file))
        else:
            changed(journal, ClipFailed(span, Fault(code=FaultCode.OVERDUE)))
        assert name not in without_video(journal)


# ---------------------------------------------------------------------- bounds


def fill(journal: Journal, names: range, **more: object) -> None:
    events = [event(name, rule={"pad": "x" * 1000}, **more) for name in names]
    for start in range(0, len(events), 10):
        journal.commit(events[start : start + 10])


def test_stored_events_make_room_without_loss(journal: Journal) -> None:
    fill(journal, range(500))
    confirm_all(journal)
    fill(journal, range(500, 1000), status=EventStatus.CLOSED)
    assert len(waiting(journal)) == 500
    assert journal.drops().lossless


def test_a_stored_open_event_makes_room_after_all_closed_ones(journal: Journal) -> None:
    fill(journal, range(1))
    fill(journal, range(1, 500), status=EventStatus.CLOSED)
    confirm_all(journal)
    fill(journal, range(500, 1000), status=EventStatus.CLOSED)
    assert journal.latest("event-0") is not None
    assert journal.latest("event-1") is None
    fill(journal, range(1000, 1200), status=EventStatus.CLOSED)
    assert journal.latest("event-0") is None


def test_an_event_that_changes_without_end_takes_the_place_of_one(journal: Journal) -> None:
    for version in range(1, 1200, 10):
        pad = {"pad": "x" * 1000}
        journal.commit([event("long", number, rule=pad) for number in range(version, version + 10)])
    assert waiting(journal) == [("event-long", 1200)]
    assert journal.backlog().bytes < 2000
    assert journal.drops().lossless


def test_a_full_journal_loses_the_oldest_loudly(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, range(900), type=EventType.INTRUSION)
    kept = waiting(journal)
    assert kept[-1] == ("event-899", 1)
    assert kept == [(f"event-{number}", 1) for number in range(900 - len(kept), 900)]
    lost = 900 - len(kept)
    assert lost > 0
    drops = journal.drops()
    assert (drops.entries, drops.lossless) == ({"intrusion": lost}, False)
    assert "LOST" in caplog.text
    assert journal.backlog().bytes <= MIB
    assert journal.path.stat().st_size < 2 * MIB


def test_pruning_keeps_what_open_events_build_on(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1), event(1, 2), event(2, status=EventStatus.CLOSED)])
    confirm_all(journal)
    clock.advance(100)
    journal.commit([event(3)])
    clock.advance(100)
    assert journal.prune(150) == 1
    assert journal.latest("event-1") == event(1, 2)
    assert journal.latest("event-2") is None
    assert waiting(journal) == [("event-3", 1)]  # whatever its age, it was not stored


def test_reshipping(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1)])
    journal.confirm({"event-1": journal.pending(1)[0].seq}, {"event-1": 12.5})
    clock.advance(100)
    journal.commit([event(2)])
    confirm_all(journal)
    assert journal.reship(max_age_s=50) == 1
    assert waiting(journal) == [("event-2", 1)]
    assert journal.reship() == 1
    entries = journal.pending(9)
    assert [entry.latency_ms for entry in entries] == [12.5, None]
    assert [entry.opened_at for entry in entries] == [None, None]  # no latency is measured again
    assert journal.backlog().oldest_s == 0.0


# ---------------------------------------------------------------------- crashes and damage

COMMITTER = """
import sys
from storeguard.events.journal import Journal
from tests.events.factories import event

journal = Journal(sys.argv[1], max_bytes=2**24)
for number in range(1_000_000):
    journal.commit([event(number)], {"rules": str(number).encode()})
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_committed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        reported = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        last = int(reported[-1]) if reported else 0
        with Journal(path, max_bytes=2**24) as journal:
            kept = [int(name.removeprefix("event-")) for name, _ in waiting(journal)]
            assert kept == list(range(len(kept)))
            assert len(kept) > last
            assert journal.checkpoint("rules") == str(kept[-1]).encode()
        path.unlink()
        for rest in tmp_path.glob("journal.db-*"):
            rest.unlink()


@pytest.mark.parametrize("damage", ["garbage", "header", "middle", "truncated"])
def test_a_damaged_file_is_moved_aside_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, max_bytes=MIB) as journal:
        fill(journal, range(300))
    content = path.read_bytes()
    match damage:
        case "garbage":
            spoilt = b"not a database at all" * 500
        case "header":
            spoilt = os.urandom(4096) + content[4096:]
        case "middle":
            spoilt = content[:8192] + os.urandom(len(content) - 16384) + content[-8192:]
        case _:
            spoilt = content[: len(content) // 2 + 100]
    path.write_bytes(spoilt)
    with pytest.raises(JournalError, match="damaged") as caught:
        Journal(path, max_bytes=MIB)
    (aside,) = tmp_path.glob("journal.db.damaged-*Z")
    assert str(aside) in str(caught.value)
    assert aside.read_bytes() == spoilt
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)
    with Journal(path, max_bytes=MIB) as journal:
        assert waiting(journal) == []


def test_recover_begins_afresh_after_damage_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all" * 500)
    with Journal.recover(path, max_bytes=MIB) as journal:
        journal.commit([event(1)])
    with Journal.recover(path, max_bytes=MIB) as journal:
        assert waiting(journal) == [("event-1", 1)]
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(JournalError, match="cannot open"):
        Journal.recover(folder, max_bytes=MIB)


def test_a_newer_format_is_refused_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path, max_bytes=MIB).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalError, match="newer release"):
        Journal.recover(path, max_bytes=MIB)
    assert path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET body = '{}' WHERE event_id = 'event-1'",
        "UPDATE events SET annotations = '[]' WHERE event_id = 'event-1'",
    ],
)
def test_rows_that_are_no_events_are_set_aside(
    journal: Journal, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    journal.commit([event(1), event(2)])
    with sqlite3.connect(journal.path) as db:
        db.execute(damage)
    db.close()
    assert waiting(journal) == [("event-2", 1)]
    assert changes(journal.changes_after(None)) == [("event-2", 1)]
    assert journal.latest("event-1") is None
    assert journal.backlog().events == 1
    assert journal.drops().unreadable == {"loitering": 1}
    assert "event event-1 is no valid event" in caplog.text
    journal.commit([event(1, 2)])  # its rules still report it
    assert waiting(journal) == [("event-2", 1), ("event-1", 2)]


def test_two_processes_worth_of_journals_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, max_bytes=MIB) as one, Journal(path, max_bytes=MIB) as other:
        one.commit([event(1)])
        other.commit([event(1, 2)])
        assert waiting(one) == waiting(other) == [("event-1", 2)]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process grows past a size: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported_and_recovered_from(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, max_bytes=64 * MIB) as journal:
        journal.commit([event(0)])

        def commit_until_full() -> None:
            for name in range(1, 20_000):
                journal.commit(
                    [event(name, rule={"pad": "x" * 3000})], {"rules": str(name).encode()}
                )

        largest = max(file.stat().st_size for file in tmp_path.iterdir())
        with file_size_limit(largest):
            with pytest.raises(JournalError, match="cannot write"):
                commit_until_full()
            held = len(waiting(journal))
            assert held > 100  # what was reserved at opening
            assert journal.checkpoint("rules") == str(held - 1).encode()
        journal.commit([event("after")])
        assert waiting(journal)[-1] == ("event-after", 1)


def test_waiting_for_commits(journal: Journal) -> None:
    seen = journal.wait(0, 0.0)
    thread = threading.Timer(0.05, lambda: journal.commit([event(1)]))
    thread.start()
    assert journal.wait(seen, 180.0) == seen + 1
    thread.join()
