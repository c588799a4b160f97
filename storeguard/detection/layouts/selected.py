"""Layouts of models that select their boxes themselves, or that give corners, score and class.

- END2END: (N, K, 6 or more): x1, y1, x2, y2, score, class; YOLOv10, YOLO26, and Ultralytics'
  exports with `nms=True`. What follows (keypoints, mask coefficients) is not read.
- DEEPSTREAM: the same row for every place, or boxes, scores and classes apart; before NMS.
- SSD and EFFICIENT_NMS: boxes (N, K, 4), classes (N, K), scores (N, K), and perhaps a count.
- MMDET: dets (N, K, 5): x1, y1, x2, y2, score; labels (N, K); MMDeploy's exports.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.layouts.outputs import (
    Float32,
    Outputs,
    describe_shapes,
    in_pixels,
    shapes_of,
)
from storeguard.detection.layouts.yolo import main_output
from storeguard.errors import ModelLayoutError


def decode_rows(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """Rows of x1, y1, x2, y2 in pixels, score, class, and perhaps more."""
    raw = main_output(outputs)
    if raw.shape[2] < 6:
        raise ModelLayoutError(
            f"expected rows (N, K, 6) of x1, y1, x2, y2, score, class; got {raw.shape}"
        )
    return [_thinned(image[:, :4], image[:, 4], image[:, 5], input_wh, min_score) for image in raw]


def decode_deepstream(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """DeepStream-Yolo: as `decode_rows`, or boxes (N, A, 4), scores and classes (N, A, 1)."""
    if len(outputs) == 1:
        return decode_rows(outputs, input_wh, min_score)
    flat = {
        name: array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
        for name, array in outputs.items()
    }
    return decode_ssd(flat, input_wh, min_score)


def decode_ssd(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """SSD and EfficientNMS: boxes (N, K, 4), classes (N, K), scores (N, K), and perhaps a count.

    Boxes are left, top, right, bottom; or, where the output is called ``detection_boxes`` as in
    TensorFlow's models, top, left, bottom, right. Values up to 2 are taken as fractions of the
    input, larger ones as pixels. Rows past the count are not read: they may hold anything.
    """
    names = ssd_names(shapes_of(outputs))
    if names is None:
        raise ModelLayoutError(
            f"expected SSD boxes, classes, scores; got {describe_shapes(shapes_of(outputs))}"
        )
    boxes, classes, scores = (outputs[name] for name in names)
    order = [1, 0, 3, 2] if "detection_boxes" in names[0] else [0, 1, 2, 3]
    counts = [array.reshape(len(array), -1)[:, 0] for array in _counts(outputs, names)]
    found = []
    for index, image_boxes in enumerate(boxes):
        end = int(counts[0][index]) if counts else len(image_boxes)
        found.append(
            _thinned(
                image_boxes[:end, order],
                scores[index, :end],
                classes[index, :end],
                input_wh,
                min_score,
            )
        )
    return found


def decode_mmdet(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """MMDeploy: dets (N, K, 5) of x1, y1, x2, y2 in pixels and score, labels (N, K)."""
    names = mmdet_names(shapes_of(outputs))
    if names is None:
        raise ModelLayoutError(
            "expected dets (N, K, 5) and labels (N, K); got " + describe_shapes(shapes_of(outputs))
        )
    return [
        _thinned(dets[:, :4], dets[:, 4], labels, input_wh, min_score)
        for dets, labels in zip(outputs[names[0]], outputs[names[1]], strict=True)
    ]


def ssd_names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, str] | None:
    """Names of the outputs boxes, classes and scores; None where they are not all there."""
    boxes = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    flat = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] > 1]
    flat = flat or [name for name, shape in shapes.items() if len(shape) == 2]
    scores = [name for name in flat if "score" in name.lower() or "conf" in name.lower()]
    classes = [name for name in flat if "class" in name.lower() or "label" in name.lower()]
    if len(boxes) == len(scores) == len(classes) == 1:
        return boxes[0], classes[0], scores[0]
    return None


def mmdet_names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """Names of the outputs dets and labels; None where they are not both there."""
    dets = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 5]
    labels = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(shapes) == 2 and len(dets) == len(labels) == 1:
        return dets[0], labels[0]
    return None


def _counts(outputs: Outputs, names: tuple[str, str, str]) -> list[Float32]:
    """The output that counts the boxes of each image, if there is one."""
    return [
        array
        for name, array in outputs.items()
        if name not in names and "num" in name.lower() and array.size == len(array)
    ]


def _thinned(
    boxes: Float32,
    scores: Float32,
    classes: Float32,
    input_wh: tuple[int, int],
    min_score: float,
) -> Detections:
    keep = scores >= min_score
    xyxy = in_pixels(boxes[keep], input_wh)
    return Detections.of(xyxy, scores[keep], np.rint(np.nan_to_num(classes[keep], nan=-1)))
