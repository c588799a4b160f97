"""Cooldown: which people may not raise another event yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

_MAX_REMEMBERED = 4096
"""Entries a cooldown holds at most; past it the oldest entry is dropped, and its person may raise
an event early. Only a cooldown of hours reaches this bound."""


class Cooldown:
    """Counts from one moment for each key (a person's id, or "" for all people together)."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._since)

    def start(self, key: str, at: datetime) -> None:
        """Count from `at`, for this key."""
        self._since.pop(key, None)  # so that the order stays: oldest first
        self._since[key] = at
        while len(self._since) > _MAX_REMEMBERED:
            del self._since[next(iter(self._since))]

    def is_over(self, key: str, at: datetime, *, cooldown_s: float) -> bool:
        """Whether `cooldown_s` have passed since the key's start; True for an unknown key."""
        since = self._since.get(key)
        return since is None or at - since >= timedelta(seconds=cooldown_s)

    def forget(self, at: datetime, *, cooldown_s: float) -> None:
        """Drop the entries that have run out by `at`."""
        while self._since:
            oldest = next(iter(self._since))
            if not self.is_over(oldest, at, cooldown_s=cooldown_s):
                return
            del self._since[oldest]

    def clear(self) -> None:
        """Drop all entries."""
        self._since.clear()

    def checkpoint(self) -> list[tuple[str, datetime]]:
        """All entries, oldest first."""
        return list(self._since.items())

    def restore(self, entries: Iterable[tuple[str, datetime]]) -> None:
        """Replace all entries by these."""
        self._since = dict(entries)
