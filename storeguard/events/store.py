"""The event store on Redis or Valkey.

`EventStore` blocks and serves the shipper, `EventReader` is asyncio and serves the HTTP API. Both
run the operations of `keyspace`, which says how the data lies.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from storeguard.config.addresses import redact
from storeguard.errors import StoreError
from storeguard.events import keyspace
from storeguard.events.event import Event
from storeguard.events.keyspace import Steps, StoredChange, Upserted
from storeguard.events.query import EventQuery, Page, position_of

T = TypeVar("T")

_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_TIMEOUT_S: Final = 5.0
_CHANGES_A_READ: Final = 200
_FIRST_DATE: Final = datetime(1971, 1, 1, tzinfo=UTC)


class EventStore:
    """Blocking client of the event store. Thread-safe; connects when first used.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_s: how long an answer may take.

    Every method raises StoreError when the store is unreachable, slow or refuses.
    """

    def __init__(self, url: str, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> None:
        self._name = redact(url)
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=min(timeout_s, _CONNECT_TIMEOUT_S),
                retry=Retry(NoBackoff(), 0),  # the shipper retries by itself
            )
        except ValueError as error:
            raise StoreError(f"event store {self._name}: not a usable address: {error}") from None

    def upsert(self, events: Sequence[tuple[Event, float | None]]) -> list[Upserted]:
        """Store versions of events, all or none, in order.

        A version that is not newer than what is stored changes nothing.

        Args:
            events: each with its capture-to-store latency in ms, kept from its first storing on.

        Returns:
            What happened to each.
        """
        return self._run(keyspace.upsert(events)) if events else []

    def get(self, event_id: str) -> Event | None:
        """One event; None if there is none."""
        return self._run(keyspace.get(event_id))

    def query(self, question: EventQuery) -> Page:
        """A page of events, newest first."""
        return self._run(keyspace.query(question))

    def count(self) -> int:
        """How many events are stored."""
        return self._run(keyspace.count())

    def changes_after(self, change_id: str, limit: int = _CHANGES_A_READ) -> list[StoredChange]:
        """The changes behind one (``0-0``: all that are kept), oldest first."""
        return self._run(keyspace.changes_after(change_id, limit))

    def identity(self) -> str:
        """Names the server's run and the data's life. Another one than before means that the
        server was restarted or its data replaced: what was stored may be gone.
        """
        run_id, epoch = self._run(keyspace.identity())
        if epoch is None:
            self._run(keyspace.begin_epoch(uuid.uuid4().hex))
            run_id, epoch = self._run(keyspace.identity())
        return f"{run_id}/{epoch}"

    def trim(self, *, before: datetime | None = None, max_events: int | None = None) -> int:
        """Remove events that started before a moment, and the oldest past a number.

        Events marked `keep` stay, and `before` spares those dated before 1971: they come from
        files played at full pace, where times are positions in the file and no ages.

        Returns:
            How many were removed.
        """
        removed = 0
        if before is not None:
            removed += self._remove(before=before, at_most=None)
        if max_events is not None:
            removed += self._remove(before=None, at_most=max(0, self.count() - max_events))
        return removed

    def ping(self) -> None:
        """Return if the store answers."""
        self._run(keyspace.ping())

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _remove(self, *, before: datetime | None, at_most: int | None) -> int:
        removed = 0
        after = "" if before is None else position_of(_FIRST_DATE, "")
        while at_most is None or removed < at_most:
            left = 2**31 if at_most is None else at_most - removed
            gone, position = self._run(
                keyspace.remove_oldest(after=after, before=before, at_most=left)
            )
            removed += gone
            if position is None:
                break
            after = position
        return removed

    def _run(self, steps: Steps[T]) -> T:
        answers: Any = None
        try:
            while True:
                pipeline = self._redis.pipeline(transaction=False)
                for command in steps.send(answers):
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                answers = pipeline.execute()
        except StopIteration as done:
            result: T = done.value
            return result
        except (redis.RedisError, OSError) as error:
            raise _store_error(self._name, error) from error


class EventReader:
    """Asyncio client of the event store, for the HTTP API. Belongs to one event loop.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_s: how long an answer may take.
        poll_s: how often the change stream is looked at.

    Every method raises StoreError when the store is unreachable, slow or refuses.
    """

    def __init__(
        self, url: str, *, timeout_s: float = _ANSWER_TIMEOUT_S, poll_s: float = 0.2
    ) -> None:
        self._name = redact(url)
        self._poll_s = poll_s
        try:
            self._redis = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=min(timeout_s, _CONNECT_TIMEOUT_S),
                # One more try: a pooled connection may date from before the store's restart.
                retry=AsyncRetry(ConstantBackoff(0.05), 1),
            )
        except ValueError as error:
            raise StoreError(f"event store {self._name}: not a usable address: {error}") from None

    async def get(self, event_id: str) -> Event | None:
        """One event; None if there is none."""
        return await self._run(keyspace.get(event_id))

    async def query(self, question: EventQuery) -> Page:
        """A page of events, newest first."""
        return await self._run(keyspace.query(question))

    async def count(self) -> int:
        """How many events are stored."""
        return await self._run(keyspace.count())

    async def changes(
        self, after: str | None = None, *, idle_s: float = 15.0
    ) -> AsyncIterator[StoredChange | None]:
        """Changes as they are stored, without end. First None, once it is settled where they begin:
        whatever is stored after that is among them.

        Args:
            after: id of the last change the caller knows. None begins with what comes next. An id
                the store never gave out, as after the loss of its data, begins with the oldest.
            idle_s: yields None when nothing has changed for this long.
        """
        newest = await self._run(keyspace.last_change())
        position = newest if after is None else after
        if _stream_id(position) > _stream_id(newest):
            position = "0-0"
        yield None
        idle = 0.0
        while True:
            changes = await self._run(keyspace.changes_after(position, _CHANGES_A_READ))
            for change in changes:
                yield change
                position = change.id
            if changes:
                idle = 0.0
                continue
            if idle >= idle_s:
                yield None
                idle = 0.0
            await asyncio.sleep(self._poll_s)
            idle += self._poll_s

    async def missed_changes(self, after: str) -> bool:
        """Whether changes behind `after` are no longer kept, so that a reader has to start anew."""
        oldest = await self._run(keyspace.first_change())
        newest = await self._run(keyspace.last_change())
        return not _stream_id(oldest) <= _stream_id(after) <= _stream_id(newest)

    async def ping(self) -> None:
        """Return if the store answers."""
        await self._run(keyspace.ping())

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        answers: Any = None
        try:
            while True:
                pipeline = self._redis.pipeline(transaction=False)
                for command in steps.send(answers):
                    pipeline.execute_command(*command)
                answers = await pipeline.execute()
        except StopIteration as done:
            result: T = done.value
            return result
        except (redis.RedisError, OSError) as error:
            raise _store_error(self._name, error) from error


def _stream_id(text: str) -> tuple[int, int]:
    head, _, tail = text.partition("-")
    return int(head), int(tail or 0)


def _store_error(name: str, error: Exception) -> StoreError:
    return StoreError(f"event store {name}: {redact(str(error)) or type(error).__name__}")
