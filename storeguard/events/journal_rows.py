"""The journal's table of events: one row an event, written inside one transaction.

A row holds the event's body as the rules last gave it and its annotations. Each change gives it the
next sequence number and the next version; what has a higher sequence number than was last shipped
waits to be stored.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from storeguard.events.annotations import Annotations, composed, continued, separated
from storeguard.events.clip import lacks_video
from storeguard.events.event import Event, EventStatus
from storeguard.events.query import milliseconds

_log = logging.getLogger(__name__)

_ROW_BYTES: Final = 256  # what SQLite and the indexes need for a row besides body and annotations
_EVICT_TO: Final = 0.95  # make room in steps, not for every single event
_EVICT_ROWS: Final = 256
_EVICT_FIRST: Final = tuple(
    f"SELECT event_id, type, bytes, is_pending FROM events WHERE {rows} "  # noqa: S608 - constants
    "AND event_id <> ? ORDER BY seq LIMIT ?"
    for rows in ("NOT is_pending AND NOT is_open", "NOT is_pending", "is_pending")
)


class EventRows:
    """Reads and writes rows within one write transaction of the journal.

    Args:
        db: the connection, in a transaction.
        path: the journal's, for messages.
        now_s: Unix time.
        max_bytes: bound of all rows together.
    """

    def __init__(self, db: sqlite3.Connection, *, path: Path, now_s: float, max_bytes: int) -> None:
        self._db = db
        self._path = path
        self._now_s = now_s
        self._max_bytes = max_bytes

    def report(self, event: Event) -> bool:
        """Write an event's next version, as a rule or a recording command gives it.

        Returns:
            Whether anything changed: a version that was written before is a replay.
        """
        row = self._db.execute(
            "SELECT rule_version, version FROM events WHERE event_id = ?", (event.event_id,)
        ).fetchone()
        rule_version, served = (0, 0) if row is None else row
        if event.version <= rule_version:
            return False
        body, annotations = separated(event)
        version = max(served + 1, event.version)
        before = self._find(event.event_id)
        if before is None:
            self._insert(body, annotations, version=version, rule_version=event.version)
        else:
            body, kept = continued(before[0], body), before[1]
            self._update(body, kept, version=version, rule_version=event.version)
        return True

    def annotations(self, event_id: str) -> Annotations | None:
        """An event's annotations; None if the journal does not hold it, or not readably."""
        found = self._find(event_id)
        return None if found is None else found[1]

    def annotate(self, event_id: str, annotations: Annotations) -> None:
        """Replace the annotations of an event that the journal holds."""
        found = self._find(event_id)
        if found is None:
            raise KeyError(f"journal {self._path}: expected event {event_id!r}, found none")
        body, before, version = found
        if annotations.model_dump_json() != before.model_dump_json():  # as written, in milliseconds
            self._update(body, annotations, version=version + 1, rule_version=None)

    def restore(self, event: Event) -> None:
        """Take an event back from the event store, which has it as it is."""
        body, annotations = separated(event)
        # Of a closed event no rule reports anything more. Of an open one any version is news: the
        # count of the rules is lower than the version it is served with.
        rule_version = event.version if event.status is EventStatus.CLOSED else 0
        self._insert(
            body, annotations, version=event.version, rule_version=rule_version, restored=True
        )

    # ------------------------------------------------------------------ inside

    def _find(self, event_id: str) -> tuple[Event, Annotations, int] | None:
        row = self._db.execute(
            "SELECT body, annotations, version FROM events WHERE event_id = ? AND is_readable",
            (event_id,),
        ).fetchone()
        if row is None:
            return None
        try:
            return (
                Event.model_validate_json(row[0]),
                Annotations.model_validate_json(row[1]),
                row[2],
            )
        except ValidationError as error:
            set_aside(self._db, event_id, error, path=self._path)
            return None

    def _insert(
        self,
        body: Event,
        annotations: Annotations,
        *,
        version: int,
        rule_version: int,
        restored: bool = False,
    ) -> None:
        seq = next_seq(self._db)
        written, noted = dump(body), dump(annotations)
        # In place of a row that could not be read, if there is one.
        self._db.execute("DELETE FROM events WHERE event_id = ?", (body.event_id,))
        self._db.execute(
            "INSERT INTO events (event_id, camera_id, type, body, rule_version, "
            "annotations, version, seq, rule_seq, opened_seq, shipped_seq, was_shipped, is_open, "
            "lacks_video, opened_ms, changed_s, waiting_since_s, bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                body.event_id,
                body.camera_id,
                body.type.value,
                written,
                rule_version,
                noted,
                version,
                seq,
                0 if restored else seq,  # no rule has just changed it
                seq,
                seq if restored else 0,
                restored,
                body.status is EventStatus.OPEN,
                lacks_video(composed(body, annotations, version=version)),
                milliseconds(body.updated_at),
                self._now_s,
                self._now_s,
                row_bytes(written, noted),
            ),
        )
        self._make_room(body.event_id)

    def _update(
        self, body: Event, annotations: Annotations, *, version: int, rule_version: int | None
    ) -> None:
        seq = next_seq(self._db)
        written, noted = dump(body), dump(annotations)
        self._db.execute(
            "UPDATE events SET body = ?, annotations = ?, version = ?, seq = ?, "
            "rule_version = IFNULL(?, rule_version), rule_seq = IFNULL(?, rule_seq), is_open = ?, "
            "lacks_video = ?, changed_s = ?, "
            "waiting_since_s = IIF(is_pending, waiting_since_s, ?), bytes = ? WHERE event_id = ?",
            (
                written,
                noted,
                version,
                seq,
                rule_version,
                None if rule_version is None else seq,
                body.status is EventStatus.OPEN,
                lacks_video(composed(body, annotations, version=version)),
                self._now_s,
                self._now_s,
                row_bytes(written, noted),
                body.event_id,
            ),
        )
        self._make_room(body.event_id)

    def _make_room(self, event_id: str) -> None:
        """Evict other events while the rows exceed the bound."""
        (held,) = self._db.execute("SELECT bytes FROM totals").fetchone()
        if held <= self._max_bytes:
            return
        excess = held - int(self._max_bytes * _EVICT_TO)
        lost: Counter[str] = Counter()
        for oldest in _EVICT_FIRST:
            while excess > 0:
                rows = self._db.execute(oldest, (event_id, _EVICT_ROWS)).fetchall()
                if not rows:
                    break
                for evicted_id, kind, size, is_pending in rows:
                    self._db.execute("DELETE FROM events WHERE event_id = ?", (evicted_id,))
                    lost[kind] += is_pending
                    excess -= size
                    if excess <= 0:
                        break
        self._report_lost(+lost)

    def _report_lost(self, lost: Counter[str]) -> None:
        if not lost:
            return
        for kind, n in lost.items():
            count_drops(self._db, "entries", kind, n)
        named = ", ".join(f"{n} {kind}" for kind, n in sorted(lost.items()))
        _log.critical(
            "journal %s is full (%d bytes) and the event store takes no events: LOST the oldest "
            "events: %s",
            self._path,
            self._max_bytes,
            named,
        )


