"""The journal's tables, and how a file of an earlier format becomes one of today's.

Format 1 (`entries`) had one row a version of an event, with clip, snapshot and keep mark in each
version's body. Format 2 (`events`) has one row an event.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from storeguard.events.annotations import separated
from storeguard.events.clip import lacks_video
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal_rows import count_drops, dump, row_bytes
from storeguard.events.query import milliseconds

_log = logging.getLogger(__name__)

JOURNAL_ID: Final = "journal-id"
_OPENING: Final = 0  # format 1: `role` of an event's first version
_SET_ASIDE: Final = 2  # format 1: `confirmed` of an entry that is no valid event

_OTHERS: Final = """
CREATE TABLE checkpoints (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE drops (
    what TEXT NOT NULL, type TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (what, type)
) WITHOUT ROWID;
"""

# seq: of the last change; rule_seq: of the last one by rules or commands, 0 if the event was taken
# back from the event store; opened_seq: of the first; shipped_seq: of the last one stored, 0 if it
# is to be stored again. opened_ms: capture time of the first version, in Unix milliseconds.
_EVENTS: Final = """
CREATE TABLE events (
    event_id TEXT PRIMARY KEY,
    camera_id TEXT NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    rule_version INTEGER NOT NULL,
    annotations BLOB NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    rule_seq INTEGER NOT NULL,
    opened_seq INTEGER NOT NULL,
    shipped_seq INTEGER NOT NULL,
    was_shipped INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    is_readable INTEGER NOT NULL DEFAULT 1,
    lacks_video INTEGER NOT NULL,
    opened_ms INTEGER NOT NULL,
    latency_ms REAL,
    changed_s REAL NOT NULL,
    waiting_since_s REAL NOT NULL,
    bytes INTEGER NOT NULL,
    is_pending INTEGER NOT NULL AS (is_readable AND shipped_seq < seq)
);
CREATE INDEX pending ON events (seq) WHERE is_readable AND shipped_seq < seq;
CREATE INDEX waiting ON events (waiting_since_s) WHERE is_readable AND shipped_seq < seq;
CREATE INDEX of_camera ON events (camera_id, seq);
CREATE INDEX of_camera_by_rules ON events (camera_id, rule_seq);
CREATE INDEX by_rules ON events (rule_seq);
CREATE INDEX without_video ON events (seq) WHERE lacks_video;
CREATE TABLE totals (
    bytes INTEGER NOT NULL, pending INTEGER NOT NULL, pending_bytes INTEGER NOT NULL,
    last_seq INTEGER NOT NULL
);
INSERT INTO totals VALUES (0, 0, 0, 0);
CREATE TRIGGER event_in AFTER INSERT ON events BEGIN
    UPDATE totals SET bytes = bytes + new.bytes, pending = pending + new.is_pending,
        pending_bytes = pending_bytes + new.is_pending * new.bytes;
END;
CREATE TRIGGER event_out AFTER DELETE ON events BEGIN
    UPDATE totals SET bytes = bytes - old.bytes, pending = pending - old.is_pending,
        pending_bytes = pending_bytes - old.is_pending * old.bytes;
END;
CREATE TRIGGER event_changed AFTER UPDATE ON events BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes,
        pending = pending + new.is_pending - old.is_pending,
        pending_bytes = pending_bytes + new.is_pending * new.bytes - old.is_pending * old.bytes;
END;
"""


def create(db: sqlite3.Connection) -> None:
    """Make the tables of an empty file; within the caller's transaction."""
    for statement in _statements(_OTHERS + _EVENTS):
        db.execute(statement)
    _name(db)


def migrate_from_1(db: sqlite3.Connection, *, path: Path) -> int:
    """Turn a file of format 1 into one of format 2; within the caller's transaction.

    Each event is taken over in its newest version. What was not stored yet still waits to be
    stored; checkpoints, texts and counts stay as they are.

    Args:
        db: the connection.
        path: the journal's, for messages.

    Returns:
        How many events were taken over.
    """
    for name in ("entry_in", "entry_out", "entry_confirm"):
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DROP INDEX pending")
    db.execute("DROP TABLE totals")
    for statement in _statements(_EVENTS):
        db.execute(statement)
    entries = db.execute(
        "SELECT event_id, seq, rule_version, type, role, confirmed, written_s, latency_ms, body "
        "FROM entries ORDER BY event_id, version"
    )
    count = 0
    for event_id, rows in groupby(entries, key=lambda row: row[0]):
        count += _take_over(db, event_id, [row[1:] for row in rows], path=path)
    db.execute(
        "UPDATE totals SET last_seq = IFNULL("
        "(SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0)"
    )
    db.execute("DROP TABLE entries")
    _name(db)
    return count


def _take_over(
    db: sqlite3.Connection, event_id: str, versions: list[tuple[Any, ...]], *, path: Path
) -> bool:
    """Write one event of format 1, given its versions; whether any of them can be read."""
    readable = []
    for version in versions:
        try:
            readable.append((version, Event.model_validate_json(version[-1])))
        except ValidationError as error:
            _log.critical(
                "journal %s: event %s: a version is no valid event, left out: %s",
                path,
                event_id,
                error,
            )
            if version[4] != _SET_ASIDE:  # else it is counted already
                count_drops(db, "unreadable", version[2], 1)
    if not readable:
        return False
    (seq, rule_version, kind, _, confirmed, written_s, _, _), event = readable[-1]
    by_rules = min(row[0] for row, _ in readable if row[1] == rule_version)
    opening = next(((row, first) for row, first in readable if row[3] == _OPENING), None)
    was_shipped = opening is None or opening[0][4] != 0
    body, annotations = separated(event)
    written, noted = dump(body), dump(annotations)
    waiting = [row[5] for row, _ in readable if row[4] == 0]
    db.execute(
        "INSERT INTO events (event_id, camera_id, type, body, rule_version, annotations, version, "
        "seq, rule_seq, opened_seq, shipped_seq, was_shipped, is_open, lacks_video, opened_ms, "
        "latency_ms, changed_s, waiting_since_s, bytes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            event_id,
            event.camera_id,
            kind,
            written,
            rule_version,
            noted,
            event.version,
            seq,
            by_rules,
            readable[0][0][0],
            seq if confirmed else 0,
            was_shipped,
            event.status is EventStatus.OPEN,
            lacks_video(event),
            milliseconds((opening[1] if opening else event).updated_at),
            opening[0][6] if opening else None,
            written_s,
            min(waiting, default=written_s),
            row_bytes(written, noted),
        ),
    )
    return True


def _name(db: sqlite3.Connection) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (JOURNAL_ID, uuid.uuid4().hex))


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
