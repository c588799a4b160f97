"""Playing in real time what could be read faster: files, and streams that come in segments."""

from __future__ import annotations

from collections.abc import Callable

from storeguard.clock import Clock

_SLEEP_S = 0.1  # a sleeping thread stops within this
_LATE_S = 1.0  # what is later than this stays late instead of catching up


class Pacer:
    """Waits until packets are due by their own timestamps.

    Args:
        clock: the time to follow.
        stopped: whether to wait no longer.
        longest_s: a longer wait is a jump of the timestamps: not waited for. None waits any time.
    """

    def __init__(
        self, clock: Clock, stopped: Callable[[], bool], *, longest_s: float | None = None
    ) -> None:
        self._clock = clock
        self._stopped = stopped
        self._longest_s = longest_s
        self._origin_s: float | None = None  # monotonic seconds of the timestamps' zero

    def start(self, due_s: float) -> None:
        """Make a packet due at `due_s` due now."""
        self._origin_s = self._clock.monotonic() - due_s

    def wait(self, due_s: float) -> float:
        """Wait until the timestamp `due_s` is due; the first one is due at once.

        Returns:
            Seconds by which all that follows is played later: more than 1 s was lost.
        """
        if self._origin_s is None:
            self.start(due_s)
        assert self._origin_s is not None  # noqa: S101  # for the type checker: just set
        early_s = self._origin_s + due_s - self._clock.monotonic()
        if self._longest_s is not None and early_s > self._longest_s:
            self.start(due_s)
            return 0.0
        sleep_until(self._clock, self._origin_s + due_s, self._stopped)
        late_s = self._clock.monotonic() - (self._origin_s + due_s)
        if late_s <= _LATE_S:
            return 0.0
        self._origin_s += late_s
        return late_s


def sleep_until(clock: Clock, moment_s: float, stopped: Callable[[], bool]) -> None:
    """Sleep until the monotonic clock shows `moment_s`, in short steps, or until stopped."""
    while not stopped() and (left_s := moment_s - clock.monotonic()) > 0:
        clock.sleep(min(_SLEEP_S, left_s))
