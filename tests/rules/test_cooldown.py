from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storeguard.rules import cooldown
from storeguard.rules.cooldown import Cooldown

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_runs_for_its_time_and_for_its_key() -> None:
    waiting = Cooldown()
    waiting.start("ann", NOW)

    assert not waiting.is_over("ann", NOW + 1.9 * SECOND, cooldown_s=2)
    assert waiting.is_over("ann", NOW + 2 * SECOND, cooldown_s=2)
    assert waiting.is_over("bob", NOW, cooldown_s=2)


def test_entries_that_have_run_out_are_dropped() -> None:
    waiting = Cooldown()
    waiting.start("ann", NOW)
    waiting.start("bob", NOW + SECOND)
    waiting.start("ann", NOW + 2 * SECOND)

    waiting.forget(NOW + 3 * SECOND, cooldown_s=2)

    assert [key for key, _ in waiting.checkpoint()] == ["ann"]


def test_it_is_bounded_and_drops_the_oldest() -> None:
    waiting = Cooldown()
    for index in range(cooldown._MAX_REMEMBERED + 10):
        waiting.start(str(index), NOW + index * SECOND)

    assert len(waiting) == cooldown._MAX_REMEMBERED
    assert waiting.is_over("9", NOW, cooldown_s=86_400)
    assert not waiting.is_over("10", NOW, cooldown_s=86_400)
