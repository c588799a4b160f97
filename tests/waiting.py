"""Waiting until a running system has done something."""

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
    every_s: float = 0.3,
    found: Callable[[], Any] = lambda: "nothing",
) -> Any:
    """The condition's first true value.

    Args:
        condition: called again and again until its value is true.
        seconds: how long to wait before the test fails.
        every_s: pause between two calls.
        found: what the failure's message names as found.
    """
    until = time.monotonic() + seconds
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() >= until:
            raise AssertionError(f"nothing true after {seconds:g} s; found {found()}")
        time.sleep(every_s)
