"""A clock whose readings lie apart, as those of a thread that does not get the processor."""

from __future__ import annotations

from datetime import datetime

from storeguard.testing import FakeClock


class HeldUpClock(FakeClock):
    """A fake clock on which time passes after a reading of the wall clock."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._stalls_s: list[float] = []

    def hold_up(self, *stalls_s: float) -> None:
        """After each of the next readings of the wall clock, let so many seconds pass."""
        self._stalls_s += stalls_s

    def now(self) -> datetime:
        moment = super().now()
        if self._stalls_s:
            self.advance(self._stalls_s.pop(0))
        return moment
