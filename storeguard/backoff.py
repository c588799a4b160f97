"""How long to wait before the next attempt: waits that grow up to a limit, with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """How waits grow.

    Attributes:
        initial_s: seconds to wait after the first failure; each further wait is twice as long.
        max_s: the longest wait, before jitter.
        jitter: each wait is made longer or shorter by up to this fraction of itself.
    """

    initial_s: float = 0.5
    max_s: float = 15.0
    jitter: float = 0.3


class Backoff:
    """The waits between attempts at one thing. Not thread-safe.

    Args:
        settings: first wait, longest wait and jitter.
        seed: makes the jitter repeatable; None takes a random one.
    """

    def __init__(self, settings: BackoffSettings, *, seed: int | str | None = None) -> None:
        self._settings = settings
        self._random = random.Random(seed)  # noqa: S311  # spreads load, keeps no secret
        self.num_failures = 0
        """Failures since the last success."""

    def next_s(self) -> float:
        """Count a failure.

        Returns:
            Seconds to wait before the next attempt: min(initial * 2^n, max), times 1 +- jitter.
        """
        grown_s = self._settings.initial_s * 2.0 ** min(self.num_failures, 30)
        self.num_failures += 1
        spread = 1 + self._settings.jitter * self._random.uniform(-1, 1)
        return min(grown_s, self._settings.max_s) * spread

    def reset(self) -> None:
        """An attempt succeeded: the next wait is the first one."""
        self.num_failures = 0
