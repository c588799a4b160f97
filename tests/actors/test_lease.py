"""Leases, by a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import actors.lease
from actors.lease import Lease


class Time:
    """Monotonic time that goes on as somebody sleeps, and now and then further."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.stalls: dict[int, float] = {}
        self.on_second: Callable[[int], None] = lambda _: None

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        before = int(self.now_s)
        self.now_s += seconds + self.stalls.pop(before, 0.0)
        self.on_second(int(self.now_s))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(actors.lease.time, "monotonic", time.monotonic)
    monkeypatch.setattr(actors.lease.asyncio, "sleep", time.sleep)
    return time


def ends_at(time: Time, *, renewed_at: tuple[int, ...] = ()) -> float:
    ended: list[float] = []

    async def expired() -> None:
        ended.append(time.now_s)

    lease = Lease("camera", lasts_s=60, expired=expired)
    time.on_second = lambda second: lease.renew() if second in renewed_at else None
    asyncio.run(lease.watch())
    (moment,) = ended
    return moment


def test_it_runs_out_unless_renewed(time: Time) -> None:
    assert ends_at(time) == 160


def test_it_lasts_from_the_last_renewal(time: Time) -> None:
    assert ends_at(time, renewed_at=(130, 150, 205)) == 265


def test_time_in_which_the_process_stood_still_does_not_count(time: Time) -> None:
    time.stalls = {120: 300.0}
    assert ends_at(time) == 460


def test_a_renewal_after_standing_still_counts_from_then(time: Time) -> None:
    time.stalls = {120: 300.0}
    assert ends_at(time, renewed_at=(430,)) == 490
