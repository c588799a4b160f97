"""How long the steps of the frame path take."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Milliseconds over the kept samples; percentiles by linear interpolation."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


class LatencyRecorder:
    """Samples of the steps of one frame path, by step.

    The first `warm_up` samples of each step are counted apart: they pay for page faults, thread
    pools and caches. Past `limit` samples the oldest are
    dropped.
    """

    STEPS = (
        "decode",
        "preprocess",
        "queue",
        "infer",
        "postprocess",
        "track",
        "cls",
        "encode",
        "total",
        "capture_to_event",
    )

    def __init__(self, *, warm_up: int = 5, limit: int = 20_000) -> None:
        self._warm_up = warm_up
        self._seen = dict.fromkeys(self.STEPS, 0)
        self._samples_ms: dict[str, deque[float]] = {
            step: deque(maxlen=limit) for step in self.STEPS
        }

    def add(self, **steps_ms: float) -> None:
        """Record one frame's milliseconds, by step name."""
        for step, milliseconds in steps_ms.items():
            self._seen[step] += 1
            if self._seen[step] > self._warm_up:
                self._samples_ms[step].append(milliseconds)

    def summaries(self) -> dict[str, LatencySummary | None]:
        """One summary a step; None for a step that was not measured."""
        return {step: summarise(samples) for step, samples in self._samples_ms.items()}

    @property
    def warm_up_frames(self) -> int:
        """How many frames were left out of the summaries."""
        return min(self._warm_up, max(self._seen.values()))


def summarise(samples_ms: deque[float] | list[float]) -> LatencySummary | None:
    """Mean and percentiles, or None without samples."""
    if not samples_ms:
        return None
    values = np.asarray(samples_ms)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return LatencySummary(
        mean=round(float(values.mean()), 3),
        p50=round(float(p50), 3),
        p95=round(float(p95), 3),
        p99=round(float(p99), 3),
        max=round(float(values.max()), 3),
    )
