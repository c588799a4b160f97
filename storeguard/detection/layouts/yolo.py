"""YOLO layouts: one row of numbers a place, before non-maximum suppression.

- YOLOX: (N, A, 5 + C), raw grid; Ge et al. 2021, arXiv:2107.08430, section 2.
- YOLOX exported with `--decode_in_inference`, YOLOv5, YOLOv7: (N, A, 5 + C), decoded.
- YOLOv8, YOLO11, YOLO12: (N, 4 + C, A) or transposed; no objectness; as exported by Ultralytics.
"""

from __future__ import annotations

import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.export import ExportMetadata
from storeguard.detection.layouts.grid import grid, num_places, strides_of
from storeguard.detection.layouts.outputs import (
    Float32,
    Outputs,
    best_class,
    corners,
    describe_shapes,
    in_pixels,
    shapes_of,
)
from storeguard.errors import ModelLayoutError

COCO_POSE_ROWS = 4 + 1 + 17 * 3
"""A box, the class person, and x, y and visibility of 17 keypoints."""


def decode_yolox(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """YOLOX raw grid: cx, cy, w, h in grid units, objectness and classes after their sigmoids."""
    (raw,) = outputs.values()
    strides = strides_of(raw.shape[1], input_wh) if raw.ndim == 3 else None
    if strides is None or raw.shape[2] < 6:
        raise ModelLayoutError(
            f"expected YOLOX output (N, {num_places(input_wh)}, 5 + classes) for an input of "
            f"{input_wh[0]}x{input_wh[1]}, got {raw.shape}"
        )
    cells, steps = grid(input_wh, strides)
    found = []
    for image in raw:
        score = image[:, 4:5] * image[:, 5:]
        keep = score.max(axis=1) >= min_score
        rows, cell, step = image[keep], cells[keep], steps[keep]
        centre = (rows[:, :2] + cell) * step
        size = np.exp(np.minimum(rows[:, 2:4], 20.0)) * step
        found.append(best_class(corners(centre, size), score[keep]))
    return found


def decode_objectness(
    outputs: Outputs,
    input_wh: tuple[int, int],
    min_score: float,
    *,
    num_classes: int | None = None,
) -> list[Detections]:
    """Decoded YOLOX, YOLOv5, YOLOv7: cx, cy, w, h in pixels, objectness and classes.

    Args:
        outputs: (N, A, 5 + classes), and perhaps masks of another rank.
        input_wh: width and height of the model's input, pixels.
        min_score: the lowest score of a box.
        num_classes: columns that are classes; None takes all.
    """
    raw = main_output(outputs)
    if raw.shape[2] < 6:
        raise ModelLayoutError(f"expected output (N, A, 5 + classes), got {raw.shape}")
    end = None if num_classes is None else 5 + num_classes
    found = []
    for image in raw:
        score = image[:, 4:5] * image[:, 5:end]
        keep = score.max(axis=1) >= min_score
        boxes = in_pixels(image[:, :4], input_wh)[keep]
        found.append(best_class(corners(boxes[:, :2], boxes[:, 2:]), score[keep]))
    return found


def decode_yolov8(
    outputs: Outputs,
    input_wh: tuple[int, int],
    min_score: float,
    *,
    num_classes: int | None = None,
    rotated: bool = False,
    places_first: bool = False,
) -> list[Detections]:
    """YOLOv8 and later: cx, cy, w, h in pixels and class probabilities.

    Args:
        outputs: (N, 4 + classes + others, A), and perhaps masks of another rank. Keypoints and
            mask coefficients follow the classes and are not read.
        input_wh: width and height of the model's input, pixels.
        min_score: the lowest score of a box.
        num_classes: rows that are classes; None takes all.
        rotated: the last row is the box's angle in radians; the upright box around it is given.
        places_first: the output is transposed, (N, A, 4 + classes + others).
    """
    raw = main_output(outputs)
    if places_first:
        raw = raw.transpose(0, 2, 1)
    if raw.shape[1] < 5:
        raise ModelLayoutError(f"expected YOLOv8 output (N, 4 + classes, A), got {raw.shape}")
    end = None if num_classes is None else 4 + num_classes
    found = []
    for image in raw:
        classes = image[4:end]
        keep = classes.max(axis=0) >= min_score
        boxes = in_pixels(image[:4].T, input_wh)[keep]
        size = boxes[:, 2:]
        if rotated:
            size = _enclosing(size, image[-1, keep])
        found.append(best_class(corners(boxes[:, :2], size), classes[:, keep].T))
    return found


def yolov8_classes(outputs: Outputs, export: ExportMetadata, *, places_first: bool) -> int:
    """How many of a YOLOv8 model's rows are classes, not keypoints, masks or an angle.

    Raises:
        ModelLayoutError: its metadata and its outputs contradict each other.
    """
    raw = main_output(outputs)
    rows: int = raw.shape[2 if places_first else 1]
    masks = [array.shape[1] for array in outputs.values() if array.ndim == 4]
    others = (
        masks[0] if masks else {"pose": export.keypoint_values, "obb": 1}.get(export.task or "", 0)
    )
    named = export.num_classes
    if others is None:  # a pose model that does not state its keypoints
        others = rows - 4 - (named or 1)
    if named is None and export.task is None and rows == COCO_POSE_ROWS:
        values = raw[..., 5:] if places_first else raw[:, 5:]
        if (values > 1).any():
            return 1
    if named is not None and rows != 4 + named + others:
        raise ModelLayoutError(
            f"its metadata states {named} classes and the task {export.task or 'unknown'!r}: "
            f"expected {4 + named + others} numbers a box, got {rows} in "
            f"{describe_shapes(shapes_of(outputs))}"
        )
    return rows - 4 - others


def main_output(outputs: Outputs) -> Float32:
    """The only output of rank 3, beside which a segmentation model has its masks.

    Raises:
        ModelLayoutError: there is none, or more than one.
    """
    found = [array for array in outputs.values() if array.ndim == 3]
    if len(found) != 1:
        raise ModelLayoutError(
            "expected one output of three dimensions, got " + describe_shapes(shapes_of(outputs))
        )
    return found[0]


def _enclosing(size: Float32, angle: Float32) -> Float32:
    """Width and height (n, 2) of the upright boxes around rotated ones."""
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    width, height = size.T
    return np.stack([width * cos + height * sin, width * sin + height * cos], axis=1)
