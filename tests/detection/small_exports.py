"""Outputs of the layouts that exporters give YOLO, RTMDet and Paddle models.

As in real models every place of a grid has a box, improbable ones with a score of 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.detection.small_models import Box, Float32

_STRIDES = (8, 16, 32)
_COARSE = (8, 16, 32, 64)
_BINS = 8


def places(input_wh: tuple[int, int], strides: Sequence[int] = _STRIDES) -> Float32:
    """Column, row and stride of each place, (A, 3)."""
    found = []
    for step in strides:
        columns, rows = -(-input_wh[0] // step), -(-input_wh[1] // step)
        y, x = np.mgrid[:rows, :columns]
        found.append(np.stack([x, y, np.full_like(x, step)], axis=2).reshape(-1, 3))
    return np.concatenate(found).astype(np.float32)


def decoded(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    objectness: float | None = None,
    anchors: int = 1,
    after: int = 0,
    corners: bool = False,
) -> Float32:
    """Rows (1, A, 4 + objectness + classes + after): boxes in pixels around each place's centre.

    Args:
        boxes: each fills one row.
        input_wh: the input's size, pixels.
        num_classes: columns of probabilities.
        objectness: that of rows without a box; None leaves the column out.
        anchors: boxes a place, one grid after another.
        after: columns that follow the classes; their values are pixels.
        corners: x1, y1, x2, y2 instead of centre and size.
    """
    at = np.concatenate([np.tile(level, (anchors, 1)) for level in _levels(input_wh)])
    first = 4 if objectness is None else 5
    rows = np.zeros((len(at), first + num_classes + after), np.float32)
    rows[:, :2], rows[:, 2:4] = (at[:, :2] + 0.5) * at[:, 2:], 2 * at[:, 2:]
    if objectness is not None:
        rows[:, 4] = objectness
    rows[:, first + num_classes :] = at[:, :1] * at[:, 2:] + 5
    for index, box in enumerate(boxes):
        row = rows[len(rows) - 1 - 3 * index]
        row[:4] = *box.centre, *box.wh
        if objectness is not None:
            row[4] = 1
        row[first + box.class_id] = box.score
    if corners:
        rows[:, :2] -= rows[:, 2:4] / 2
        rows[:, 2:4] += rows[:, :2]
    return rows[None]


def yolox_decoded(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    return {"output": decoded(boxes, input_wh, num_classes, objectness=0.01)}


def yolov5(boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int) -> dict[str, Float32]:
    return {"output0": decoded(boxes, input_wh, num_classes, objectness=0.01, anchors=3)}


def yolov6(boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int) -> dict[str, Float32]:
    return {"outputs": decoded(boxes, input_wh, num_classes, objectness=1)}


def yolov8_transposed(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    return {"output0": decoded(boxes, input_wh, num_classes)}


def pose(boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int) -> dict[str, Float32]:
    return {"output0": decoded(boxes, input_wh, num_classes, after=51).transpose(0, 2, 1)}


def segment(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    rows = decoded(boxes, input_wh, num_classes, after=32).transpose(0, 2, 1)
    return {"output0": rows, "output1": np.ones((1, 32, 80, 80), np.float32)}


def rotated(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int, *, angle: float = 0.0
) -> dict[str, Float32]:
    """Each box's width and height are those before it is turned."""
    rows = decoded(boxes, input_wh, num_classes, after=1)
    rows[..., -1] = angle
    return {"output0": rows.transpose(0, 2, 1)}


def end2end(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int, *, after: int = 0
) -> dict[str, Float32]:
    """300 rows of corners, score and class; the last ones hold other classes, without a score."""
    rows = np.zeros((1, 300, 6 + after), np.float32)
    rows[..., :4] = (4, 4, input_wh[0] - 4, input_wh[1] - 4)
    rows[..., 5] = np.arange(300) % num_classes
    rows[..., 6:] = 77
    for row, box in zip(rows[0], boxes, strict=False):
        row[:6] = *box.xyxy, box.score, box.class_id
    return {"output0": rows}


