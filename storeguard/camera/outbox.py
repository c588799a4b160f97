"""Observations on their way to the rules: kept until acknowledged, bounded, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict

_log = logging.getLogger(__name__)

ObserveCall = Callable[[Sequence[Observation], Sequence[Heartbeat]], Awaitable[Sequence[Verdict]]]


class Outbox:
    """Sends observations in batches, and each batch again until the rules have answered.

    With each batch, and once a second without, go the cameras' heartbeats, which request what has
    changed. The rules know a replayed observation by its (camera, epoch, seq), so sending twice
    does no harm. Past `limit` the oldest observations are dropped and counted.

    Args:
        observe: delivers a batch; raises if the rules could not be reached.
        on_verdict: called with each verdict that comes back.
        heartbeats: the cameras' heartbeats as of now.
        answer_s: an answer that takes longer is given up, and the batch sent again.
        heartbeat_s: how long to wait for observations before heartbeats go alone.
        limit: most observations kept; one more while as many are being sent.
        linger_s: wait this long for more before sending.
        retry_s: waits after failures, one after the other; the last one stays.
    """

    MAX_BATCH = 256

    def __init__(
        self,
        observe: ObserveCall,
        on_verdict: Callable[[Verdict], None],
        *,
        heartbeats: Callable[[], Sequence[Heartbeat]] = tuple,
        answer_s: float = 10.0,
        heartbeat_s: float = 1.0,
        limit: int = 4096,
        linger_s: float = 0.02,
        retry_s: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0),
    ) -> None:
        self._observe = observe
        self._on_verdict = on_verdict
        self._heartbeats = heartbeats
        self._answer_s = answer_s
        self._heartbeat_s = heartbeat_s
        self._limit = limit
        self._linger_s = linger_s
        self._retry_s = tuple(retry_s)
        self._waiting: deque[Observation] = deque()
        self._sending: tuple[Observation, ...] = ()
        self._ready = asyncio.Event()
        self._answered = asyncio.Condition()
        self._num_sent = self._num_answered = 0
        self.dropped = 0
        self.failures = 0

    def put(self, observation: Observation) -> None:
        """Queue one observation; drops the oldest one past the limit."""
        # What is being sent right now stays: the rules may have taken it already.
        if self._waiting and len(self._waiting) + len(self._sending) >= self._limit:
            self._drop_oldest()
        self._waiting.append(observation)
        self._ready.set()

    async def run(self) -> None:
        """Deliver for ever; cancel to stop."""
        attempt = 0
        while True:
            if not self._waiting and not attempt:
                await self._wait()
            if await self._deliver():
                attempt = 0
            else:
                await asyncio.sleep(self._retry_s[min(attempt, len(self._retry_s) - 1)])
                attempt += 1

    async def flush(self, deadline_s: float) -> bool:
        """Wait until all is delivered and the rules have answered a call that began after this one.

        Returns:
            False if that was not within the deadline.
        """
        call = self._num_sent + 1
        self._ready.set()

        def is_answered() -> bool:
            return self._num_answered >= call and not (self._waiting or self._sending)

        try:
            async with asyncio.timeout(deadline_s), self._answered:
                await self._answered.wait_for(is_answered)
        except TimeoutError:
            return False
        return True

    async def _wait(self) -> None:
        """Wait for observations, a flush, or the time of the next heartbeats."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._ready.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._linger_s)

    async def _deliver(self) -> bool:
        """Send one batch, which may be empty; False if it has to be sent again."""
        self._ready.clear()
        heartbeats = tuple(self._heartbeats())
        size = min(self.MAX_BATCH, len(self._waiting))
        self._sending = tuple(self._waiting.popleft() for _ in range(size))
        self._num_sent += 1
        if not size and not heartbeats:
            await self._acknowledge()
            return True
        try:
            async with asyncio.timeout(self._answer_s):
                verdicts = await self._observe(self._sending, heartbeats)
        except asyncio.CancelledError:
            self._take_back()
            raise
        except Exception as error:  # noqa: BLE001 - an actor's death has many names
            self._take_back()
            self.failures += 1
            _log.warning(
                "the rules cannot be reached, %d observations wait: %s",
                len(self._waiting),
                str(error) or "no answer in time",
            )
            return False
        self._sending = ()
        for verdict in verdicts:
            self._on_verdict(verdict)
        await self._acknowledge()
        return True

    async def _acknowledge(self) -> None:
        async with self._answered:
            self._num_answered = self._num_sent
            self._answered.notify_all()

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed(self._sending))
        self._sending = ()
        while len(self._waiting) > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.dropped += 1
