"""A lease: a detached actor that is no longer renewed ends itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

_STEP_S: Final = 1.0
_log = logging.getLogger(__name__)


class Lease:
    """Runs out when it was not renewed for `lasts_s` seconds of monotonic time.

    Time in which this process stood still does not count: the whole machine, and with it the
    process that renews the lease, may have stood still.

    Args:
        holder: whose lease, for the log.
        lasts_s: seconds between renewals at most.
        expired: awaited once, when it has run out.
    """

    def __init__(
        self, holder: str, *, lasts_s: float, expired: Callable[[], Awaitable[None]]
    ) -> None:
        self._holder = holder
        self._lasts_s = lasts_s
        self._expired = expired
        self._renewed_at = time.monotonic()

    def renew(self) -> None:
        """Start the time again."""
        self._renewed_at = time.monotonic()

    async def watch(self) -> None:
        """Wait until the lease runs out, then call `expired`; cancel to stop watching."""
        while (left := self._renewed_at + self._lasts_s - time.monotonic()) > 0:
            step_s = min(left, _STEP_S)
            began = time.monotonic()
            await asyncio.sleep(step_s)
            overslept_s = time.monotonic() - began - step_s
            if overslept_s > _STEP_S:
                self._renewed_at += overslept_s
        _log.warning("%s: not renewed for %.0f s, ending", self._holder, self._lasts_s)
        await self._expired()
