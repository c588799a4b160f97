"""How good a clip classifier is, on videos that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

_BINS = 10


@dataclass(frozen=True, slots=True)
class VideoScore:
    """One tested video.

    Attributes:
        score: probability, the mean of its top clips; None without a person in view.
        seconds: how long it is.
    """

    name: str
    group: str
    positive: bool
    score: float | None
    seconds: float


class Interval(BaseModel):
    """A 95 % interval."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float


class ClipMetrics(BaseModel):
    """Scores of one set of videos.

    Attributes:
        num_videos, num_positive: what was tested on.
        auc: area under the ROC curve; None with one class alone.
        auc_interval: by Hanley & McNeil 1982.
        accuracy: at `threshold`; `accuracy_interval` by Wilson 1927.
        confusion: [[true normal, false alarm], [missed, found]].
        false_alarms_per_hour: of normal footage, one a video at most.
        brier: mean squared error of the probabilities.
        calibration_error: expected calibration error over ten bins.
    """

    model_config = ConfigDict(frozen=True)

    num_videos: int
    num_positive: int
    threshold: float
    auc: float | None
    auc_interval: Interval | None
    accuracy: float
    accuracy_interval: Interval
    confusion: tuple[tuple[int, int], tuple[int, int]]
    false_alarms_per_hour: float | None
    brier: float
    calibration_error: float


def measure(videos: Sequence[VideoScore], *, threshold: float = 0.5) -> ClipMetrics:
    """Metrics of scored videos; one without a person counts with score 0."""
    scores = np.array([0.0 if one.score is None else one.score for one in videos])
    positive = np.array([one.positive for one in videos], dtype=bool)
    alarmed = scores >= threshold
    right = int((alarmed == positive).sum())
    auc = area_under_roc(scores, positive)
    normal_s = sum(one.seconds for one in videos if not one.positive)
    false_alarms = int((alarmed & ~positive).sum())
    return ClipMetrics(
        num_videos=len(videos),
        num_positive=int(positive.sum()),
        threshold=threshold,
        auc=auc,
        auc_interval=None if auc is None else _hanley(auc, positive),
        accuracy=right / len(videos),
        accuracy_interval=wilson(right, len(videos)),
        confusion=(
            (int((~alarmed & ~positive).sum()), false_alarms),
            (int((~alarmed & positive).sum()), int((alarmed & positive).sum())),
        ),
        false_alarms_per_hour=false_alarms / normal_s * 3600 if normal_s else None,
        brier=float(((scores - positive) ** 2).mean()),
        calibration_error=_calibration_error(scores, positive),
    )


def area_under_roc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """The probability that a positive scores higher than a negative, ties counted half."""
    high, low = scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return None
    above = (high[:, None] > low[None, :]).mean()
    ties = (high[:, None] == low[None, :]).mean()
    return float(above + ties / 2)


def wilson(right: int, total: int, *, z: float = 1.96) -> Interval:
    """The 95 % interval of a proportion (Wilson 1927)."""
    share = right / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / total) ** 2 / 4)
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def _hanley(auc: float, positive: NDArray[np.bool_]) -> Interval:
    """The 95 % interval of an AUC (Hanley & McNeil 1982, equations 1 and 2)."""
    num_high, num_low = int(positive.sum()), int((~positive).sum())
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (num_high - 1) * (q1 - auc**2) + (num_low - 1) * (q2 - auc**2)
    ) / (num_high * num_low)
    half = 1.96 * math.sqrt(max(0.0, variance))
    return Interval(low=max(0.0, auc - half), high=min(1.0, auc + half))


def _calibration_error(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for number in range(_BINS):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(scores[inside].mean() - positive[inside].mean())
    return float(error)