def set_aside(db: sqlite3.Connection, event_id: str, error: ValidationError, *, path: Path) -> None:
    """Mark a row that is no valid event: it is neither shipped nor returned any more."""
    changed = db.execute(
        "UPDATE events SET is_readable = 0 WHERE event_id = ? AND is_readable RETURNING type",
        (event_id,),
    ).fetchone()
    if changed is None:  # another reader has done it
        return
    count_drops(db, "unreadable", changed[0], 1)
    _log.critical("journal %s: event %s is no valid event, set aside: %s", path, event_id, error)


def count_drops(db: sqlite3.Connection, what: str, kind: str, n: int) -> None:
    """Add to the count of dropped events of one type."""
    db.execute(
        "INSERT INTO drops VALUES (?, ?, ?) ON CONFLICT (what, type) DO UPDATE SET n = n + ?",
        (what, kind, n, n),
    )


def next_seq(db: sqlite3.Connection) -> int:
    """The next sequence number; never given twice."""
    row = db.execute("UPDATE totals SET last_seq = last_seq + 1 RETURNING last_seq").fetchone()
    return int(row[0])


def dump(record: Event | Annotations) -> bytes:
    """A record as it is written."""
    return record.model_dump_json(exclude_none=True).encode()


def row_bytes(body: bytes, annotations: bytes) -> int:
    """About what a row takes on disk."""
    return len(body) + len(annotations) + _ROW_BYTES
