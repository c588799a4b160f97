from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storeguard.errors import JournalError, NotFoundError
from storeguard.events.event import ClipRef, Event, EventStatus, EventType, Latency, SnapshotRef
from storeguard.events.journal import Backlog, Journal
from storeguard.events.merging import merged
from storeguard.testing import FakeClock
from tests.events.factories import event

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


def test_entries_wait_in_order_until_confirmed(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1), event(2)])
    clock.advance(5)
    journal.commit([event(1, 2)])
    entries = journal.pending(2)
    assert [entry.event for entry in entries] == [event(1), event(2)]
    assert [entry.opening for entry in entries] == [True, True]
    backlog = journal.backlog()
    assert (backlog.events, backlog.oldest_s) == (3, 5.0)
    journal.confirm(entries[-1].seq)
    assert waiting(journal) == [("event-1", 2)]
    assert not journal.pending(1)[0].opening
    assert 0 < journal.backlog().bytes < backlog.bytes
    journal.confirm(journal.pending(1)[0].seq)
    assert journal.backlog() == Backlog(0, 0, None)


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
    assert waiting(journal) == [("event-1", 1), ("event-1", 2), ("event-1", 3)]


# ---------------------------------------------------------------------- amending


def with_clip(old: Event) -> Event:
    return old.model_copy(update={"clip": ClipRef(uri="file:///a.mp4")})


def test_amendments_and_rules_number_versions_together(journal: Journal) -> None:
    journal.commit([event(1)])
    amended = journal.amend("event-1", with_clip)
    assert amended.version == 2
    assert journal.latest("event-1") == amended
    # The rules know nothing of the amendment: their second version becomes the third.
    closing = event(1, 2, status=EventStatus.CLOSED, dwell_s=4.0)
    journal.commit([closing])
    latest = journal.latest("event-1")
    assert latest is not None
    assert (latest.version, latest.dwell_s, latest.status) == (3, 4.0, EventStatus.CLOSED)
    assert latest.clip == amended.clip
    journal.commit([closing])  # replayed
    assert journal.latest("event-1") == latest
    assert journal.amend("event-1", lambda old: old).version == 3  # nothing changed


def test_amending_what_is_not_there(journal: Journal) -> None:
    with pytest.raises(NotFoundError, match="event-7"):
        journal.amend("event-7", with_clip)
    assert journal.latest("event-7") is None


def test_an_amendment_keeps_the_event_itself(journal: Journal) -> None:
    journal.commit([event(1)])
    with pytest.raises(ValueError, match="camera_id never changes"):
        journal.amend("event-1", lambda old: old.model_copy(update={"camera_id": "door"}))
    assert waiting(journal) == [("event-1", 1)]


