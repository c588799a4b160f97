"""The local event journal: every event is on this machine's disk before it goes anywhere else.

A SQLite database in WAL mode, used as an outbox. `commit` writes events together with the rule
engine's checkpoints in one transaction; a shipper reads `pending`, stores, and `confirm`s.
Confirmed entries stay for a while, so that a store which came back empty can be filled again.

Versions: the rules count an event's versions, and others `amend` it meanwhile (clip link,
classifier score). The journal owns the final count: what the rules bring next is numbered after
the newest entry, and keeps what was amended.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from storeguard.clock import Clock, SystemClock
from storeguard.errors import JournalError, NotFoundError
from storeguard.events.clip_link import is_unmet
from storeguard.events.cursor import Cursor
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal_file import JournalFile
from storeguard.events.merging import merged

_log = logging.getLogger(__name__)

_ROW_BYTES: Final = 192  # what SQLite and the indexes need for a row beside its body
_EVICT_TO: Final = 0.95  # make room in steps, not for every single event
_EVICT_ROWS: Final = 256
_RESERVE_BYTES: Final = 4 * 2**20
_LOOKED_AT: Final = 2000  # rows, when events without video are looked for
_SUPERSEDED_OPENING: Final = (
    "confirmed = 0 AND role = 0 AND EXISTS (SELECT 1 FROM entries n "
    "WHERE n.event_id = entries.event_id AND n.version > entries.version)"
)


class _Role(IntEnum):
    """What an entry is to its event; decides what is dropped first."""

    OPENING = 0
    NEWEST = 1
    SUPERSEDED = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled version of an event.

    Attributes:
        seq: position in the journal; grows, never reused.
        event: the event as of this version.
        opening: True for the first version of the event that the journal saw.
        latency_ms: capture to store, measured when it was first stored; None until then.
    """

    seq: int
    event: Event
    opening: bool
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class EventChange:
    """The newest state of an event that changed.

    Attributes:
        seq: sequence number of its last change (with `by_rules`, of its last change by the rules).
        event: the event as it is now, its annotations included.
    """

    seq: int
    event: Event


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """Events that changed after a cursor, each once, in order of `seq`.

    Attributes:
        journal_id: the journal they are from.
        last_seq: request what comes after this one next time.
    """

    journal_id: str
    changes: tuple[EventChange, ...]
    last_seq: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be stored.

    Attributes:
        events: entries (versions of events) not yet confirmed.
        bytes: their size on disk, about.
        oldest_s: age of the oldest of them in seconds; None when nothing waits.
    """

    events: int
    bytes: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class JournalDrops:
    """What a full journal threw away, by event type, since the file was made.

    Attributes:
        updates: superseded updates; the events themselves are still there in their newest version.
        entries: oldest entries that were never stored: real losses.
        unreadable: entries no longer valid as events (written by another release), set aside.
    """

    updates: Mapping[str, int]
    entries: Mapping[str, int]
    unreadable: Mapping[str, int]

    @property
    def lossless(self) -> bool:
        """Whether nothing but superseded updates was dropped."""
        return not self.entries and not self.unreadable


class Journal:
    """A durable, bounded outbox of events. Thread-safe; several processes may open one file.

    Args:
        path: the database file; made, with its folder, if absent.
        max_bytes: bound of all entries together. Past it room is made in this order: confirmed
            entries (the store has them), superseded updates that were not stored yet, openings
            that a newer version supersedes, and only then the oldest entries. All but the first
            are logged, counted and reported by `drops`.
        clock: for ages.

    Raises:
        JournalError: the file cannot be opened or written. A damaged one is moved aside to
            `<name>.damaged-<time>` first, so that the next opening starts afresh.
    """

    def __init__(self, path: Path | str, *, max_bytes: int, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._more = threading.Condition()
        self._commits = 0
        reserve = min(_RESERVE_BYTES, max_bytes // 4)
        self._file = JournalFile(self.path, reserve_bytes=reserve, clock=self._clock)

    @classmethod
    def recover(cls, path: Path | str, *, max_bytes: int, clock: Clock | None = None) -> Self:
        """Open the journal; in place of a damaged one, which is moved aside, begin a fresh one.

        For those who must go on taking events whatever happened before.

        Raises:
            JournalError: also a fresh one cannot be made.
        """
        try:
            return cls(path, max_bytes=max_bytes, clock=clock)
        except JournalError:
            if Path(path).exists():  # not moved aside: a lack of rights, space, ..., no damage
                raise
            return cls(path, max_bytes=max_bytes, clock=clock)

    # ------------------------------------------------------------------ writing

    def commit(
        self, events: Sequence[Event] = (), checkpoints: Mapping[str, bytes] | None = None
    ) -> None:
        """Write events, and the checkpoints that go with them, all or nothing.

        On disk (fsync) when it returns if there are events; checkpoints alone survive a crash of
        the process, and of the machine but for the last moments. An event whose version the
        journal has seen from the rules before is a replay and changes nothing.

        Raises:
            JournalError: nothing was written, for instance because the disk is full; try again.
        """
        if not events and not checkpoints:
            return
        with self._file.transaction(durable=bool(events)) as db:
            for event in events:
                self._append(db, event)
            if checkpoints:
                db.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", checkpoints.items()
                )
        if events:
            self._announce()

    def amend(self, event_id: str, change: Callable[[Event], Event]) -> Event:
        """Change the newest version of an event and journal the result as its next version.

        Args:
            event_id: the event.
            change: makes the changed event from the newest one; called inside the transaction,
                so it must be quick. Returning an equal event journals nothing.

        Returns:
            The event as journalled.

        Raises:
            NotFoundError: the journal holds no version of the event (any more).
            JournalError: nothing was written.
            ValueError: the change touches what makes the event this event.
        """
        with self._file.transaction(durable=True) as db:
            row = self._newest(db, event_id)
            if row is None:
                raise NotFoundError(f"journal {self.path}: no event {event_id!r} to amend")
            before, rule_version = row
            after = change(before)
            if after == before:
                return before
            for name in ("event_id", "type", "store_id", "camera_id", "zone_id", "started_at"):
                if getattr(after, name) != getattr(before, name):
                    raise ValueError(
                        f"event {event_id!r}: {name} never changes; it is "
                        f"{getattr(before, name)!r}, the change makes it {getattr(after, name)!r}"
                    )
            after = after.model_copy(update={"version": before.version + 1})
            self._insert(db, after, rule_version=rule_version, opening=False)
        self._announce()
        return after

    def confirm(self, through_seq: int, latency_ms: Mapping[int, float] | None = None) -> None:
        """Mark entries up to and including `through_seq` as stored.

        Args:
            through_seq: the last entry the store has answered for.
            latency_ms: capture-to-store latencies by seq, kept for a later re-shipping.
        """
        with self._file.transaction(durable=False) as db:
            if latency_ms:
                db.executemany(
                    "UPDATE entries SET latency_ms = ? WHERE seq = ?",
                    [(value, seq) for seq, value in latency_ms.items()],
                )
            db.execute(
                "UPDATE entries SET confirmed = 1 WHERE confirmed = 0 AND seq <= ?", (through_seq,)
            )

    def reship(self, max_age_s: float | None = None) -> int:
        """Take retained entries back into the backlog, as after the loss of a store's data.

        Args:
            max_age_s: only entries written at most this many seconds ago; None takes all.

        Returns:
            How many confirmed entries wait again.
        """
        since_s = 0.0 if max_age_s is None else self._clock.now().timestamp() - max_age_s
        with self._file.transaction(durable=False) as db:
            count = db.execute(
                "UPDATE entries SET confirmed = 0 WHERE confirmed = 1 AND written_s >= ?",
                (since_s,),
            ).rowcount
        if count:
            self._announce()
        return count

    def prune(self, retain_s: float) -> int:
        """Remove confirmed entries older than `retain_s` seconds; returns how many.

        The newest version of an event that is still open stays: updates build on it.
        """
        before_s = self._clock.now().timestamp() - retain_s
        with self._file.transaction(durable=False) as db:
            return db.execute(
                "DELETE FROM entries WHERE confirmed <> 0 AND written_s < ? "
                "AND NOT (is_open AND role <> ? AND version = "
                "(SELECT MAX(version) FROM entries n WHERE n.event_id = entries.event_id))",
                (before_s, _Role.SUPERSEDED),
            ).rowcount

    def set_meta(self, key: str, value: str) -> None:
        """Remember a small text, such as which store the entries were shipped to."""
        with self._file.transaction(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ------------------------------------------------------------------ reading

    def checkpoint(self, key: str) -> bytes | None:
        """The last checkpoint committed under `key`; None if there is none."""
        row = self._file.one("SELECT value FROM checkpoints WHERE key = ?", (key,))
        return None if row is None else bytes(row[0])

    def meta(self, key: str) -> str | None:
        """The text kept by `set_meta`; None if there is none."""
        row = self._file.one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def pending(self, limit: int) -> list[Entry]:
        """The oldest entries not yet confirmed, in the order they were committed."""
        rows = self._file.all(
            "SELECT seq, body, role, latency_ms FROM entries WHERE confirmed = 0 "
            "ORDER BY seq LIMIT ?",
            (limit,),
        )
        entries: list[Entry] = []
        for seq, body, role, latency in rows:
            try:
                event = Event.model_validate_json(body)
            except ValidationError as error:
                self._set_aside(seq, error)
                continue
            entries.append(Entry(seq, event, role == _Role.OPENING, latency))
        return entries

    @property
    def journal_id(self) -> str:
        """Made with the file: a fresh journal has another one."""
        raise NotImplementedError

    def changes_after(
        self,
        cursor: Cursor | None,
        *,
        camera_id: str | None = None,
        limit: int = 256,
        by_rules: bool = False,
    ) -> ChangeBatch:
        """Events that changed after a cursor. Reading marks nothing: the same is returned again.

        Args:
            cursor: the reader's position; None, or one of another journal, begins with the oldest
                event that the journal still holds.
            camera_id: only this camera's events; None takes all.
            limit: at most this many.
            by_rules: only what rules or commands changed (opened, grew, closed), not annotations
                such as clip files.
        """
        raise NotImplementedError

    def latest(self, event_id: str) -> Event | None:
        """The newest journalled version of an event; None when the journal holds none."""
        with self._file.reading() as db:
            row = self._newest(db, event_id)
        return None if row is None else row[0]

    def without_video(self, after_seq: int, *, limit: int) -> tuple[int, list[Event]]:
        """Closed events, in their newest version, that lack video and do not know why.

        Args:
            after_seq: only entries behind this one; 0 begins with the oldest.
            limit: of events.

        Returns:
            How far was looked, to be passed next time, and the events in the journal's order.
        """
        events: list[Event] = []
        with self._file.reading() as db:
            (newest,) = db.execute("SELECT IFNULL(MAX(seq), 0) FROM entries").fetchone()
            rows = db.execute(
                "SELECT seq, body FROM entries WHERE seq > ? AND is_open = 0 AND confirmed <> 2 "
                "AND json_extract(CAST(body AS TEXT), '$.clip.error') IS NULL AND NOT EXISTS "
                "(SELECT 1 FROM entries n WHERE n.event_id = entries.event_id "
                "AND n.version > entries.version) ORDER BY seq LIMIT ?",
                (after_seq, _LOOKED_AT),
            ).fetchall()
        for seq, body in rows:
            event = Event.model_validate_json(body)
            if event.clip is None or is_unmet(event):
                events.append(event)
                if len(events) == limit:
                    return seq, events
        return rows[-1][0] if len(rows) == _LOOKED_AT else max(newest, after_seq), events

    def backlog(self) -> Backlog:
        """How much waits to be stored, and for how long."""
        with self._file.reading() as db:
            events, size = db.execute("SELECT pending, pending_bytes FROM totals").fetchone()
            oldest = db.execute(
                "SELECT written_s FROM entries WHERE confirmed = 0 ORDER BY seq LIMIT 1"
            ).fetchone()
        age_s = None if oldest is None else max(0.0, self._clock.now().timestamp() - oldest[0])
        return Backlog(events=events, bytes=size, oldest_s=age_s)

    def retained_bytes(self) -> int:
        """Size of all entries, confirmed ones too: what `max_bytes` bounds."""
        row = self._file.one("SELECT bytes FROM totals", ())
        return 0 if row is None else int(row[0])

    def drops(self) -> JournalDrops:
        """What had to be dropped so far, by event type."""
        counts: dict[str, dict[str, int]] = {"updates": {}, "entries": {}, "unreadable": {}}
        for what, kind, n in self._file.all("SELECT what, type, n FROM drops", ()):
            counts[what][kind] = n
        return JournalDrops(**counts)

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until this process commits events after the `seen`-th commit, or for `timeout_s`.

        Returns:
            The count of commits so far, to be passed next time.
        """
        with self._more:
            self._more.wait_for(lambda: self._commits != seen, timeout_s)
            return self._commits

    def wake(self) -> None:
        """Let `wait` return, as when its caller is to stop."""
        self._announce()

    def close(self) -> None:
        """Close the file; further calls raise JournalError."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------ inside

    def _append(self, db: sqlite3.Connection, event: Event) -> None:
        row = self._newest(db, event.event_id)
        if row is None:
            self._insert(db, event, rule_version=event.version, opening=True)
            return
        newest, rule_version = row
        if event.version <= rule_version:
            return  # a replay after a restart
        self._insert(db, merged(newest, event), rule_version=event.version, opening=False)

    def _insert(
        self, db: sqlite3.Connection, event: Event, *, rule_version: int, opening: bool
    ) -> None:
        body = event.model_dump_json(exclude_none=True).encode()
        size = len(body) + _ROW_BYTES
        self._make_room(db, size)
        db.execute(
            "UPDATE entries SET role = ? WHERE event_id = ? AND role = ?",
            (_Role.SUPERSEDED, event.event_id, _Role.NEWEST),
        )
        db.execute(
            "INSERT INTO entries (event_id, version, rule_version, type, is_open, role, written_s, "
            "bytes, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.event_id,
                event.version,
                rule_version,
                event.type.value,
                event.status is EventStatus.OPEN,
                _Role.OPENING if opening else _Role.NEWEST,
                self._clock.now().timestamp(),
                size,
                body,
            ),
        )

    def _newest(self, db: sqlite3.Connection, event_id: str) -> tuple[Event, int] | None:
        row = db.execute(
            "SELECT body, rule_version FROM entries WHERE event_id = ? "
            "ORDER BY version DESC LIMIT 1",
            (event_id,),
        ).fetchone()
        return None if row is None else (Event.model_validate_json(row[0]), row[1])

    def _make_room(self, db: sqlite3.Connection, size: int) -> None:
        (held,) = db.execute("SELECT bytes FROM totals").fetchone()
        if held + size <= self._max_bytes:
            return
        excess = held + size - int(self._max_bytes * _EVICT_TO)
        for where, what in (
            ("confirmed = 1 AND NOT (is_open AND role <> 2)", None),
            ("confirmed = 1", None),
            ("confirmed = 0 AND role = 2", "updates"),
            (_SUPERSEDED_OPENING, "updates"),
            ("confirmed IN (0, 2)", "entries"),
        ):
            while excess > 0:
                rows = db.execute(
                    f"SELECT seq, type, bytes, confirmed FROM entries WHERE {where} "  # noqa: S608 - constants above
                    "ORDER BY seq LIMIT ?",
                    (_EVICT_ROWS,),
                ).fetchall()
                if not rows:
                    break
                lost: Counter[str] = Counter()
                for seq, kind, row_bytes, confirmed in rows:
                    db.execute("DELETE FROM entries WHERE seq = ?", (seq,))
                    lost[kind] += confirmed == 0
                    excess -= row_bytes
                    if excess <= 0:
                        break
                if what:
                    self._count_drops(db, what, +lost)

    def _count_drops(self, db: sqlite3.Connection, what: str, lost: Counter[str]) -> None:
        for kind, n in lost.items():
            db.execute(
                "INSERT INTO drops VALUES (?, ?, ?) "
                "ON CONFLICT (what, type) DO UPDATE SET n = n + excluded.n",
                (what, kind, n),
            )
        named = ", ".join(f"{n} {kind}" for kind, n in sorted(lost.items()))
        if what == "updates":
            _log.warning(
                "journal %s is full (%d bytes): dropped superseded updates of %s; no event is lost",
                self.path,
                self._max_bytes,
                named,
            )
        elif named:
            _log.critical(
                "journal %s is full (%d bytes) and the event store does not take events: LOST the "
                "oldest entries: %s",
                self.path,
                self._max_bytes,
                named,
            )

    def _set_aside(self, seq: int, error: ValidationError) -> None:
        _log.critical(
            "journal %s: entry %d is no valid event, set aside: %s", self.path, seq, error
        )
        with self._file.transaction(durable=False) as db:
            db.execute("UPDATE entries SET confirmed = 2 WHERE seq = ?", (seq,))
            row = db.execute("SELECT type FROM entries WHERE seq = ?", (seq,)).fetchone()
            db.execute(
                "INSERT INTO drops VALUES ('unreadable', ?, 1) "
                "ON CONFLICT (what, type) DO UPDATE SET n = n + 1",
                (row[0],),
            )

    def _announce(self) -> None:
        with self._more:
            self._commits += 1
            self._more.notify_all()
