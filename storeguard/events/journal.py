"""The local event journal: every event is on this machine's disk before it goes anywhere else.

A SQLite database in WAL mode, used as log and outbox. `commit` writes events together with the
rules' checkpoints in one transaction. A shipper reads `pending`, stores, and `confirm`s; any other
reader keeps a `Cursor` and requests `changes_after` it. Stored events stay for a while, so that a
store that came back empty can be filled again.

One row an event: its body as the rules last gave it, and its annotations (clip, snapshot, keep
mark). Each change gives the event the next sequence number of the journal and the next version. The
journal owns the count of versions that is served, since rules and annotations change an event
independently of each other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from storeguard.clock import Clock, SystemClock
from storeguard.errors import JournalError
from storeguard.events.annotations import Annotations, composed
from storeguard.events.cursor import Cursor
from storeguard.events.event import Event
from storeguard.events.journal_file import JournalFile
from storeguard.events.journal_rows import EventRows, set_aside
from storeguard.events.journal_schema import JOURNAL_ID

_RESERVE_BYTES: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that waits to be stored.

    Attributes:
        seq: sequence number of its last change; grows, never reused.
        event: the event as it is now.
        opened_at: capture time of the event's first version; None once it has been stored.
        latency_ms: capture to store, measured when it was first stored; None until then.
    """

    seq: int
    event: Event
    opened_at: datetime | None
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
        changes: the events.
        last_seq: request what comes after this one next time.
    """

    journal_id: str
    changes: tuple[EventChange, ...]
    last_seq: int

    @property
    def cursor(self) -> Cursor:
        """The reader's position once it has dealt with all of them."""
        return Cursor(journal_id=self.journal_id, seq=self.last_seq)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be stored.

    Attributes:
        events: events whose newest version is not stored.
        bytes: their size on disk, about.
        oldest_s: for how long the oldest of them has waited, in seconds; None when nothing waits.
    """

    events: int
    bytes: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class JournalDrops:
    """What the journal had to drop, by event type, since the file was made.

    Attributes:
        entries: events dropped before their newest version was stored, because it was full.
        unreadable: events that could not be read (written by another release), set aside.
    """

    entries: Mapping[str, int]
    unreadable: Mapping[str, int]

    @property
    def lossless(self) -> bool:
        """Whether nothing was dropped."""
        return not self.entries and not self.unreadable


class Journal:
    """A durable, bounded log of events. Thread-safe; several processes may open one file.

    A file of the format of earlier releases is migrated when it is opened.

    Args:
        path: the database file; made, with its folder, if absent.
        max_bytes: bound of all events together. Past it room is made by removing, oldest change
            first, closed events that are stored, then open ones that are stored, and only then
            events that are not stored: these are logged, counted and reported by `drops`.
        clock: for ages.

    Raises:
        JournalError: the file cannot be opened or written, or is of a newer format. A damaged one
            is moved aside to `<name>.damaged-<time>` first, so that the next opening makes a new
            one.
    """

    def __init__(self, path: Path | str, *, max_bytes: int, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._more = threading.Condition()
        self._commits = 0
        reserve = min(_RESERVE_BYTES, max_bytes // 4)
        self._file = JournalFile(self.path, reserve_bytes=reserve, clock=self._clock)
        self.journal_id = self.meta(JOURNAL_ID) or ""
        """Made with the file: a fresh journal has another one."""

    @classmethod
    def recover(cls, path: Path | str, *, max_bytes: int, clock: Clock | None = None) -> Self:
        """Open the journal; in place of a damaged one, which is moved aside, make a fresh one.

        For a process that must take events whatever happened before.

        Raises:
            JournalError: a fresh one cannot be made either, or the file is of a newer format.
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
        the process, and of the machine except for the last moments. An event whose version was
        written before is a replay and changes nothing.

        Raises:
            JournalError: nothing was written, for instance because the disk is full; try again.
        """
        if not events and not checkpoints:
            return
        with self._file.transaction(durable=bool(events)) as db:
            rows = EventRows(db, path=self.path, now_s=self._now_s(), max_bytes=self._max_bytes)
            for event in events:
                rows.report(event)
            if checkpoints:
                db.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", checkpoints.items()
                )
        if events:
            self._announce()

    @contextmanager
    def edit(self) -> Iterator[EventRows]:
        """Change events in one transaction, which is undone if the block raises.

        On disk (fsync) at the end. No other thread or process writes meanwhile: be quick.

        Raises:
            JournalError: nothing was written.
        """
        with self._file.transaction(durable=True) as db:
            yield EventRows(db, path=self.path, now_s=self._now_s(), max_bytes=self._max_bytes)
        self._announce()

    def confirm(
        self, shipped: Mapping[str, int], latency_ms: Mapping[str, float] | None = None
    ) -> None:
        """Mark events as stored. What has changed since then waits to be stored again.

        Args:
            shipped: for each event id, the `seq` that the store has answered for.
            latency_ms: capture-to-store latencies by event id, kept in case it is stored again.
        """
        measured = latency_ms or {}
        with self._file.transaction(durable=False) as db:
            db.executemany(
                "UPDATE events SET shipped_seq = MAX(shipped_seq, ?), was_shipped = 1, "
                "latency_ms = IFNULL(latency_ms, ?) WHERE event_id = ?",
                [(seq, measured.get(event_id), event_id) for event_id, seq in shipped.items()],
            )

    def reship(self, max_age_s: float | None = None) -> int:
        """Let stored events wait to be stored again, as after the loss of a store's data.

        Args:
            max_age_s: only events that changed at most this many seconds ago; None takes all.

        Returns:
            How many stored events wait again.
        """
        now_s = self._now_s()
        since_s = 0.0 if max_age_s is None else now_s - max_age_s
        with self._file.transaction(durable=False) as db:
            count = db.execute(
                "UPDATE events SET shipped_seq = 0, waiting_since_s = ? "
                "WHERE is_readable AND NOT is_pending AND changed_s >= ?",
                (now_s, since_s),
            ).rowcount
        if count:
            self._announce()
        return count

    def prune(self, retain_s: float) -> int:
        """Remove stored events that last changed over `retain_s` seconds ago; returns how many.

        Open events stay: their next versions build on them.
        """
        with self._file.transaction(durable=False) as db:
            return db.execute(
                "DELETE FROM events WHERE NOT is_pending AND NOT (is_open AND is_readable) "
                "AND changed_s < ?",
                (self._now_s() - retain_s,),
            ).rowcount

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small text, such as the identity of the store that events were shipped to."""
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
        """The events that wait to be stored, at most `limit`, in order of their last change."""
        found = self._read(
            "seq, was_shipped, opened_ms, latency_ms",
            "is_readable AND shipped_seq < seq ORDER BY seq LIMIT ?",
            (limit,),
        )
        return [
            Entry(seq, event, None if was_shipped else _moment(opened_ms), latency_ms)
            for event, (seq, was_shipped, opened_ms, latency_ms) in found
        ]

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

        Raises:
            JournalError: the file cannot be read.
        """
        after = cursor.seq if cursor is not None and cursor.journal_id == self.journal_id else 0
        column = "rule_seq" if by_rules else "seq"
        where = ""
        values: tuple[object, ...] = ()
        if camera_id is not None:
            where, values = "camera_id = ? AND ", (camera_id,)
        found = self._read(
            column,
            f"{where}{column} > ? AND is_readable ORDER BY {column} LIMIT ?",
            (*values, after, limit),
        )
        changes = tuple(EventChange(seq, event) for event, (seq,) in found)
        return ChangeBatch(self.journal_id, changes, changes[-1].seq if changes else after)

    def latest(self, event_id: str) -> Event | None:
        """An event as it is now; None when the journal does not hold it."""
        found = self._read("seq", "event_id = ? AND is_readable", (event_id,))
        return found[0][0] if found else None

    def annotations(self, event_id: str) -> Annotations | None:
        """An event's annotations; None when the journal does not hold it."""
        row = self._file.one(
            "SELECT annotations FROM events WHERE event_id = ? AND is_readable", (event_id,)
        )
        return None if row is None else Annotations.model_validate_json(row[0])

    def without_video(
        self, after_seq: int = 0, *, limit: int, unchanged_s: float = 0.0
    ) -> list[EventChange]:
        """Closed events that lack video for no reason that is known, in order of their last change.

        These are events for which video was requested that no file covers, and events whose rule
        keeps video of which none was ever requested.

        Args:
            after_seq: only events whose last change has a higher sequence number; 0 takes all.
            limit: at most this many.
            unchanged_s: only events that have not changed for so many seconds.
        """
        found = self._read(
            "seq",
            "lacks_video AND is_readable AND seq > ? AND changed_s <= ? ORDER BY seq LIMIT ?",
            (after_seq, self._now_s() - unchanged_s, limit),
        )
        return [EventChange(seq, event) for event, (seq,) in found]

    def backlog(self) -> Backlog:
        """How much waits to be stored, and for how long."""
        with self._file.reading() as db:
            events, size = db.execute("SELECT pending, pending_bytes FROM totals").fetchone()
            (since_s,) = db.execute(
                "SELECT MIN(waiting_since_s) FROM events WHERE is_readable AND shipped_seq < seq"
            ).fetchone()
        age_s = None if since_s is None else max(0.0, self._now_s() - since_s)
        return Backlog(events=events, bytes=size, oldest_s=age_s)

    def drops(self) -> JournalDrops:
        """What had to be dropped so far, by event type."""
        counts: dict[str, dict[str, int]] = {"entries": {}, "unreadable": {}}
        for what, kind, n in self._file.all("SELECT what, type, n FROM drops"):
            counts.setdefault(what, {})[kind] = n
        return JournalDrops(entries=counts["entries"], unreadable=counts["unreadable"])

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until this process changes events after the `seen`-th time, or for `timeout_s`.

        Returns:
            How many times it did so far, to be passed next time.
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

    def _read(
        self, columns: str, where: str, values: tuple[object, ...]
    ) -> list[tuple[Event, tuple[Any, ...]]]:
        """Events, each with further columns; rows that are no valid event are set aside."""
        rows = self._file.all(
            f"SELECT event_id, body, annotations, version, {columns} FROM events WHERE {where}",  # noqa: S608 - the caller's constants
            values,
        )
        found = []
        for event_id, body, noted, version, *rest in rows:
            try:
                event = composed(
                    Event.model_validate_json(body),
                    Annotations.model_validate_json(noted),
                    version=version,
                )
            except ValidationError as error:
                with self._file.transaction(durable=False) as db:
                    set_aside(db, event_id, error, path=self.path)
                continue
            found.append((event, tuple(rest)))
        return found

    def _now_s(self) -> float:
        return self._clock.now().timestamp()

    def _announce(self) -> None:
        with self._more:
            self._commits += 1
            self._more.notify_all()


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