def test_concurrent_amendments_all_count(journal: Journal) -> None:
    journal.commit([event(1)])

    def count(old: Event) -> Event:
        return old.model_copy(update={"attributes": {"n": old.attributes.get("n", 0) + 1}})

    threads = [
        threading.Thread(target=lambda: [journal.amend("event-1", count) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latest = journal.latest("event-1")
    assert latest is not None
    assert (latest.version, latest.attributes) == (81, {"n": 80})


@pytest.mark.parametrize(
    ("newest", "incoming", "expected"),
    [
        # the stored clip stays when the rules bring none, or one that is only asked for
        ({"clip": ClipRef(uri="a")}, {}, {"clip": ClipRef(uri="a")}),
        ({"clip": ClipRef(uri="a")}, {"clip": ClipRef(error="x")}, {"clip": ClipRef(uri="a")}),
        ({"clip": ClipRef(uri="a")}, {"clip": ClipRef(uri="b")}, {"clip": ClipRef(uri="b")}),
        ({"snapshot": SnapshotRef(uri="a")}, {}, {"snapshot": SnapshotRef(uri="a")}),
        ({"keep": True}, {}, {"keep": True}),
        ({"score": 0.9}, {"score": 0.4}, {"score": 0.9}),
        ({}, {"score": 0.4}, {"score": 0.4}),
        (
            {"attributes": {"a": 1, "b": 1}},
            {"attributes": {"b": 2}},
            {"attributes": {"a": 1, "b": 2}},
        ),
        (
            {"latency_ms": Latency(capture_to_store=9.0)},
            {},
            {"latency_ms": Latency(capture_to_store=9.0)},
        ),
        (
            {"status": EventStatus.CLOSED},
            {"status": EventStatus.OPEN},
            {"status": EventStatus.CLOSED},
        ),
        ({"version": 7}, {"version": 2}, {"version": 8}),
        ({"version": 1}, {"version": 5}, {"version": 5}),
    ],
)
def test_what_the_next_version_keeps(
    newest: dict[str, object], incoming: dict[str, object], expected: dict[str, object]
) -> None:
    result = merged(
        event(1).model_copy(update=newest), event(1).model_copy(update={"version": 2, **incoming})
    )
    assert {name: getattr(result, name) for name in expected} == expected


# ---------------------------------------------------------------------- bounds


def fill(journal: Journal, names: range, **more: object) -> None:
    events = [event(name, rule={"pad": "x" * 1000}, **more) for name in names]
    for start in range(0, len(events), 10):
        journal.commit(events[start : start + 10])


def test_confirmed_entries_make_room_without_loss(journal: Journal) -> None:
    fill(journal, range(500))
    journal.confirm(journal.pending(500)[-1].seq)
    fill(journal, range(500, 1000), status=EventStatus.CLOSED)
    assert len(waiting(journal)) == 500
    assert journal.drops().lossless
    assert journal.retained_bytes() <= MIB


def test_a_full_journal_drops_superseded_updates_first(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    versions = range(1, 1200)
    for start in versions[::10]:
        chunk = [v for v in versions if start <= v < start + 10]
        journal.commit([event("long", version, rule={"pad": "x" * 1000}) for version in chunk])
    kept = [version for _, version in waiting(journal)]
    assert kept[0] == 1  # the opening
    assert kept[-1] == versions[-1]  # and the newest
    drops = journal.drops()
    assert drops.lossless
    assert drops.updates == {"loitering": len(versions) - len(kept)}
    assert "superseded updates" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_journal_full_of_events_loses_the_oldest_loudly(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    fill(journal, range(900), type=EventType.INTRUSION)
    kept = waiting(journal)
    assert kept[-1] == ("event-899", 1)
    lost = 900 - len(kept)
    assert lost > 0
    drops = journal.drops()
    assert (drops.entries, drops.lossless) == ({"intrusion": lost}, False)
    assert "LOST" in caplog.text
    assert journal.retained_bytes() <= MIB
    assert journal.path.stat().st_size < 2 * MIB


def test_pruning_keeps_what_open_events_build_on(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1), event(1, 2), event(2, status=EventStatus.CLOSED)])
    journal.confirm(journal.pending(9)[-1].seq)
    clock.advance(100)
    journal.commit([event(3)])
    clock.advance(100)
    assert journal.prune(150) == 2
    assert journal.latest("event-1") == event(1, 2)
    assert journal.latest("event-2") is None
    assert waiting(journal) == [("event-3", 1)]  # whatever its age, it was not stored


def test_reshipping(journal: Journal, clock: FakeClock) -> None:
    journal.commit([event(1)])
    journal.confirm(journal.pending(1)[0].seq, {journal.pending(1)[0].seq: 12.5})
    clock.advance(100)
    journal.commit([event(2)])
    journal.confirm(journal.pending(1)[0].seq)
    assert journal.reship(max_age_s=50) == 1
    assert waiting(journal) == [("event-2", 1)]
    assert journal.reship() == 1
    assert [entry.latency_ms for entry in journal.pending(9)] == [12.5, None]


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
        told = process.stdout.read().split()
        process.stdout.close()
        process.wait()
        last = int(told[-1]) if told else 0
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


def test_entries_that_are_no_events_are_set_aside(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.commit([event(1), event(2)])
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE entries SET body = '{}' WHERE event_id = 'event-1'")
    db.close()
    assert waiting(journal) == [("event-2", 1)]
    assert journal.backlog().events == 1
    assert journal.drops().unreadable == {"loitering": 1}
    assert "no valid event" in caplog.text


def test_two_processes_worth_of_journals_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, max_bytes=MIB) as one, Journal(path, max_bytes=MIB) as other:
        one.commit([event(1)])
        other.commit([event(1, 2)])
        assert waiting(one) == waiting(other) == [("event-1", 1), ("event-1", 2)]


def test_a_disk_that_is_full_is_told_and_recovered_from(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path, max_bytes=2 * MIB) as journal:
        journal.commit([event(1)])
        # SQLite's own bound gives the very error a full disk gives.
        (pages,) = journal._file._db.execute("PRAGMA page_count").fetchone()
        journal._file._db.execute(f"PRAGMA max_page_count = {pages}")

        def commit_until_full() -> None:
            for name in range(2, 5000):
                journal.commit([event(name)], {"rules": str(name).encode()})

        with pytest.raises(JournalError, match="full"):
            commit_until_full()
        held = len(waiting(journal))
        assert held > 500  # what was reserved at opening
        assert journal.checkpoint("rules") == str(held).encode()
        journal._file._db.execute("PRAGMA max_page_count = 1000000")
        journal.commit([event("after")])
        assert waiting(journal)[-1] == ("event-after", 1)


def test_waiting_for_commits(journal: Journal) -> None:
    seen = journal.wait(0, 0.0)
    thread = threading.Timer(0.05, lambda: journal.commit([event(1)]))
    thread.start()
    assert journal.wait(seen, 180.0) == seen + 1
    thread.join()
