"""A clock by which cameras play at their own pace, however slow the machine is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from storeguard.camera.group import CameraGroup
from storeguard.camera.status import CameraStatus
from storeguard.testing import FakeClock

PATIENCE_S = 180.0
"""How long tests wait for what must come."""
NEVER_S = 3600.0
"""A time limit that no stall of the machine reaches."""
_REORDERED = 2  # pictures that the decoder of bikes.mp4 holds back, because of its B-frames


class HeldClock(FakeClock):
    """Time stands still until `go_on`; threads that sleep by it wait for that."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC))
        self._sleepers: dict[int, float] = {}
        self._changed = threading.Condition()

    def sleep(self, seconds: float) -> None:
        """Wait for so much time, or for a moment of real time: readers check the time themselves."""
        until_s = self.monotonic() + seconds
        with self._changed:
            self._sleepers[threading.get_ident()] = until_s
            self._changed.wait_for(lambda: self.monotonic() >= until_s, timeout=0.2)
            del self._sleepers[threading.get_ident()]

    def go_on(self, sleepers: int) -> None:
        """Let time pass until the first of so many sleepers wakes; not before all of them sleep."""
        with self._changed:
            if self._sleepers and len(self._sleepers) >= sleepers:
                self.advance(max(0.0, min(self._sleepers.values()) - self.monotonic()))
                self._changed.notify_all()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that cameras do in their own time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - no camera reports it
            await asyncio.sleep(0.02)


async def play_until(
    condition: Callable[[], Any], group: CameraGroup, clock: HeldClock, *, live: int = 1
) -> None:
    """Let time pass for so many live cameras until something holds.

    It passes only while every frame that is due has been decoded, detected and followed. So no
    camera drops a frame because the machine is slow; one that drops has a fault.
    """
    async with asyncio.timeout(3 * PATIENCE_S):  # each frame waits for several threads in turn
        while not condition():
            if all(_is_up_to_date(status) for status in group.statuses()):
                clock.go_on(live)
            await asyncio.sleep(0.005)


def _is_up_to_date(status: CameraStatus) -> bool:
    lost = sum(status.dropped.values())
    decoded = status.frames_in - status.frames_decoded <= _REORDERED + lost
    return decoded and status.frames_sampled <= status.frames_processed + lost
