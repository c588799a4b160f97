"""Overlap of boxes, and non-maximum suppression."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", np.float32, np.float64)


def iou_matrix(a_xyxy: NDArray[F], b_xyxy: NDArray[F]) -> NDArray[F]:
    """Intersection over union of every pair: (n, 4) and (m, 4) give (n, m), 0..1."""
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    inter = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    area_a = np.clip(a_xyxy[:, 2:] - a_xyxy[:, :2], 0, None).prod(axis=1)
    area_b = np.clip(b_xyxy[:, 2:] - b_xyxy[:, :2], 0, None).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    overlap: NDArray[F] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return overlap


def nms(
    xyxy: NDArray[np.float32], score: NDArray[np.float32], max_iou: float, *, limit: int = 300
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within one class.

    Args:
        xyxy: (n, 4) boxes.
        score: (n,) confidences.
        max_iou: a box overlapping a better one by more than this is dropped.
        limit: only so many of the best are compared, which bounds the time of a crowded frame.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-score, kind="stable")[:limit]
    overlap = iou_matrix(xyxy[order], xyxy[order]) > max_iou
    alive = np.ones(len(order), dtype=np.bool_)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~overlap[i, i + 1 :]
    kept: NDArray[np.int64] = order[alive]
    return kept
