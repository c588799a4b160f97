"""Pictures of how good a clip classifier is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from storeguard.training.clips.evaluate import ClipMetrics, VideoScore

_NORMAL, _THEFT = "#3b6ea5", "#c8553d"


def plot_scores(videos: Sequence[VideoScore], metrics: ClipMetrics, path: Path) -> None:
    """Draw scores by group, the ROC curve and the calibration into one PNG."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and in the training part alone

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (by_group, roc, calibration) = plt.subplots(1, 3, figsize=(13, 4.2))
    scores = np.array([one.score or 0.0 for one in videos])
    positive = np.array([one.positive for one in videos], dtype=bool)
    groups = sorted({one.group for one in videos})
    rows = np.array([groups.index(one.group) for one in videos], dtype=float)
    rows += np.linspace(-0.25, 0.25, len(rows))[np.argsort(np.argsort(scores))]
    by_group.scatter(scores[~positive], rows[~positive], color=_NORMAL, s=18, label="normal")
    by_group.scatter(
        scores[positive], rows[positive], color=_THEFT, s=22, marker="^", label="concealing"
    )
    by_group.axvline(metrics.threshold, color="grey", linestyle="--", linewidth=1)
    by_group.set_yticks(range(len(groups)), groups)
    by_group.set(xlim=(-0.02, 1.02), xlabel="score of the video", ylabel="person, never trained on")
    by_group.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
    if metrics.auc is not None:
        cuts = np.concatenate([[np.inf], np.sort(scores)[::-1]])
        found = [(scores[positive] >= cut).mean() for cut in cuts]
        false = [(scores[~positive] >= cut).mean() for cut in cuts]
        roc.plot(false, found, color=_THEFT, drawstyle="steps-post")
        interval = metrics.auc_interval
        bounds = f" ({interval.low:.2f} to {interval.high:.2f})" if interval else ""
        roc.set_title(f"AUC {metrics.auc:.2f}{bounds}", fontsize=10)
    roc.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    roc.set(xlabel="false alarms", ylabel="found", aspect="equal")
    edges = np.linspace(0, 1, 6)
    for low, high in itertools.pairwise(edges):
        inside = (scores >= low) & ((scores < high) | (high >= 1))
        if inside.any():
            calibration.scatter(
                scores[inside].mean(), positive[inside].mean(), s=12 * inside.sum(), color=_NORMAL
            )
    calibration.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    calibration.set(
        xlabel="mean score", ylabel="share that conceals", xlim=(0, 1), ylim=(-0.03, 1.03)
    )
    calibration.set_title(f"calibration error {metrics.calibration_error:.2f}", fontsize=10)
    for axis in (by_group, roc, calibration):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
