"""Observations to be delivered to the rules: kept until acknowledged, bounded, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict

_log = logging.getLogger(__name__)

ObserveCall = Callable[[Sequence[Observation]], Awaitable[Sequence[Verdict]]]


class Outbox:
    """Sends observations in batches, and resends them until the rules acknowledge them.

    The rules recognise a replay by its (camera, epoch, seq), so resending does no harm. Past
    `limit` the oldest are dropped and counted.

    Args:
        observe: delivers a batch; raises if the rules could not be reached.
        judged: called with each verdict that is returned.
        answer_s: a call that takes longer is abandoned, and the batch resent. If the receiver
            processed it all the same, it recognises the replay.
        limit: most observations kept; one more while as many are being sent.
        linger_s: wait this long for more before sending.
    """

    MAX_BATCH = 256
    _BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)

    def __init__(
        self,
        observe: ObserveCall,
        judged: Callable[[Verdict], None],
        *,
        answer_s: float = 10.0,
        limit: int = 4096,
        linger_s: float = 0.02,
    ) -> None:
        self._observe = observe
        self._judged = judged
        self._answer_s = answer_s
        self._limit = limit
        self._linger_s = linger_s
        self._waiting: deque[Observation] = deque()
        self._sending: tuple[Observation, ...] = ()
        self._some = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.dropped = 0
        self.failures = 0

    def put(self, observation: Observation) -> None:
        """Queue one observation; drops the oldest one past the limit."""
        # The batch being sent is kept: it may have been processed already.
        if self._waiting and len(self._waiting) + len(self._sending) >= self._limit:
            self._drop_oldest()
        self._waiting.append(observation)
        self._empty.clear()
        self._some.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._linger_s)
            await self._deliver()

    async def flush(self, deadline_s: float) -> bool:
        """Wait until all is delivered; False if it was not within the deadline."""
        try:
            await asyncio.wait_for(self._empty.wait(), deadline_s)
        except TimeoutError:
            return False
        return True

    async def _deliver(self) -> None:
        attempt = 0
        while self._waiting:
            size = min(self.MAX_BATCH, len(self._waiting))
            self._sending = tuple(self._waiting.popleft() for _ in range(size))
            verdicts: Sequence[Verdict] = ()
            try:
                verdicts = await asyncio.wait_for(self._observe(self._sending), self._answer_s)
            except asyncio.CancelledError:
                self._requeue()
                raise
            except Exception as error:  # noqa: BLE001 - an actor's death has many names
                self._requeue()
                self.failures += 1
                _log.warning(
                    "the rules cannot be reached, %d observations wait: %s",
                    len(self._waiting),
                    str(error) or "no answer in time",
                )
                await asyncio.sleep(self._BACKOFF_S[min(attempt, len(self._BACKOFF_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            self._sending = ()
            for verdict in verdicts:
                self._judged(verdict)
        self._some.clear()
        self._empty.set()

    def _requeue(self) -> None:
        self._waiting.extendleft(reversed(self._sending))
        self._sending = ()
        while len(self._waiting) > self._limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self.dropped += 1
