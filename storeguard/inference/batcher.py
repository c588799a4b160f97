"""Batching across cameras: fair, bounded, and on a monotonic clock.

Why not `ray.serve.batch`: it waits on the wall clock, has no bound, and serves callers in order
of arrival. Here each camera has its own lane and lanes are served in turn, so a camera that sends
ten frames a second does not delay one that sends one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from storeguard.errors import OverloadedError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Batched(Generic[R]):
    """One result and its batch.

    Attributes:
        value: the result.
        queued_ms: time from `submit` to the batch's start.
        batch_size: how many items shared the batch.
    """

    value: R
    queued_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """Counts since the start.

    Every submitted item ends as answered, refused, failed or abandoned.

    Attributes:
        submitted: items received.
        answered: items whose result was returned.
        refused: items dropped because the queue was full, or received after `close`.
        failed: items whose batch failed.
        batches: batches run.
        waiting: items in the queue now, without those of running batches.
        abandoned: items whose caller cancelled before their batch began.
    """

    submitted: int
    answered: int
    refused: int
    failed: int
    batches: int
    waiting: int
    abandoned: int = 0


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T, R]):
    item: T
    since_s: float
    answer: asyncio.Future[Batched[R]] = field(repr=False)


class Batcher(Generic[T, R]):
    """Gathers items from many lanes into batches for one function.

    A batch starts when `max_batch` items wait, or when the oldest has waited `max_wait_s`, as soon
    as one of `concurrency` runners is free. Past `max_queue` waiting items, the oldest item of the
    lane with the most waiting is refused with `OverloadedError`.

    Args:
        run: called in `executor` with a list of items; returns one result an item, in order.
        executor: where `run` runs.
        max_batch, max_wait_s, max_queue, concurrency: see above.
        monotonic: a clock in seconds.
    """

    def __init__(
        self,
        run: Callable[[list[T]], Sequence[R]],
        executor: Executor,
        *,
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        concurrency: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._max_queue = max_queue
        self._idle = asyncio.Semaphore(concurrency)
        self._monotonic = monotonic
        self._lanes: OrderedDict[str, deque[_Waiting[T, R]]] = OrderedDict()
        self._num_waiting = 0
        self._changed = asyncio.Event()
        self._gatherer: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._submitted = self._answered = self._refused = self._failed = self._batches = 0
        self._abandoned = 0
        self._closed = False

    async def submit(self, lane: str, item: T) -> Batched[R]:
        """Queue one item and wait for its result.

        Raises:
            OverloadedError: the queue was full and this item was refused, or the batcher is closed.
        """
        if self._closed:
            self._submitted += 1
            self._refused += 1
            raise OverloadedError(f"camera {lane!r}: refused, the detector has stopped")
        if self._gatherer is None:
            self._gatherer = asyncio.create_task(self._gather(), name="batcher")
        waiting = _Waiting[T, R](item, self._monotonic(), asyncio.Future())
        self._lanes.setdefault(lane, deque()).append(waiting)
        self._num_waiting += 1
        self._submitted += 1
        if self._num_waiting > self._max_queue:
            self._refuse_one(f"{self._max_queue} frames are waiting already")
        self._changed.set()
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._abandon(lane, waiting)
            raise

    def stats(self) -> BatcherStats:
        """Counts since the start."""
        return BatcherStats(
            submitted=self._submitted,
            answered=self._answered,
            refused=self._refused,
            failed=self._failed,
            batches=self._batches,
            waiting=self._num_waiting,
            abandoned=self._abandoned,
        )

    async def close(self, deadline_s: float = 5.0) -> None:
        """Stop gathering. Waiting items are refused; so are items whose batch is still running at
        the deadline.
        """
        self._closed = True
        while self._num_waiting:
            self._refuse_one("the detector has stopped")
        if self._gatherer is not None:
            self._gatherer.cancel()
            await asyncio.gather(self._gatherer, return_exceptions=True)
        if self._running:
            _, hung = await asyncio.wait(self._running, timeout=deadline_s)
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)

    def _refuse_one(self, why: str) -> None:
        lane = max(self._lanes, key=lambda name: len(self._lanes[name]))
        waiting = self._lanes[lane].popleft()
        self._forget_if_empty(lane)
        self._num_waiting -= 1
        if waiting.answer.done():
            self._abandoned += 1
            return
        self._refused += 1
        waiting.answer.set_exception(OverloadedError(f"camera {lane!r}: refused, {why}"))

    def _abandon(self, lane: str, waiting: _Waiting[T, R]) -> None:
        """Drop an item whose caller cancelled, if it still waits."""
        if waiting in self._lanes.get(lane, ()):
            self._lanes[lane].remove(waiting)
            self._forget_if_empty(lane)
            self._num_waiting -= 1
            self._abandoned += 1

    async def _gather(self) -> None:
        while True:
            await self._idle.acquire()
            try:
                await self._until_due()
                batch = self._take()
            except BaseException:
                self._idle.release()
                raise
            task = asyncio.create_task(self._answer(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _until_due(self) -> None:
        """Return once a batch is full or the oldest waiting item is due."""
        while True:
            self._changed.clear()
            if self._num_waiting >= self._max_batch:
                return
            timeout_s = None
            if self._num_waiting:
                oldest = min(lane[0].since_s for lane in self._lanes.values())
                timeout_s = oldest + self._max_wait_s - self._monotonic()
                if timeout_s <= 0:
                    return
            try:
                await asyncio.wait_for(self._changed.wait(), timeout_s)
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[T, R]]:
        """Up to a batch of items, one lane after the other; a lane served becomes the last."""
        batch: list[_Waiting[T, R]] = []
        while self._lanes and len(batch) < self._max_batch:
            name, lane = next(iter(self._lanes.items()))
            waiting = lane.popleft()
            self._lanes.move_to_end(name)
            self._forget_if_empty(name)
            self._num_waiting -= 1
            if waiting.answer.done():  # its caller has cancelled
                self._abandoned += 1
            else:
                batch.append(waiting)
        return batch

    def _forget_if_empty(self, name: str) -> None:
        if not self._lanes[name]:
            del self._lanes[name]

    async def _answer(self, batch: list[_Waiting[T, R]]) -> None:
        started = self._monotonic()
        try:
            if not batch:
                return
            loop = asyncio.get_running_loop()
            values = await loop.run_in_executor(
                self._executor, self._run, [waiting.item for waiting in batch]
            )
            if len(values) != len(batch):
                raise ValueError(f"expected {len(batch)} results, got {len(values)}")  # noqa: TRY301
            for waiting, value in zip(batch, values, strict=True):
                if not waiting.answer.done():
                    queued_ms = (started - waiting.since_s) * 1e3
                    waiting.answer.set_result(Batched(value, queued_ms, len(batch)))
            self._answered += len(batch)
        except asyncio.CancelledError:
            self._fail(batch, OverloadedError("no result: the detector was stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - every error is for the callers
            self._fail(batch, error)
        finally:
            self._batches += bool(batch)
            self._idle.release()

    def _fail(self, batch: list[_Waiting[T, R]], error: Exception) -> None:
        self._failed += len(batch)
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
