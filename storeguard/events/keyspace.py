"""How events lie in Redis: keys, the upsert script, and every operation as steps without I/O.

An operation is a generator that yields lists of commands and receives their answers, so that the
blocking client of the shipper and the asyncio client of the HTTP API run the same code.

All keys carry one hash tag and so live in one slot of a Redis Cluster. Indexes are sorted sets
whose members are positions (see `query.position_of`) with score 0, in lexical order:

    storeguard:{events}:event:<id>       hash: body (JSON), version, position, latency
    storeguard:{events}:by:all           every event
    storeguard:{events}:by:camera:<id>   and so on for store, zone, person, type, status
    storeguard:{events}:changes          stream of all changes, capped
    storeguard:{events}:epoch            names one life of the data: gone when the data is
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from storeguard.events.event import Event, EventStatus
from storeguard.events.query import (
    EventQuery,
    Page,
    cursor_of,
    milliseconds,
    position_from,
    position_of,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")
Command = tuple[str | bytes | int | float, ...]
Steps = Generator[list[Command], list[Any], T]

PREFIX: Final = "storeguard:{events}:"
CHANGES: Final = f"{PREFIX}changes"
EPOCH: Final = f"{PREFIX}epoch"
ALL: Final = f"{PREFIX}by:all"
CHANGES_KEPT: Final = 10_000
_SCAN: Final = 500
_MAX_SCANNED: Final = 20_000


class Upserted(StrEnum):
    """What storing one version of an event did."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class StoredChange:
    """One entry of the change stream.

    Attributes:
        id: the stream's id of it; ask for what comes after it.
        event: the event as it was stored then.
    """

    id: str
    event: Event


# One call stores a whole batch: Redis runs it as one, so either all of it is there or (when
# writes are refused) nothing, and the order of the change stream is the order of the batch.
# KEYS: changes, all; then per event its hash, its fixed indexes, the open and the closed index.
# ARGV: kept changes; then per event the number of fixed indexes, version, position, status, body,
# latency ("" for none).
UPSERT: Final = """
local out, k, a = {}, 3, 2
while a <= #ARGV do
  local n = tonumber(ARGV[a])
  local version, position, status = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local body, latency = ARGV[a + 4], ARGV[a + 5]
  local event = KEYS[k]
  local open, closed = KEYS[k + n + 1], KEYS[k + n + 2]
  local known = redis.call('HGET', event, 'version')
  if known and tonumber(known) >= tonumber(version) then
    out[#out + 1] = 'unchanged'
  else
    if known then position = redis.call('HGET', event, 'position') end
    redis.call('HSET', event, 'version', version, 'position', position, 'body', body)
    if not known then
      if latency ~= '' then redis.call('HSET', event, 'latency', latency) end
      redis.call('ZADD', KEYS[2], 0, position)
      for i = 1, n do redis.call('ZADD', KEYS[k + i], 0, position) end
    end
    if status == 'open' then
      redis.call('ZADD', open, 0, position)
      redis.call('ZREM', closed, position)
    else
      redis.call('ZADD', closed, 0, position)
      redis.call('ZREM', open, position)
    end
    local entry = {'body', body}
    latency = redis.call('HGET', event, 'latency')
    if latency then entry[3], entry[4] = 'latency', latency end
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
    out[#out + 1] = known and 'updated' or 'created'
  end
  k, a = k + n + 3, a + 6
end
return out
"""


def event_key(event_id: str) -> str:
    """The hash of one event."""
    return f"{PREFIX}event:{event_id}"


def index_key(field: str, value: str) -> str:
    """The sorted set of events whose `field` has that value."""
    return f"{PREFIX}by:{field}:{value}"


def _fixed_indexes(event: Event) -> list[str]:
    values = {
        "store": event.store_id,
        "camera": event.camera_id,
        "zone": event.zone_id,
        "person": event.person_id,
        "type": event.type.value,
    }
    return [index_key(field, value) for field, value in values.items() if value is not None]


def upsert(events: Sequence[tuple[Event, float | None]]) -> Steps[list[Upserted]]:
    """Store versions of events, each with its capture-to-store latency in ms (or None)."""
    keys: list[str] = [CHANGES, ALL]
    values: list[str | bytes | int | float] = [CHANGES_KEPT]
    for event, latency_ms in events:
        indexes = _fixed_indexes(event)
        keys += [event_key(event.event_id), *indexes]
        keys += [index_key("status", status.value) for status in EventStatus]
        values += [len(indexes), event.version, position_of(event.started_at, event.event_id)]
        values += [event.status.value, event.model_dump_json(exclude_none=True)]
        values += ["" if latency_ms is None else f"{latency_ms:.3f}"]
    (answer,) = yield [("EVAL", UPSERT, len(keys), *keys, *values)]
    return [Upserted(outcome.decode()) for outcome in answer]


def get(event_id: str) -> Steps[Event | None]:
    """One event by its id; None if there is none."""
    (fields,) = yield [("HMGET", event_key(event_id), "body", "latency")]
    return _event(*fields)


