"""A journal file of format 1 (one row a version of an event) becomes one of format 2."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from storeguard.events.changes import EventReported, SnapshotStored
from storeguard.events.event import Event, EventStatus
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal
from tests.events.factories import START, changed, event

MIB = 2**20

FORMAT_1 = """
PRAGMA user_version = 1;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    rule_version INTEGER NOT NULL,
    type TEXT NOT NULL,
    is_open INTEGER NOT NULL,
    role INTEGER NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0,
    written_s REAL NOT NULL,
    latency_ms REAL,
    bytes INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (event_id, version)
);
CREATE INDEX pending ON entries (seq) WHERE confirmed = 0;
CREATE INDEX droppable ON entries (seq) WHERE confirmed = 0 AND role = 2;
CREATE TABLE checkpoints (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE drops (
    what TEXT NOT NULL, type TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (what, type)
) WITHOUT ROWID;
CREATE TABLE totals (
    bytes INTEGER NOT NULL, pending INTEGER NOT NULL, pending_bytes INTEGER NOT NULL
);
INSERT INTO totals VALUES (0, 0, 0);
CREATE TRIGGER entry_in AFTER INSERT ON entries BEGIN
    UPDATE totals SET bytes = bytes + new.bytes, pending = pending + 1,
        pending_bytes = pending_bytes + new.bytes;
END;
CREATE TRIGGER entry_out AFTER DELETE ON entries BEGIN
    UPDATE totals SET bytes = bytes - old.bytes, pending = pending - (old.confirmed = 0),
        pending_bytes = pending_bytes - (old.confirmed = 0) * old.bytes;
END;
CREATE TRIGGER entry_confirm AFTER UPDATE OF confirmed ON entries
WHEN (old.confirmed = 0) <> (new.confirmed = 0) BEGIN
    UPDATE totals SET
        pending = pending + (new.confirmed = 0) - (old.confirmed = 0),
        pending_bytes = pending_bytes + ((new.confirmed = 0) - (old.confirmed = 0)) * new.bytes;
END;
"""

ENTRIES = """
INSERT INTO checkpoints VALUES ('rules:table', x'00ff');
INSERT INTO meta VALUES ('store-identity', 'run/epoch');
INSERT INTO drops VALUES ('updates', 'loitering', 4), ('entries', 'intrusion', 2);

-- Opened and stored, its clip linked beside the rules, closed by its rule's second version.
INSERT INTO entries VALUES (1, 'linked', 1, 1, 'loitering', 1, 0, 1, 100.0, 40.5, 500,
    '{"event_id":"linked","version":1,"type":"loitering","status":"open","store_id":"shop",
    "camera_id":"table","started_at":"2026-01-01T12:00:00.000Z",
    "updated_at":"2026-01-01T12:00:03.000Z","rule":{"record":true},"attributes":{},
    "latency_ms":{},"keep":false}');
INSERT INTO entries VALUES (3, 'linked', 2, 1, 'loitering', 1, 2, 1, 101.0, NULL, 500,
    '{"event_id":"linked","version":2,"type":"loitering","status":"open","store_id":"shop",
    "camera_id":"table","started_at":"2026-01-01T12:00:00.000Z",
    "updated_at":"2026-01-01T12:00:03.000Z","rule":{"record":true},"attributes":{},
    "clip":{"uri":"file:///a.mp4","start":"2026-01-01T12:00:00.000Z",
        "end":"2026-01-01T12:00:09.000Z","requested_start":"2026-01-01T12:00:00.000Z",
        "requested_end":"2026-01-01T12:00:09.000Z","sha256":"ab","parts":[]},
    "latency_ms":{},"keep":true}');
INSERT INTO entries VALUES (6, 'linked', 3, 2, 'loitering', 0, 1, 0, 110.0, NULL, 500,
    '{"event_id":"linked","version":3,"type":"loitering","status":"closed","store_id":"shop",
    "camera_id":"table","started_at":"2026-01-01T12:00:00.000Z",
    "ended_at":"2026-01-01T12:00:09.000Z","updated_at":"2026-01-01T12:00:09.000Z","dwell_s":9.0,
    "rule":{"record":true},"attributes":{"label":"staff"},
    "clip":{"uri":"file:///a.mp4","start":"2026-01-01T12:00:00.000Z",
        "end":"2026-01-01T12:00:09.000Z","requested_start":"2026-01-01T12:00:00.000Z",
        "requested_end":"2026-01-01T12:00:09.000Z","sha256":"ab","parts":[]},
    "snapshot":{"uri":"file:///a.jpg"},"latency_ms":{},"keep":true}');

-- Opened, and never stored.
INSERT INTO entries VALUES (4, 'new', 1, 1, 'intrusion', 1, 0, 0, 105.0, NULL, 300,
    '{"event_id":"new","version":1,"type":"intrusion","status":"open","store_id":"shop",
    "camera_id":"door","started_at":"2026-01-01T12:00:04.000Z",
    "updated_at":"2026-01-01T12:00:04.250Z","rule":{},"attributes":{},"latency_ms":{},
    "keep":false}');

-- Stored long ago; its openings left the journal. The fault of its clip is words alone.
INSERT INTO entries VALUES (2, 'failed', 4, 2, 'intrusion', 0, 1, 1, 90.0, NULL, 300,
    '{"event_id":"failed","version":4,"type":"intrusion","status":"closed","store_id":"shop",
    "camera_id":"door","started_at":"2026-01-01T11:00:00.000Z",
    "ended_at":"2026-01-01T11:00:01.000Z","updated_at":"2026-01-01T11:00:01.000Z",
    "rule":{"record":true},"attributes":{},"clip":{"requested_start":"2026-01-01T11:00:00.000Z",
        "requested_end":"2026-01-01T11:00:02.000Z","error":"the disk was full","parts":[]},
    "latency_ms":{},"keep":false}');

-- Written by another release.
INSERT INTO entries VALUES (5, 'strange', 1, 1, 'loitering', 1, 0, 0, 106.0, NULL, 300, '{}');

INSERT INTO entries VALUES (9, 'removed since', 1, 1, 'loitering', 0, 0, 1, 1.0, NULL, 9, '{}');
DELETE FROM entries WHERE seq = 9;
"""


def journal_of_format_1(path: Path, *scripts: str) -> Path:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    for script in (FORMAT_1, *scripts):
        db.executescript(script)
    db.close()
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_of_format_1(tmp_path / "journal.sqlite3", ENTRIES)


def latest(journal: Journal, event_id: str) -> Event:
    found = journal.latest(event_id)
    assert found is not None
    return found


def test_what_was_not_stored_still_waits_and_what_was_does_not(path: Path) -> None:
    for _ in range(2):  # opened again, it is what it was
        with Journal(path, max_bytes=MIB) as journal:
            entries = journal.pending(9)
            assert [(one.seq, one.event.event_id, one.event.version) for one in entries] == [
                (4, "new", 1),
                (6, "linked", 3),
            ]
            opened_at = START + timedelta(seconds=4, milliseconds=250)
            assert [one.opened_at for one in entries] == [opened_at, None]
            assert [one.latency_ms for one in entries] == [None, 40.5]
            assert journal.backlog().events == 2
            assert journal.backlog().bytes > 0
            assert [one.event.event_id for one in journal.changes_after(None).changes] == [
                "failed",
                "new",
                "linked",
            ]


def test_an_event_is_what_it_was(path: Path) -> None:
    with Journal(path, max_bytes=MIB) as journal:
        linked = latest(journal, "linked")
        assert (linked.version, linked.status, linked.dwell_s) == (3, EventStatus.CLOSED, 9.0)
        assert linked.attributes == {"label": "staff"}
        assert linked.keep
        assert linked.clip is not None
        assert (linked.clip.uri, linked.clip.error) == ("file:///a.mp4", None)
        assert linked.snapshot is not None
        failed = latest(journal, "failed").clip
        assert failed is not None
        assert failed.error == "the disk was full"
        assert failed.faults == (Fault(code=FaultCode.OTHER, detail="the disk was full"),)
        assert journal.without_video(limit=9) == []


def test_rules_and_changes_go_on_where_they_were(path: Path) -> None:
    with Journal(path, max_bytes=MIB) as journal:
        before = latest(journal, "linked")
        replay = before.model_copy(update={"version": 2, "clip": None})
        journal.commit([replay])
        assert latest(journal, "linked") == before
        assert changed(journal, SnapshotStored("linked", "b.jpg")).version == 4
        assert (
            changed(journal, EventReported(replay.model_copy(update={"version": 3}))).version == 5
        )
        journal.commit([event(1)])
        assert journal.changes_after(None).last_seq == 12  # numbers given before are not reused


def test_checkpoints_and_counts_are_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Journal(path, max_bytes=MIB) as journal:
        assert journal.checkpoint("rules:table") == b"\x00\xff"
        assert journal.meta("store-identity") == "run/epoch"
        drops = journal.drops()
        assert drops.entries == {"intrusion": 2}
        assert drops.unreadable == {"loitering": 1}
        assert journal.journal_id
    assert "event strange: a version is no valid event" in caplog.text


def test_an_empty_journal_of_format_1(tmp_path: Path) -> None:
    path = journal_of_format_1(tmp_path / "journal.sqlite3")
    with Journal(path, max_bytes=MIB) as journal:
        assert journal.changes_after(None).changes == ()
        journal.commit([event(1)])
        assert journal.pending(9)[0].seq == 1


OPENER = """
import sys
from storeguard.events.journal import Journal

print("ready", flush=True)
Journal(sys.argv[1], max_bytes=2**26)
print("migrated", flush=True)
sys.stdin.read()
"""


def test_killed_while_it_is_migrated_it_is_migrated_at_the_next_opening(tmp_path: Path) -> None:
    path = journal_of_format_1(tmp_path / "journal.sqlite3", ENTRIES)
    db = sqlite3.connect(path)
    db.executemany(
        "INSERT INTO entries VALUES (NULL, ?, 1, 1, 'loitering', 1, 0, 0, 200.0, NULL, 300, ?)",
        [(f"event-{n}", event(n).model_dump_json(exclude_none=True)) for n in range(5000)],
    )
    db.commit()
    db.close()
    for after_s in (0.0, 0.05, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", OPENER, str(path)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with Journal(path, max_bytes=2**26) as journal:
        assert len(journal.pending(10_000)) == 5002
        assert journal.checkpoint("rules:table") == b"\x00\xff"
