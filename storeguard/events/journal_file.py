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
from storeguard.events.journal_schema import create, migrate_from_1

_log = logging.getLogger(__name__)

_SCHEMA_VERSION: Final = 2


class JournalFile:
    """One connection to the database, shared by all threads under a lock.

    Args:
        path: the file; made, with its folder, if absent.
        reserve_bytes: space owned in advance, so that writing goes on for a while on a full disk.
        clock: for the name of a damaged file.

    Raises:
        JournalError: the file cannot be opened, is of a newer format (it stays as it is), or is
            damaged; a damaged one is moved aside to `<name>.damaged-<time>` first.
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
        """The connection, for reading, held by one thread at a time."""
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
                synchronous = "FULL" if durable else "NORMAL"
                if synchronous != self._synchronous:
                    self._db.execute(f"PRAGMA synchronous = {synchronous}")
                    self._synchronous = synchronous
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
            create(db)
        elif version == 1:
            count = migrate_from_1(db, path=self.path)
            _log.info("journal %s: %d events taken over from format 1", self.path, count)
        if version < _SCHEMA_VERSION:
            db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        db.execute("COMMIT")
        if version > _SCHEMA_VERSION:
            raise JournalError(
                f"journal {self.path}: written by a newer release (format {version}, expected "
                f"{_SCHEMA_VERSION}); use that release, or move the file away"
            )
        self._reserve(db)

    def _reserve(self, db: sqlite3.Connection) -> None:
        """Own some pages of file and WAL in advance: on a full disk events are still written."""
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
