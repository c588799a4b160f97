"""Waits between attempts."""

from __future__ import annotations

import pytest

from storeguard.backoff import Backoff, BackoffSettings

SETTINGS = BackoffSettings(initial_s=0.5, max_s=4, jitter=0.3)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(BackoffSettings(initial_s=0.5, max_s=4, jitter=0))
    assert [backoff.next_s() for _ in range(6)] == [0.5, 1, 2, 4, 4, 4]


def test_jitter_keeps_its_bounds_and_differs_from_wait_to_wait() -> None:
    backoff = Backoff(SETTINGS, seed=7)
    waits = [backoff.next_s() for _ in range(6)]
    for wait_s, nominal_s in zip(waits, [0.5, 1, 2, 4, 4, 4], strict=True):
        assert 0.7 * nominal_s <= wait_s <= 1.3 * nominal_s
    assert len(set(waits)) == 6


def test_a_seed_repeats_the_waits() -> None:
    first, second = (Backoff(SETTINGS, seed="door") for _ in range(2))
    assert [first.next_s() for _ in range(4)] == [second.next_s() for _ in range(4)]


def test_reset_begins_with_the_first_wait() -> None:
    backoff = Backoff(BackoffSettings(initial_s=0.5, max_s=4, jitter=0))
    for _ in range(3):
        backoff.next_s()
    assert backoff.num_failures == 3
    backoff.reset()
    assert backoff.num_failures == 0
    assert backoff.next_s() == 0.5


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(BackoffSettings(initial_s=1, max_s=60, jitter=0))
    assert [backoff.next_s() for _ in range(5000)][-1] == pytest.approx(60)
