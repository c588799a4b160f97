"""What a running store's API says, asked so that a test can wait for it."""

from __future__ import annotations

import httpx


def metric(api: httpx.Client, wanted: str) -> float:
    """A metric's value; -1 while nobody tells it.

    Args:
        api: the store's.
        wanted: how the metric's line begins: its name, and its labels if it has any.
    """
    lines = api.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), -1.0)


def health(api: httpx.Client, part: str) -> str | None:
    """A part's status in /healthz; None while it is not told."""
    told: dict[str, str] = api.get("/healthz").json()["parts"].get(part, {})
    return told.get("status")
