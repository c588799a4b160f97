from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storeguard.training.clips.evaluate import VideoScore, area_under_roc, measure, wilson
from storeguard.training.clips.plots import plot_scores


def videos(*scored: tuple[bool, float | None], seconds: float = 10.0) -> list[VideoScore]:
    return [
        VideoScore(f"{i}.mp4", "ab"[i % 2], positive, score, seconds)
        for i, (positive, score) in enumerate(scored)
    ]


@pytest.mark.parametrize(
    ("scores", "positive", "auc"),
    [
        ([0.1, 0.9], [False, True], 1.0),
        ([0.9, 0.1], [False, True], 0.0),
        ([0.5, 0.5], [False, True], 0.5),  # a tie counts half
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([0.1, 0.2], [False, False], None),
    ],
)
def test_area_under_roc(scores: list[float], positive: list[bool], auc: float | None) -> None:
    assert area_under_roc(np.array(scores), np.array(positive)) == auc


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # as published for 8 of 10
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson(right: int, total: int, low: float, high: float) -> None:
    found = wilson(right, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


def test_metrics_by_hand() -> None:
    metrics = measure(videos((False, 0.2), (False, 0.7), (True, 0.9), (True, 0.4), (False, None)))
    assert metrics.confusion == ((2, 1), (1, 1))
    assert metrics.accuracy == pytest.approx(3 / 5)
    # One false alarm in 30 s of normal footage.
    assert metrics.false_alarms_per_hour == pytest.approx(120)
    assert metrics.auc == pytest.approx(5 / 6)
    assert metrics.auc_interval is not None
    assert metrics.auc_interval.low < 5 / 6 <= metrics.auc_interval.high
    squares = [0.04, 0.49, 0.01, 0.36, 0.0]
    assert metrics.brier == pytest.approx(sum(squares) / 5)
    gaps = [0.2, 0.7, 0.1, 0.6, 0.0]
    assert metrics.calibration_error == pytest.approx(sum(gaps) / 5)


def test_the_threshold_moves_alarms_and_nothing_else() -> None:
    scored = videos((False, 0.2), (True, 0.4))
    low, high = measure(scored, threshold=0.3), measure(scored, threshold=0.5)
    assert (low.confusion, high.confusion) == (((1, 0), (0, 1)), ((1, 0), (1, 0)))
    assert low.auc == high.auc == 1.0


def test_one_class_has_no_auc() -> None:
    metrics = measure(videos((True, 0.9), (True, 0.2)))
    assert metrics.auc is None
    assert metrics.auc_interval is None
    assert metrics.false_alarms_per_hour is None
    assert not math.isnan(metrics.brier)


def test_the_plot_shows_something(tmp_path: Path) -> None:
    scored = videos((False, 0.2), (False, 0.7), (True, 0.9), (True, 0.4), (False, None))
    plot_scores(scored, measure(scored), tmp_path / "scores.png")
    picture = np.asarray(Image.open(tmp_path / "scores.png").convert("RGB"))
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
