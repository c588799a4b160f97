"""Overlap of boxes, and the choice of the best ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storeguard.detection.nms import iou_matrix, nms

corner = st.floats(0, 100, width=32)
boxes = st.lists(st.tuples(corner, corner, corner, corner, st.floats(0, 1, width=32)), max_size=30)


def as_array(*xyxy: tuple[float, ...]) -> np.ndarray:
    return np.array(xyxy, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (2, 2, 8, 8), 0.36),  # one inside the other
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch
        ((0, 0, 10, 10), (30, 30, 40, 40), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),  # no area: 0, not 0/0
        ((10, 10, 0, 0), (0, 0, 10, 10), 0.0),  # corners the wrong way round
    ],
)
def test_iou(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    assert iou_matrix(as_array(a), as_array(b))[0, 0] == pytest.approx(expected)


def test_iou_of_none_has_the_right_shape() -> None:
    assert iou_matrix(as_array(), as_array((0, 0, 1, 1))).shape == (0, 1)
    assert nms(as_array(), np.zeros(0, np.float32), 0.5).shape == (0,)


def test_a_box_is_dropped_for_a_kept_one_only() -> None:
    # b overlaps a and is dropped; c overlaps b alone and stays
    row = as_array((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10))

    assert nms(row, np.array([0.9, 0.8, 0.7], np.float32), 0.3).tolist() == [0, 2]


def test_the_kept_come_best_first_and_only_the_best_are_looked_at() -> None:
    apart = as_array(*((20 * i, 0, 20 * i + 10, 10) for i in range(5)))
    score = np.array([0.1, 0.5, 0.3, 0.9, 0.2], np.float32)

    assert nms(apart, score, 0.5).tolist() == [3, 1, 2, 4, 0]
    assert nms(apart, score, 0.5, limit=2).tolist() == [3, 1]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(boxes, st.floats(0.1, 0.9))
def test_kept_boxes_overlap_little_and_each_dropped_one_overlaps_a_better_kept_one(
    rows: list[tuple[float, ...]], max_iou: float
) -> None:
    xyxy = as_array(*((min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in rows))
    score = np.array([row[4] for row in rows], np.float32)

    kept = nms(xyxy, score, max_iou)

    overlap = iou_matrix(xyxy, xyxy)
    assert (overlap[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= max_iou).all()
    for dropped in set(range(len(rows))) - set(kept.tolist()):
        better = [k for k in kept if score[k] >= score[dropped]]
        assert overlap[dropped, better].max(initial=0) > max_iou
