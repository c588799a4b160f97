"""Queries of the event store, and the pages it returns."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from storeguard.errors import QueryError
from storeguard.events.event import Event, EventStatus, EventType

MAX_LIMIT: Final = 1000
MAX_ID: Final = 256
_MAX_CURSOR: Final = 512
_POSITION: Final = re.compile(r"[0-9]{15}:[^\x00-\x1f]{1,256}")


def position_of(started_at: datetime, event_id: str) -> str:
    """Where an event stands in the order of all events: by start, the id breaking ties.

    Fifteen digits of milliseconds since 1970, a colon, the id. It never changes while the event
    does, which is why paging by it neither skips nor repeats.
    """
    return f"{milliseconds(started_at):015d}:{event_id}"


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970, cut off as the event's JSON does; 0 for anything earlier."""
    whole_s = int(moment.replace(microsecond=0).timestamp())
    return max(0, whole_s * 1000 + moment.microsecond // 1000)


def cursor_of(position: str) -> str:
    """The opaque text that names a position to clients."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def position_from(cursor: str) -> str:
    """The position a cursor names.

    Raises:
        QueryError: this cursor was never part of an answer.
    """
    if len(cursor) <= _MAX_CURSOR:
        padded = cursor + "=" * (-len(cursor) % 4)
        try:
            position = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            position = ""
        if _POSITION.fullmatch(position):
            return position
    raise QueryError(
        f"cursor: expected the 'next_cursor' of an earlier answer, found {cursor[:64]!r}"
    )


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events, newest first. Every filter given must hold; None leaves it out.

    Attributes:
        start, end: aware; events with start <= started_at < end, to the millisecond.
        min_dwell_s: events with a dwell of at least this many seconds; those without one drop out.
        limit: events on a page, 1..1000.
        cursor: `next_cursor` of the page before; None for the first page.

    Raises:
        QueryError: a value is out of range; the message names parameter, value, expectation.
    """

    store: str | None = None
    camera: str | None = None
    zone: str | None = None
    person: str | None = None
    type: EventType | None = None
    status: EventStatus | None = None
    start: datetime | None = None
    end: datetime | None = None
    min_dwell_s: float | None = None
    limit: int = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        for name in ("store", "camera", "zone", "person"):
            value = getattr(self, name)
            if value is not None and not (1 <= len(value) <= MAX_ID and value.isprintable()):
                raise QueryError(
                    f"{name}: expected 1 to {MAX_ID} printable characters, found {value[:64]!r}"
                )
        if not 1 <= self.limit <= MAX_LIMIT:
            raise QueryError(f"limit: expected 1 to {MAX_LIMIT}, found {self.limit}")
        for name in ("start", "end"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise QueryError(
                    f"{name}: expected a time with its zone (such as 2026-01-31T09:30:00Z), "
                    f"found {moment.isoformat()!r}"
                )
        if self.start is not None and self.end is not None and self.start > self.end:
            raise QueryError(
                f"start: expected a time not after end ({self.end.isoformat()}), "
                f"found {self.start.isoformat()!r}"
            )
        if self.min_dwell_s is not None and not 0 <= self.min_dwell_s < float("inf"):
            raise QueryError(f"min_dwell_s: expected seconds >= 0, found {self.min_dwell_s}")
        if self.cursor is not None:
            position_from(self.cursor)

    def admits(self, event: Event) -> bool:
        """Whether every filter but the time span holds for the event."""
        required = (
            (self.store, event.store_id),
            (self.camera, event.camera_id),
            (self.zone, event.zone_id),
            (self.person, event.person_id),
            (self.type, event.type),
            (self.status, event.status),
        )
        if any(value is not None and value != found for value, found in required):
            return False
        return self.min_dwell_s is None or (event.dwell_s or -1.0) >= self.min_dwell_s


@dataclass(frozen=True, slots=True)
class Page:
    """One page of an answer.

    Attributes:
        events: newest first. With rare filters a page may hold fewer than `limit`, even none,
            although more follow: only `next_cursor` shows it.
        next_cursor: where to go on; None when there is nothing further.
    """

    events: tuple[Event, ...]
    next_cursor: str | None
