"""Fakes, and clocks to be turned by hand, for tests of Storeguard and of what is built on it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


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


class SteppedClock:
    """The machine's clocks, with the wall clock ahead of it, or behind, as a file says.

    Goes with actors into their processes: all that hold a clock of the same file follow it.

    Args:
        path: holds the seconds that the wall clock is ahead; absent as long as it is not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, ahead_s: float) -> None:
        """Set everybody's wall clock ahead of the machine's (or, below zero, behind it)."""
        fresh = self._path.with_name(f".{self._path.name}.tmp")
        fresh.write_text(str(ahead_s), encoding="ascii")
        fresh.replace(self._path)

    def now(self) -> datetime:
        """The current moment as set, aware UTC."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s())

    def monotonic(self) -> float:
        """`time.monotonic()`, which no setting of the wall clock touches."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`, returning at once for zero or less."""
        if seconds > 0:
            time.sleep(seconds)

    def _ahead_s(self) -> float:
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return 0.0
        try:
            return float(os.read(file, 64))
        finally:
            os.close(file)
