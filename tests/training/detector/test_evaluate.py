"""Average precision against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from storeguard.detection.detections import Detections
from storeguard.errors import DatasetError
from storeguard.training.detector.evaluate import average_precision, letterbox


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 60, 60)
HALF_OF_A = (0, 0, 10, 5)  # overlap 0.5 with A


@pytest.mark.parametrize(
    ("found", "truth", "min_iou", "expected"),
    [
        # Every person found, nothing else: perfect.
        ([([A, B], [0.9, 0.8])], [[A, B]], 0.5, 1.0),
        # Nothing found.
        ([([], [])], [[A]], 0.5, 0.0),
        # One of two found: precision 1 up to recall 0.5, that is at 51 of the 101 recalls.
        ([([A], [0.9])], [[A, B]], 0.5, 51 / 101),
        # A wrong box scored above the right one: precision 1/2 at every recall.
        ([([FAR, A], [0.9, 0.8])], [[A]], 0.5, 0.5),
        # A wrong box scored below costs nothing.
        ([([A, FAR], [0.9, 0.8])], [[A]], 0.5, 1.0),
        # Right, wrong, right: precision 1 at 51 recalls (0 to 0.50), 2/3 at the other 50.
        ([([A, FAR, B], [0.9, 0.8, 0.7])], [[A, B]], 0.5, (51 + 50 * 2 / 3) / 101),
        # A second box on the same person is wrong; here it outranks the other person's box.
        ([([A, A, B], [0.9, 0.8, 0.7])], [[A, B]], 0.5, (51 + 50 * 2 / 3) / 101),
        # An overlap of exactly the least one is a hit, a stricter one makes it a miss.
        ([([HALF_OF_A], [0.9])], [[A]], 0.5, 1.0),
        ([([HALF_OF_A], [0.9])], [[A]], 0.55, 0.0),
        # Boxes are ranked over all pictures: the box on an empty picture outranks the right one.
        ([([FAR], [0.9]), ([A], [0.8])], [[], [A]], 0.5, 0.5),
        # A box may not match another picture's person.
        ([([A], [0.9]), ([], [])], [[], [A]], 0.5, 0.0),
    ],
)
def test_average_precision(
    found: list[tuple[list[tuple[float, ...]], list[float]]],
    truth: list[list[tuple[float, float, float, float]]],
    min_iou: float,
    expected: float,
):
    detections = [Detections.of(rows, scores) for rows, scores in found]
    value = average_precision(detections, [boxes(*rows) for rows in truth], min_iou=min_iou)
    assert value == pytest.approx(expected)


def test_average_precision_without_persons_is_an_error():
    with pytest.raises(DatasetError, match="expected persons in 1 pictures"):
        average_precision([Detections.of([A], [0.5])], [boxes()], min_iou=0.5)


@pytest.mark.parametrize(
    ("centred", "corner"),
    [(False, (0, 0)), (True, (0, 70))],  # 320x180 in 320x320 leaves 140 rows of padding
)
def test_letterbox(centred: bool, corner: tuple[int, int]):
    canvas, scale, offset = letterbox(
        Image.new("RGB", (640, 360), "red"), (320, 320), centred=centred
    )
    assert (canvas.shape, canvas.dtype, scale, offset) == ((320, 320, 3), np.uint8, 0.5, corner)
    assert canvas[offset[1], offset[0]].tolist() == [255, 0, 0]
    assert canvas[-1, 0].tolist() == [114, 114, 114]
