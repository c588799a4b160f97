"""The grids of places that a detector predicts boxes for, one a stride."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
STRIDE_SETS = (STRIDES, (8, 16, 32, 64), (4, 8, 16, 32))
"""The strides of usual models, of those for large and of those for small objects."""


def num_places(input_wh: tuple[int, int], strides: tuple[int, ...] = STRIDES) -> int:
    """How many places an input of this size has."""
    return sum(columns * rows for columns, rows in _levels(input_wh, strides))


def strides_of(places: int, input_wh: tuple[int, int]) -> tuple[int, ...] | None:
    """The strides with which an input of this size has so many places; None if none fit."""
    for strides in STRIDE_SETS:
        if num_places(input_wh, strides) == places:
            return strides
    return None


@lru_cache(maxsize=16)
def grid(
    input_wh: tuple[int, int], strides: tuple[int, ...] = STRIDES
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of each place (A, 2), and its stride in pixels (A, 1); row by row."""
    cells, steps = [], []
    for step, (columns, rows) in zip(strides, _levels(input_wh, strides), strict=True):
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x, y], axis=2).reshape(-1, 2))
        steps.append(np.full((rows * columns, 1), step))
    return (
        np.concatenate(cells).astype(np.float32),
        np.concatenate(steps).astype(np.float32),
    )


def _levels(input_wh: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(-(-input_wh[0] // step), -(-input_wh[1] // step)) for step in strides]
