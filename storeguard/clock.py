"""The source of time. Rules and timers take a `Clock`, so that tests can set it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

_CLOSE_S: Final = 0.001  # readings this close count as one moment
_READINGS: Final = 5  # at most


class Clock(Protocol):
    """Wall clock and monotonic clock in one."""

    def now(self) -> datetime:
        """The current moment, aware UTC. May jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps or goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; returns immediately for zero or less."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The current moment, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """`time.monotonic()`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """`time.sleep`; returns immediately for zero or less."""
        if seconds > 0:
            time.sleep(seconds)


def both_times(clock: Clock) -> tuple[datetime, float]:
    """Wall clock and monotonic clock of one moment, also if the thread is held up between readings.

    On a busy machine seconds may pass between two readings, which would look like a step of the
    wall clock. So the wall clock is read between two readings of the monotonic clock, several times
    if these lie apart, and the closest pair counts.

    Args:
        clock: the clock to read.

    Returns:
        The moment, aware UTC, and its monotonic seconds.
    """
    best: tuple[float, datetime, float] | None = None
    for _ in range(_READINGS):
        before = clock.monotonic()
        now = clock.now()
        apart = clock.monotonic() - before
        if best is None or apart < best[0]:
            best = (apart, now, before + apart / 2)
        if apart <= _CLOSE_S:
            break
    assert best is not None  # noqa: S101  # for the type checker: read at least once
    return best[1], best[2]