def deepstream(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    rows = decoded(boxes, input_wh, num_classes, corners=True)
    scores = rows[..., 4:].max(axis=2, keepdims=True)
    labels = rows[..., 4:].argmax(axis=2)[..., None].astype(np.float32)
    return {"output": np.concatenate([rows[..., :4], scores, labels], axis=2)}


def deepstream_apart(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    (rows,) = deepstream(boxes, input_wh, num_classes).values()
    return {"boxes": rows[..., :4], "scores": rows[..., 4:5], "classes": rows[..., 5:]}


def efficient_nms(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    """Rows past the count hold what was in memory: here people with a high score."""
    del num_classes
    everywhere = np.tile(np.array((0, 0, *input_wh), np.float32), (1, 100, 1))
    scores, classes = np.full((1, 100), 0.99, np.float32), np.zeros((1, 100), np.float32)
    for at, box in enumerate(boxes):
        everywhere[0, at], scores[0, at], classes[0, at] = box.xyxy, box.score, box.class_id
    return {
        "num_dets": np.array([[len(boxes)]], np.float32),
        "det_boxes": everywhere,
        "det_scores": scores,
        "det_classes": classes,
    }


def mmdet(boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int) -> dict[str, Float32]:
    del input_wh, num_classes
    dets, labels = np.zeros((1, 20, 5), np.float32), np.full((1, 20), -1, np.float32)
    for at, box in enumerate(boxes):
        dets[0, at], labels[0, at] = (*box.xyxy, box.score), box.class_id
    return {"dets": dets, "labels": labels}


def rtmdet_heads(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int, *, logits: bool = True
) -> dict[str, Float32]:
    """Three pairs: scores before their sigmoid, and distances in pixels from the cells' corners."""
    rows = _distances(boxes, input_wh, num_classes, strides=_STRIDES, offset=0.0)
    scores, distances = rows[..., :num_classes], rows[..., num_classes:]
    if logits:
        scores = _logits(scores)
    outputs, start = {}, 0
    for step in _STRIDES:
        columns, height = input_wh[0] // step, input_wh[1] // step
        level = slice(start, start + columns * height)
        start = level.stop
        for name, values in (("cls", scores), ("bbox", distances)):
            part = values[:, level].transpose(0, 2, 1)
            outputs[f"{name}_{step}"] = part.reshape(1, -1, height, columns)
    return outputs


def ppyoloe(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    strides: Sequence[int] = _STRIDES,
) -> dict[str, Float32]:
    """Boxes (1, A, 4) as corners in pixels, scores (1, C, A)."""
    at = places(input_wh, strides)
    centre = (at[:, :2] + 0.5) * at[:, 2:]
    corners = np.concatenate([centre - at[:, 2:], centre + at[:, 2:]], axis=1)
    scores = np.zeros((num_classes, len(at)), np.float32)
    for index, box in enumerate(boxes):
        corners[7 * index], scores[box.class_id, 7 * index] = box.xyxy, box.score
    return {"concat_14.tmp_0": corners[None], "tmp_17": scores[None]}


def picodet(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    return ppyoloe(boxes, input_wh, num_classes, strides=_COARSE)


def picodet_heads(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    strides: Sequence[int] = _COARSE,
) -> dict[str, Float32]:
    """A pair a stride: scores (1, H W, C) and distributions (1, H W, 32)."""
    rows = _distances(boxes, input_wh, num_classes, strides=strides, offset=0.5)
    raw = _distributions(rows[..., num_classes:], places(input_wh, strides))
    outputs, start = {}, 0
    for step in strides:
        level = slice(start, start + len(places(input_wh, [step])))
        start = level.stop
        outputs[f"cls_pred_stride_{step}"] = rows[:, level, :num_classes]
        outputs[f"dis_pred_stride_{step}"] = raw[:, level]
    return outputs


def nanodet(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int, *, plus: bool = True
) -> dict[str, Float32]:
    """(1, A, C + 32); NanoDet-Plus has a stride of 64 and points in the cells' corners."""
    strides, offset = (_COARSE, 0.0) if plus else (_STRIDES, 0.5)
    rows = _distances(boxes, input_wh, num_classes, strides=strides, offset=offset)
    raw = _distributions(rows[..., num_classes:], places(input_wh, strides))
    return {"output": np.concatenate([rows[..., :num_classes], raw], axis=2)}


def detr_in_one(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    """Ultralytics' RT-DETR: normalised boxes and probabilities, 300 queries."""
    rows = np.zeros((1, 300, 4 + num_classes), np.float32)
    rows[..., :4] = 0.5
    for row, box in zip(rows[0], boxes, strict=False):
        row[:4] = np.array((*box.centre, *box.wh)) / (*input_wh, *input_wh)
        row[4 + box.class_id] = box.score
    return {"output0": rows}


def _levels(input_wh: tuple[int, int]) -> list[Float32]:
    return [places(input_wh, [step]) for step in _STRIDES]


def _distances(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    strides: Sequence[int],
    offset: float,
) -> Float32:
    """Rows (1, A, classes + 4): probabilities, distances in pixels to the edges.

    Each box has the place of stride 32 that is nearest to its centre.
    """
    at = places(input_wh, strides)
    points = (at[:, :2] + offset) * at[:, 2:]
    rows = np.zeros((1, len(at), num_classes + 4), np.float32)
    rows[0, :, num_classes:] = at[:, 2:]
    for box in boxes:
        far = np.abs(points - np.array(box.centre)).sum(axis=1) + 1e6 * (at[:, 2] != 32)
        index = int(far.argmin())
        x, y = points[index]
        x1, y1, x2, y2 = box.xyxy
        rows[0, index, box.class_id] = box.score
        rows[0, index, num_classes:] = x - x1, y - y1, x2 - x, y2 - y
    return rows


def _distributions(distances: Float32, at: Float32) -> Float32:
    """(1, A, 32): each distance as two neighbouring bins, before their softmax."""
    bins = np.clip(distances / at[:, 2:], 0, _BINS - 1.001)
    low = np.floor(bins).astype(int)
    weights = np.full((*bins.shape, _BINS), 1e-9)
    np.put_along_axis(weights, low[..., None], (1 - (bins - low))[..., None] + 1e-9, axis=-1)
    np.put_along_axis(weights, low[..., None] + 1, (bins - low)[..., None] + 1e-9, axis=-1)
    raw: Float32 = np.log(weights).reshape(*distances.shape[:2], -1).astype(np.float32)
    return raw


def _logits(scores: Float32) -> Float32:
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    values: Float32 = np.log(clipped / (1 - clipped)).astype(np.float32)
    return values
