"""Clocks that tests set, for tests of Storeguard and of software built on it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storeguard.files import write_atomically


class FakeClock:
    """A clock that only tests advance. Thread-safe.

    `sleep` advances it and returns, so code under test never really waits.
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
        """Advance both clocks."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP or a person would; not the monotonic clock."""
        with self._lock:
            self._now += timedelta(seconds=seconds)


class SteppedClock:
    """The machine's clocks, with the wall clock ahead or behind by the seconds in a file.

    It can be sent to actors in other processes: all clocks of one file follow it.

    Args:
        path: the file; while it does not exist, the wall clock is the machine's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def set(self, ahead_s: float) -> None:
        """Set the wall clock of all processes ahead of the machine's, or behind it if negative."""
        write_atomically(self._path, str(ahead_s), sync=False)

    def now(self) -> datetime:
        """The current moment, as set, aware UTC."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_s())

    def monotonic(self) -> float:
        """`time.monotonic()`, not affected by `set`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`; returns immediately for zero or less."""
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
