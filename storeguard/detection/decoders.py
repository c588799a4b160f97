"""From a detector's raw outputs to boxes: one function per output layout.

Every decoder takes the model's outputs as a mapping from output name to array (first axis: batch)
and the input's width and height, and gives one `Detections` per image, in pixels of the model's
input, of every class, before non-maximum suppression; `min_score` thins them early.

Layouts and where their arithmetic comes from:

- YOLOX: (N, A, 5 + C), raw grid; Ge et al. 2021, arXiv:2107.08430, section 2.
- YOLOv8, YOLO11: (N, 4 + C, A), centre and size in input pixels, no objectness; as exported by
  Ultralytics.
- DETR family (RT-DETR, D-FINE, RF-DETR): logits (N, Q, C) and normalised centre boxes (N, Q, 4);
  Carion et al. 2020, arXiv:2005.12872, sigmoid scores as in Zhu et al. 2021, arXiv:2010.04159.
- DetectNet_v2 (PeopleNet): coverage (N, C, H, W) and box edges (N, 4C, H, W) on a stride-16 grid,
  offset 0.5 and norm 35; NVIDIA's TAO documentation, "DetectNet_v2 post-processing".
- SSD with NMS inside: boxes, classes and scores, already selected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import LayoutName
from storeguard.detection.detections import Detections
from storeguard.errors import ModelLayoutError

Outputs = Mapping[str, NDArray[np.float32]]
Decoder = Callable[[Outputs, tuple[int, int], float], list[Detections]]

YOLOX_STRIDES = (8, 16, 32)
DETECTNET_NORM = 35.0
DETECTNET_OFFSET = 0.5


def recognise(shapes: Mapping[str, tuple[int, ...]], input_wh: tuple[int, int]) -> LayoutName:
    """Which layout a model's outputs have.

    Args:
        shapes: name and real shape of each output, as seen on a batch of one.
        input_wh: the input width and height in pixels.

    Raises:
        ModelLayoutError: none fits; the message lists the shapes seen.
    """
    ranks = sorted((len(shape), shape) for shape in shapes.values())
    if len(shapes) == 1:
        shape = ranks[0][1]
        if len(shape) == 3 and shape[2] >= 6 and shape[1] == _num_anchors(input_wh):
            return LayoutName.YOLOX
        if len(shape) == 3 and shape[1] >= 5 and shape[2] > shape[1]:
            return LayoutName.YOLOV8
    if len(shapes) == 2:
        (rank_a, a), (rank_b, b) = ranks
        if rank_a == rank_b == 4 and a[2:] == b[2:] and 4 * min(a[1], b[1]) == max(a[1], b[1]):
            return LayoutName.DETECTNET_V2
        if rank_a == rank_b == 3 and a[1] == b[1] and 4 in (a[2], b[2]):
            return LayoutName.DETR
    if len(shapes) in (3, 4) and _ssd_names(shapes) is not None:
        return LayoutName.SSD
    known = ", ".join(name for name in LayoutName if name is not LayoutName.AUTO)
    raise ModelLayoutError(
        f"the outputs fit no known detector layout ({known}): saw {describe_shapes(shapes)} "
        f"for an input of {input_wh[0]}x{input_wh[1]}; "
        "if it is one of them, name it with detector.layout"
    )


def describe_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """``name (1, 2, 3), other (1, 4)`` for messages."""
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def decode_yolox(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """YOLOX raw grid: cx, cy, w, h in grid units, objectness and classes after their sigmoids."""
    (raw,) = outputs.values()
    if raw.shape[1] != _num_anchors(input_wh) or raw.shape[2] < 6:
        raise ModelLayoutError(
            f"expected YOLOX output (N, {_num_anchors(input_wh)}, 5 + classes) for an input of "
            f"{input_wh[0]}x{input_wh[1]}, got {raw.shape}"
        )
    grid, stride = _yolox_grid(input_wh)
    found = []
    for image in raw:
        score = image[:, 4:5] * image[:, 5:]
        keep = score.max(axis=1) >= min_score
        rows, cells, steps = image[keep], grid[keep], stride[keep]
        centre = (rows[:, :2] + cells) * steps
        size = np.exp(np.minimum(rows[:, 2:4], 20.0)) * steps
        found.append(_best_class(_corners(centre, size), score[keep]))
    return found


def decode_yolov8(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """YOLOv8/YOLO11: (N, 4 + C, A), cx, cy, w, h in input pixels and class probabilities."""
    del input_wh
    (raw,) = outputs.values()
    if raw.ndim != 3 or raw.shape[1] < 5:
        raise ModelLayoutError(f"expected YOLOv8 output (N, 4 + classes, A), got {raw.shape}")
    found = []
    for image in raw:
        keep = image[4:].max(axis=0) >= min_score
        rows = image[:, keep].T
        found.append(_best_class(_corners(rows[:, :2], rows[:, 2:4]), rows[:, 4:]))
    return found


def decode_detr(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """DETR family: logits (N, Q, C) before the sigmoid, boxes (N, Q, 4) as cx, cy, w, h in 0..1."""
    logits, boxes = _logits_and_boxes(outputs)
    size = np.array(input_wh * 2, dtype=np.float32)
    found = []
    for image_logits, image_boxes in zip(logits, boxes, strict=True):
        score = 1.0 / (1.0 + np.exp(-np.clip(image_logits, -60, 60)))
        keep = score.max(axis=1) >= min_score
        rows = image_boxes[keep] * size
        found.append(_best_class(_corners(rows[:, :2], rows[:, 2:]), score[keep]))
    return found


def decode_detectnet_v2(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """DetectNet_v2: coverage (N, C, H, W) and, per class, distances to left, top, right, bottom."""
    coverage, edges = sorted(outputs.values(), key=lambda array: array.shape[1])
    num_classes, rows, columns = coverage.shape[1:]
    if edges.shape[1] != 4 * num_classes:
        raise ModelLayoutError(
            f"expected DetectNet_v2 coverage (N, C, H, W) and boxes (N, 4C, H, W), got "
            f"{coverage.shape} and {edges.shape}"
        )
    stride = np.array([input_wh[0] / columns, input_wh[1] / rows], dtype=np.float32)
    found = []
    for image_coverage, image_edges in zip(coverage, edges, strict=True):
        class_id, row, column = np.nonzero(image_coverage >= min_score)
        left_top_right_bottom = image_edges.reshape(num_classes, 4, rows, columns)
        distance = left_top_right_bottom[class_id, :, row, column] * DETECTNET_NORM
        centre = np.stack([column, row], axis=1) * stride + DETECTNET_OFFSET
        xyxy = np.concatenate([centre - distance[:, :2], centre + distance[:, 2:]], axis=1)
        found.append(Detections.of(xyxy, image_coverage[class_id, row, column], class_id))
    return found


def decode_ssd(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """SSD with NMS inside: boxes (N, K, 4), classes (N, K), scores (N, K), and perhaps a count.

    Boxes are left, top, right, bottom; or, where the output is called ``detection_boxes`` as in
    TensorFlow's models, top, left, bottom, right. Values up to 2 are taken as fractions of the
    input, larger ones as pixels.
    """
    names = _ssd_names({name: array.shape for name, array in outputs.items()})
    if names is None:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise ModelLayoutError(
            f"expected SSD boxes, classes, scores; got {describe_shapes(shapes)}"
        )
    boxes, classes, scores = (outputs[name] for name in names)
    order = [1, 0, 3, 2] if "detection_boxes" in names[0] else [0, 1, 2, 3]
    size = np.array(input_wh * 2, dtype=np.float32)
    found = []
    for image_boxes, image_classes, image_scores in zip(boxes, classes, scores, strict=True):
        keep = image_scores >= min_score
        xyxy = image_boxes[keep][:, order]
        if not len(xyxy) or np.abs(xyxy).max() <= 2.0:
            xyxy = xyxy * size
        found.append(Detections.of(xyxy, image_scores[keep], image_classes[keep]))
    return found


DECODERS: Mapping[LayoutName, Decoder] = {
    LayoutName.YOLOX: decode_yolox,
    LayoutName.YOLOV8: decode_yolov8,
    LayoutName.DETR: decode_detr,
    LayoutName.DETECTNET_V2: decode_detectnet_v2,
    LayoutName.SSD: decode_ssd,
}


def _corners(centre: NDArray[np.float32], size: NDArray[np.float32]) -> NDArray[np.float32]:
    half = size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _best_class(xyxy: NDArray[np.float32], score: NDArray[np.float32]) -> Detections:
    class_id = score.argmax(axis=1) if len(score) else np.zeros(0, np.int64)
    best = score[np.arange(len(score)), class_id]
    return Detections.of(xyxy, best, class_id)


def _num_anchors(input_wh: tuple[int, int]) -> int:
    return sum((input_wh[0] // step) * (input_wh[1] // step) for step in YOLOX_STRIDES)


@lru_cache(maxsize=16)
def _yolox_grid(input_wh: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    cells, steps = [], []
    for step in YOLOX_STRIDES:
        columns, rows = input_wh[0] // step, input_wh[1] // step
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack([x, y], axis=2).reshape(-1, 2))
        steps.append(np.full((rows * columns, 1), step))
    return (
        np.concatenate(cells).astype(np.float32),
        np.concatenate(steps).astype(np.float32),
    )


def _logits_and_boxes(outputs: Outputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    named_boxes = [name for name in outputs if "box" in name.lower()]
    shaped_boxes = [name for name, array in outputs.items() if array.shape[-1] == 4]
    boxes = named_boxes if len(named_boxes) == 1 else shaped_boxes
    if len(outputs) != 2 or len(boxes) != 1:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise ModelLayoutError(
            "expected DETR logits (N, Q, C) and boxes (N, Q, 4), distinguishable by name or shape; "
            "got " + describe_shapes(shapes)
        )
    (logits,) = (name for name in outputs if name != boxes[0])
    return outputs[logits], outputs[boxes[0]]


def _ssd_names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, str] | None:
    boxes = [name for name, shape in shapes.items() if len(shape) == 3 and shape[2] == 4]
    flat = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] > 1]
    flat = flat or [name for name, shape in shapes.items() if len(shape) == 2]
    scores = [name for name in flat if "score" in name.lower() or "conf" in name.lower()]
    classes = [name for name in flat if "class" in name.lower() or "label" in name.lower()]
    if len(boxes) == len(scores) == len(classes) == 1:
        return boxes[0], classes[0], scores[0]
    return None
