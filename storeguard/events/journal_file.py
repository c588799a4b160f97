"""The journal's file: a SQLite database in WAL mode, opened, checked, locked and fsynced."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from storeguard.clock import Clock
from storeguard.errors import JournalError

_log = logging.getLogger(__name__)

_SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
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


class JournalFile:
    """One connection to the database, shared by all threads under a lock.

    Args:
        path: the file; made, with its folder, if absent.
        reserve_bytes: space owned in advance, so that writing goes on for a while on a full disk.
        clock: for the name of a damaged file.

    Raises:
        JournalError: the file cannot be opened, is of a newer format, or is damaged; a damaged one
            is moved aside to `<name>.damaged-<time>` first.
    """

    def __init__(self, path: Path, *, reserve_bytes: int, clock: Clock) -> None:
        self.path = path
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._synchronous = ""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except sqlite3.OperationalError as error:
            raise JournalError(f"journal {self.path}: cannot open: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._move_aside()
            message = (
                f"journal {self.path} is damaged ({error}); it was moved to {aside}. Events in it "
                "that were not stored yet are not lost but have to be recovered from that file"
            )
            _log.critical(message)
            raise JournalError(message) from error
        except JournalError:
            raise
        except OSError as error:
            raise JournalError(f"journal {self.path}: cannot open: {error}") from error

    def close(self) -> None:
        """Close the file; further use raises JournalError."""
        with self._lock:
            self._db.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for reading, alone."""
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise JournalError(f"journal {self.path}: cannot read: {error}") from error

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One write transaction; fsynced at its end if `durable`, rolled back on any error."""
        with self._lock:
            try:
                wanted = "FULL" if durable else "NORMAL"
                if wanted != self._synchronous:
                    self._db.execute(f"PRAGMA synchronous = {wanted}")
                    self._synchronous = wanted
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise JournalError(f"journal {self.path}: cannot write: {error}") from error

    def one(self, sql: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """The first row; None if there is none."""
        with self.reading() as db:
            row: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return row

    def all(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows."""
        with self.reading() as db:
            return db.execute(sql, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        db.execute("BEGIN IMMEDIATE")  # of two openers only one makes the tables
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _statements(_SCHEMA):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.execute("COMMIT")
        if version > _SCHEMA_VERSION:
            raise JournalError(
                f"journal {self.path}: written by a newer release (format {version}, expected "
                f"{_SCHEMA_VERSION}); use that release, or move the file away"
            )
        self._reserve(db)

    def _reserve(self, db: sqlite3.Connection) -> None:
        """Own some pages of file and WAL in advance: events go on being kept on a full disk."""
        size = self._reserve_bytes
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO checkpoints VALUES ('', zeroblob(?))", (size,))
            db.execute("DELETE FROM checkpoints WHERE key = ''")
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            _log.warning("journal %s: could not reserve %d bytes: %s", self.path, size, error)

    def _move_aside(self) -> Path:
        stamp = f"{self._clock.now():%Y%m%dT%H%M%S%f}Z"
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside


def _statements(script: str) -> Iterator[str]:
    """The script's statements one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
