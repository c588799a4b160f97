"""Reading wall clock and monotonic clock together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storeguard.clock import SystemClock, both_times
from storeguard.testing import FakeClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class HeldUpClock(FakeClock):
    """Time goes on between readings, as it does where a thread stands still."""

    def __init__(self, *stalls_s: float) -> None:
        super().__init__(START)
        self._stalls = list(stalls_s)

    def now(self) -> datetime:
        moment = super().now()
        if self._stalls:
            self.advance(self._stalls.pop(0))
        return moment


@pytest.mark.parametrize("stalls", [(), (2.0,), (0.5, 3.0, 0.2), (1.0, 1.0, 1.0, 1.0)])
def test_one_moment_whatever_comes_between_the_readings(stalls: tuple[float, ...]) -> None:
    now, mono = both_times(HeldUpClock(*stalls))
    assert now - START == timedelta(seconds=mono)


def test_the_closest_readings_count_where_all_lie_apart() -> None:
    now, mono = both_times(HeldUpClock(4.0, 0.5, 0.1, 2.0, 3.0, 1.0))
    assert abs((now - START).total_seconds() - mono) == pytest.approx(0.05)


def test_the_machines_own() -> None:
    clock = SystemClock()
    before, before_s = clock.now(), clock.monotonic()
    now, mono = both_times(clock)
    assert before <= now <= clock.now()
    assert before_s <= mono <= clock.monotonic()
