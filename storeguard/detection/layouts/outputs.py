"""A model's raw outputs, and the steps from them to boxes that several layouts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from storeguard.detection.detections import Detections

Float32 = NDArray[np.float32]
Outputs = Mapping[str, Float32]
"""Arrays by output name; the first axis is the batch."""
Decoder = Callable[[Outputs, tuple[int, int], float], list[Detections]]
"""Outputs, the input's width and height in pixels, the lowest score; gives one `Detections` an
image, in pixels of the model's input, of every class, before non-maximum suppression."""

ROUNDING = 0.01
"""By how much a probability may leave 0..1 in half precision."""
_MAX_FRACTION = 2.0


def describe_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """``name (1, 2, 3), other (1, 4)`` for messages."""
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def shapes_of(outputs: Outputs) -> dict[str, tuple[int, ...]]:
    """Each output's shape."""
    return {name: array.shape for name, array in outputs.items()}


def corners(centre: Float32, size: Float32) -> Float32:
    """Boxes (n, 4) from centres (n, 2) and sizes (n, 2)."""
    half = size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def around(points: Float32, distances: Float32) -> Float32:
    """Boxes (n, 4) from points (n, 2) and distances (n, 4) to left, top, right and bottom."""
    return np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)


def best_class(xyxy: Float32, score: Float32) -> Detections:
    """Each box with its most probable class; `score` is (n, classes)."""
    class_id = score.argmax(axis=1) if len(score) else np.zeros(0, np.int64)
    best = score[np.arange(len(score)), class_id]
    return Detections.of(xyxy, best, class_id)


def in_pixels(boxes: Float32, input_wh: tuple[int, int]) -> Float32:
    """Boxes (n, 4), of which values up to 2 are taken as fractions of the input."""
    if (np.abs(boxes) > _MAX_FRACTION).any():
        return boxes
    return boxes * np.array(input_wh * 2, dtype=np.float32)


def sigmoid(values: Float32) -> Float32:
    """The logistic function, without overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -60, 60))), dtype=np.float32)


def probabilities(values: list[Float32]) -> list[Float32]:
    """Scores as probabilities: some exports stop before the sigmoid, and their values leave 0..1.

    Args:
        values: all arrays of one model's scores, which are judged together.
    """
    if all(not ((array < -ROUNDING) | (array > 1 + ROUNDING)).any() for array in values):
        return values
    return [sigmoid(array) for array in values]