def query(question: EventQuery) -> Steps[Page]:
    """One page: walks the smallest index that covers the question, and filters by the rest."""
    lower, upper = _span(question)
    indexes = _indexes_of(question)
    index = indexes[0]
    if len(indexes) > 1:
        sizes = yield [("ZLEXCOUNT", key, lower, upper) for key in indexes]
        index = indexes[sizes.index(min(sizes))]

    found: list[Event] = []
    scanned = 0
    chunk = question.limit + 1 if len(indexes) <= 1 else max(question.limit + 1, _SCAN)
    while True:
        (members,) = yield [("ZREVRANGEBYLEX", index, upper, lower, "LIMIT", 0, chunk)]
        positions: list[str] = [member.decode() for member in members]
        if not positions:
            return Page(tuple(found), None)
        rows = yield [("HMGET", _key_at(position), "body", "latency") for position in positions]
        for position, fields in zip(positions, rows, strict=True):
            if len(found) == question.limit:
                # `upper` is the last position looked at: the next page goes on behind it.
                return Page(tuple(found), cursor_of(upper[1:]))
            event = _event(*fields)
            if event is not None and question.admits(event):
                found.append(event)
            upper = f"({position}"
        scanned += len(positions)
        if len(positions) < chunk:
            return Page(tuple(found), None)
        if scanned >= _MAX_SCANNED:
            return Page(tuple(found), cursor_of(positions[-1]))
        chunk = max(chunk, _SCAN)


def _span(question: EventQuery) -> tuple[str, str]:
    """The positions asked for, as bounds of a lexical range."""
    upper = "+" if question.end is None else f"({milliseconds(question.end):015d}:"
    if question.cursor is not None:
        behind = f"({position_from(question.cursor)}"
        upper = behind if upper == "+" else min(upper, behind)
    return "-" if question.start is None else f"[{milliseconds(question.start):015d}:", upper


def _indexes_of(question: EventQuery) -> list[str]:
    """The indexes any of which holds all events asked for."""
    named = {
        "store": question.store,
        "camera": question.camera,
        "zone": question.zone,
        "person": question.person,
        "type": question.type,
        "status": question.status,
    }
    found = [index_key(field, str(value)) for field, value in named.items() if value is not None]
    return found or [ALL]


def changes_after(change_id: str, limit: int) -> Steps[list[StoredChange]]:
    """The changes behind one, oldest first, at most `limit`."""
    (rows,) = yield [("XRANGE", CHANGES, f"({change_id}", "+", "COUNT", limit)]
    return _changes(rows)


def last_change() -> Steps[str]:
    """The id of the newest change; ``0-0`` when there was none."""
    (rows,) = yield [("XREVRANGE", CHANGES, "+", "-", "COUNT", 1)]
    return rows[0][0].decode() if rows else "0-0"


def first_change() -> Steps[str]:
    """The id of the oldest change still kept; ``0-0`` when there is none."""
    (rows,) = yield [("XRANGE", CHANGES, "-", "+", "COUNT", 1)]
    return rows[0][0].decode() if rows else "0-0"


def identity() -> Steps[tuple[str, str | None]]:
    """(the server's run id, the data's epoch): different ones mean a restart or other data."""
    info, epoch = yield [("INFO", "server"), ("GET", EPOCH)]
    run_id = info.get("run_id", "") if isinstance(info, dict) else _run_id(info)
    return str(run_id), None if epoch is None else epoch.decode()


def begin_epoch(epoch: str) -> Steps[None]:
    """Name the data's life, unless somebody else already has."""
    yield [("SET", EPOCH, epoch, "NX")]


def count() -> Steps[int]:
    """How many events there are."""
    (events,) = yield [("ZCARD", ALL)]
    return int(events)


def remove_oldest(
    *, after: str, before: datetime | None, at_most: int
) -> Steps[tuple[int, str | None]]:
    """Remove some of the oldest events, but for those marked `keep`.

    Args:
        after: position to go on from, ``""`` at first.
        before: only events that started earlier; None for no such bound.
        at_most: look at no more than this many.

    Returns:
        How many were removed, and the position to go on from; None when there are no more.
    """
    lower = f"({after}" if after else "-"
    upper = "+" if before is None else f"({milliseconds(before):015d}:"
    (members,) = yield [("ZRANGEBYLEX", ALL, lower, upper, "LIMIT", 0, min(at_most, _SCAN))]
    positions: list[str] = [member.decode() for member in members]
    if not positions:
        return 0, None
    rows = yield [("HMGET", _key_at(position), "body", "latency") for position in positions]
    removals: list[Command] = []
    removed = 0
    for position, fields in zip(positions, rows, strict=True):
        event = _event(*fields)
        if event is not None and event.keep:
            continue
        removed += 1
        if event is not None:
            keys = _fixed_indexes(event)
            keys += [index_key("status", status.value) for status in EventStatus]
            removals += [("ZREM", key, position) for key in keys]
        # In this order a removal that breaks off halfway is finished by the next one.
        removals += [("DEL", _key_at(position)), ("ZREM", ALL, position)]
    if removals:
        yield removals
    return removed, positions[-1]


def ping() -> Steps[None]:
    """Ask for nothing but an answer."""
    yield [("PING",)]


def _key_at(position: str) -> str:
    return event_key(position.split(":", 1)[1])


def _event(body: bytes | None, latency: bytes | None) -> Event | None:
    if body is None:
        return None
    try:
        event = Event.model_validate_json(body)
    except ValidationError as error:  # one bad record must not hide all others
        _log.error("event store: skipped a record that is no valid event: %s", error)
        return None
    if latency is None or event.latency_ms.capture_to_store is not None:
        return event
    measured = event.latency_ms.model_copy(update={"capture_to_store": float(latency)})
    return event.model_copy(update={"latency_ms": measured})


def _changes(rows: Sequence[Any]) -> list[StoredChange]:
    changes = []
    for change_id, flat in rows:
        fields = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        event = _event(fields.get(b"body"), fields.get(b"latency"))
        if event is not None:
            changes.append(StoredChange(change_id.decode(), event))
    return changes


def _run_id(info: bytes | str) -> str:
    text = info.decode() if isinstance(info, bytes) else str(info)
    for line in text.splitlines():
        if line.startswith("run_id:"):
            return line.removeprefix("run_id:").strip()
    return ""
