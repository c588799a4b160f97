"""Waiting for what a running system does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EVERYWHERE = [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]]
"""A zone's polygon that covers nearly the whole picture."""


def wait_for(
    condition: Callable[[], Any],
    *,
    seconds: float = 180.0,
    found: Callable[[], Any] = lambda: "nothing",
) -> Any:
    """What the condition gives once it is true; fails with what was found if it never is."""
    until = time.monotonic() + seconds
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() >= until:
            raise AssertionError(f"waited {seconds:g} s in vain; found {found()}")
        time.sleep(0.3)
