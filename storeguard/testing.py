"""Fakes for tests of Storeguard and of what is built on it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock whose hands are turned by hand. Thread-safe.

    `sleep` advances it at once, so code under test never really waits.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The current moment, aware UTC."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        with self._lock:
            return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Advance both clocks by `seconds`."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP or a person would; monotonic time goes on."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
