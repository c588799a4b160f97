"""How good an attribute classifier is, on pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storeguard.training.clips.evaluate import Interval, area_under_roc, wilson

_BINS = 10


class LabelMetrics(BaseModel):
    """Scores of one label.

    Attributes:
        label: its name.
        num_pictures: that show it.
        precision: part of the pictures predicted to show it that do; None if there are none.
        recall: part of the pictures that show it that are predicted to; None if there are none.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    num_pictures: int
    precision: float | None
    recall: float | None


class AttributeMetrics(BaseModel):
    """Scores of one set of pictures.

    Attributes:
        num_pictures, num_groups: what was tested on.
        accuracy: part of the pictures whose most probable label is theirs.
        accuracy_interval: 95 %, by Wilson 1927; too narrow where pictures of a group are alike.
        majority: the accuracy of always saying the label that most of these pictures have.
        labels: precision and recall, in the order of the model's scores.
        auc: area under the ROC curve of the second label; None unless there are two.
        confusion: rows are true labels, columns predicted ones, in the order of `labels`.
        calibration_error: expected calibration error of the most probable label over ten bins.
    """

    model_config = ConfigDict(frozen=True)

    num_pictures: int
    num_groups: int
    accuracy: float
    accuracy_interval: Interval
    majority: float
    labels: tuple[LabelMetrics, ...]
    auc: float | None
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float


def measure(
    probabilities: NDArray[np.float32],
    label_id: NDArray[np.int64],
    labels: Sequence[str],
    *,
    num_groups: int,
) -> AttributeMetrics:
    """Metrics of scored pictures.

    Args:
        probabilities: (n, k) float32, n > 0.
        label_id: (n,) int64, what they show.
        labels: the k names.
        num_groups: that the pictures are of.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (label_id, predicted), 1)
    right = int(confusion.trace())
    auc = None
    if len(labels) == 2:
        auc = area_under_roc(probabilities[:, 1].astype(np.float64), label_id == 1)
    return AttributeMetrics(
        num_pictures=len(label_id),
        num_groups=num_groups,
        accuracy=right / len(label_id),
        accuracy_interval=wilson(right, len(label_id)),
        majority=float(confusion.sum(axis=1).max() / len(label_id)),
        labels=tuple(
            LabelMetrics(
                label=label,
                num_pictures=int(confusion[i].sum()),
                precision=_part(confusion[i, i], confusion[:, i].sum()),
                recall=_part(confusion[i, i], confusion[i].sum()),
            )
            for i, label in enumerate(labels)
        ),
        auc=auc,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        calibration_error=_calibration_error(probabilities.max(axis=1), predicted == label_id),
    )


def plot_confusion(metrics: AttributeMetrics, path: Path) -> None:
    """Draw the confusion matrix as a PNG: counts, shaded by their part of the true label's."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to load, and in the training part alone

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = [one.label for one in metrics.labels]
    counts = np.array(metrics.confusion)
    parts = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 2.6 + 0.7 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side))
    axis.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count}\n{parts[row, column]:.0%}"
        colour = "white" if parts[row, column] > 0.5 else "black"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true")
    interval = metrics.accuracy_interval
    axis.set_title(
        f"accuracy {metrics.accuracy:.1%} ({interval.low:.1%} to {interval.high:.1%})\n"
        f"pictures: {metrics.num_pictures}, groups: {metrics.num_groups}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _part(some: np.int64, every: np.int64) -> float | None:
    return float(some / every) if every else None


def _calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3)."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for number in range(_BINS):
        inside = bins == number
        if inside.any():
            error += float(inside.mean() * abs(confidence[inside].mean() - right[inside].mean()))
    return error
