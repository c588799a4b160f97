"""How long to wait before trying a lost camera again."""

from __future__ import annotations

import random

from storeguard.config.store import ReconnectSettings


class Backoff:
    """Growing, capped, jittered waits between attempts.

    Args:
        settings: first wait, longest wait and jitter.
        seed: makes the jitter repeatable; None takes a random one.
    """

    def __init__(self, settings: ReconnectSettings, *, seed: int | str | None = None) -> None:
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311  # spreads load, keeps no secret
        self._num_failures = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt: min(initial * 2^n, max), times 1 +- jitter."""
        grown_s = self._settings.initial_s * 2.0 ** min(self._num_failures, 30)
        self._num_failures += 1
        spread = 1 + self._settings.jitter * self._random.uniform(-1, 1)
        return min(grown_s, self._settings.max_s) * spread

    def reset(self) -> None:
        """The connection held: begin with the first wait again."""
        self._num_failures = 0
