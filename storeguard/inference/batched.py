"""A model that runs in its own thread, behind a batcher that many cameras share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from storeguard.errors import OverloadedError
from storeguard.inference.batcher import Batcher, BatcherStats

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """A batcher's bounds.

    Attributes:
        max_batch: items in one batch.
        max_wait_ms: how long an idle model waits for a fuller batch.
        max_queue: items waiting; past it the oldest of the fullest camera is refused.
    """

    max_batch: int
    max_wait_ms: float
    max_queue: int


class BatchedModel(Generic[T, R]):
    """Runs items in batches across cameras. Lives in one event loop.

    Args:
        run: one batch through the model; called in the thread.
        limits: of the queue.
        name: of the thread.
    """

    def __init__(
        self, run: Callable[[Sequence[T]], Sequence[R]], *, limits: QueueLimits, name: str
    ) -> None:
        self._run = run
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._batcher: Batcher[T, R] = Batcher(
            run,
            self._executor,
            max_batch=limits.max_batch,
            max_wait_s=limits.max_wait_ms / 1e3,
            max_queue=limits.max_queue,
        )

    async def predict(self, camera_id: str, items: Sequence[T]) -> tuple[R | None, ...]:
        """One result an item, in order; None for an item refused because the queue was full."""
        return tuple(await asyncio.gather(*(self._predict(camera_id, item) for item in items)))

    async def check(self, item: T, *, deadline_s: float = 20.0) -> None:
        """Run one item, ahead of the queue.

        Raises:
            TimeoutError: no result within the deadline.
        """
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.run_in_executor(self._executor, self._run, [item]), deadline_s)

    def stats(self) -> BatcherStats:
        """The batcher's counts."""
        return self._batcher.stats()

    async def close(self, deadline_s: float = 5.0) -> None:
        """Refuse the waiting items and stop, at the latest after the deadline."""
        await self._batcher.close(deadline_s)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _predict(self, camera_id: str, item: T) -> R | None:
        try:
            return (await self._batcher.submit(camera_id, item)).value
        except OverloadedError:
            return None
