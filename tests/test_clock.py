"""Reading wall clock and monotonic clock together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storeguard.clock import SystemClock, both_times
from tests.held_up_clock import HeldUpClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def held_up(*stalls_s: float) -> HeldUpClock:
    clock = HeldUpClock(START)
    clock.hold_up(*stalls_s)
    return clock


@pytest.mark.parametrize("stalls", [(), (2.0,), (0.5, 3.0, 0.2), (1.0, 1.0, 1.0, 1.0)])
def test_both_clocks_give_one_moment_despite_stalls(stalls: tuple[float, ...]) -> None:
    now, mono = both_times(held_up(*stalls))
    assert now - START == timedelta(seconds=mono)


def test_the_closest_of_the_readings_counts() -> None:
    now, mono = both_times(held_up(4.0, 0.5, 0.1, 2.0, 3.0, 1.0))
    assert abs((now - START).total_seconds() - mono) == pytest.approx(0.05)


def test_the_system_clock() -> None:
    clock = SystemClock()
    before, before_s = clock.now(), clock.monotonic()
    now, mono = both_times(clock)
    assert before <= now <= clock.now()
    assert before_s <= mono <= clock.monotonic()
