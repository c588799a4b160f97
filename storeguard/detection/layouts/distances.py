"""Layouts without anchors: scores of each place, and its distances to the box's four edges.

- DetectNet_v2 (PeopleNet): coverage (N, C, H, W) and box edges (N, 4C, H, W) on a stride-16 grid,
  offset 0.5 and norm 35; NVIDIA's TAO documentation, "DetectNet_v2 post-processing".
- RTMDet's raw heads: scores (N, C, H, W) and distances in pixels (N, 4, H, W), a pair a stride;
  Lyu et al. 2022, arXiv:2212.07784, as in MMDetection's RTMDetSepBNHead.
- PP-YOLOE, PicoDet without NMS: boxes (N, A, 4) in pixels and scores (N, C, A).
- PicoDet's and NanoDet's raw heads: scores and a distribution of each distance; Li et al. 2020,
  arXiv:2006.04388 (generalized focal loss).
"""

from __future__ import annotations

import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.layouts.grid import STRIDES, grid, num_places, strides_of
from storeguard.detection.layouts.outputs import (
    Float32,
    Outputs,
    around,
    best_class,
    describe_shapes,
    probabilities,
    shapes_of,
)
from storeguard.errors import ModelLayoutError

DETECTNET_NORM = 35.0
DETECTNET_OFFSET = 0.5
DISTRIBUTION = 4 * 8
"""Numbers of one box: four distances, each a distribution over 0 to 7 strides."""
_BOX_WORDS = ("box", "reg", "dis")


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
        found.append(
            Detections.of(around(centre, distance), image_coverage[class_id, row, column], class_id)
        )
    return found


def decode_rtmdet(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """RTMDet's raw heads: scores before or after the sigmoid, distances in pixels."""
    heads = _head_pairs(outputs, rank=4, box_size=4)
    scores = probabilities([_places_first(score) for score, _ in heads])
    distances = np.concatenate([_places_first(distance) for _, distance in heads], axis=1)
    points = np.concatenate([_points(score, input_wh) for score, _ in heads])
    return _decoded(points, distances, np.concatenate(scores, axis=1), min_score)


def decode_ppyoloe(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """PP-YOLOE and PicoDet: boxes (N, A, 4) in pixels, scores (N, C, A) or (N, A, C).

    PicoDet's raw heads are read as `decode_heads` does.
    """
    if len(outputs) > 2:
        return decode_heads(outputs, input_wh, min_score)
    names = ppyoloe_names(shapes_of(outputs))
    if names is None:
        raise ModelLayoutError(
            "expected boxes (N, A, 4) and scores (N, C, A); got "
            + describe_shapes(shapes_of(outputs))
        )
    boxes, scores = outputs[names[0]], outputs[names[1]]
    if scores.shape[1] != boxes.shape[1]:
        scores = scores.transpose(0, 2, 1)
    (scores,) = probabilities([scores])
    found = []
    for image_boxes, image_scores in zip(boxes, scores, strict=True):
        keep = image_scores.max(axis=1) >= min_score
        found.append(best_class(image_boxes[keep], image_scores[keep]))
    return found


def decode_heads(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """PicoDet's and NanoDet's raw heads: per stride scores (N, H W, C), distances (N, H W, 32)."""
    heads = _head_pairs(outputs, rank=3, box_size=DISTRIBUTION)
    scores = np.concatenate(probabilities([score for score, _ in heads]), axis=1)
    raw = np.concatenate([distance for _, distance in heads], axis=1)
    return _from_distributions(scores, raw, input_wh, min_score, offset=0.5)


def decode_nanodet(
    outputs: Outputs, input_wh: tuple[int, int], min_score: float
) -> list[Detections]:
    """NanoDet: (N, A, C + 32), or raw heads as in `decode_heads`.

    NanoDet-Plus, which has a stride of 64, places its points in the cells' corners, NanoDet in
    their centres.
    """
    if len(outputs) > 1:
        return decode_heads(outputs, input_wh, min_score)
    (raw,) = outputs.values()
    if raw.ndim != 3 or raw.shape[2] <= DISTRIBUTION:
        raise ModelLayoutError(f"expected NanoDet output (N, A, classes + 32), got {raw.shape}")
    (scores,) = probabilities([raw[..., :-DISTRIBUTION]])
    plus = raw.shape[1] != num_places(input_wh, STRIDES)
    return _from_distributions(
        scores, raw[..., -DISTRIBUTION:], input_wh, min_score, offset=0.0 if plus else 0.5
    )


def ppyoloe_names(shapes: dict[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """Names of the outputs boxes (N, A, 4) and scores (N, C, A) or (N, A, C), or None."""
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes.values()):
        return None
    (a, a_shape), (b, b_shape) = shapes.items()
    if a_shape[2] == 4 and a_shape[1] in b_shape[1:]:
        return a, b
    if b_shape[2] == 4 and b_shape[1] in a_shape[1:]:
        return b, a
    return None


def _head_pairs(outputs: Outputs, *, rank: int, box_size: int) -> list[tuple[Float32, Float32]]:
    """Scores and distances of each stride, the finest first.

    Args:
        outputs: all of the model's.
        rank: 4 for (N, values, H, W), 3 for (N, places, values).
        box_size: values that make a box.
    """
    axis = 1 if rank == 4 else 2
    levels: dict[tuple[int, ...], list[tuple[str, Float32]]] = {}
    for name, array in outputs.items():
        if array.ndim == rank:
            place = array.shape[2:] if rank == 4 else array.shape[1:2]
            levels.setdefault(place, []).append((name, array))
    pairs = []
    for _, pair in sorted(levels.items(), reverse=True):
        boxes = [one for one in pair if one[1].shape[axis] == box_size]
        if len(boxes) == 2:
            boxes = [one for one in boxes if any(word in one[0].lower() for word in _BOX_WORDS)]
        scores = [one for one in pair if one[0] not in {name for name, _ in boxes}]
        if len(boxes) == len(scores) == 1:
            pairs.append((scores[0][1], boxes[0][1]))
    if len(pairs) * 2 != len(outputs) or len(pairs) < 2:
        raise ModelLayoutError(
            f"expected scores and distances ({box_size} numbers a place) of each stride; got "
            + describe_shapes(shapes_of(outputs))
        )
    return pairs


def _places_first(array: Float32) -> Float32:
    """(N, values, H, W) as (N, H W, values)."""
    return array.reshape(*array.shape[:2], -1).transpose(0, 2, 1)


def _points(score: Float32, input_wh: tuple[int, int]) -> Float32:
    """The corners of the cells of (N, C, H, W) scores, (H W, 2), pixels of the input."""
    rows, columns = score.shape[2:]
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    # a grid of a size that the stride does not divide is one cell larger
    stride = 2 ** round(float(np.log2(max(1.0, input_wh[0] / columns))))
    return np.stack([x, y], axis=2).reshape(-1, 2) * np.float32(stride)


def _from_distributions(
    scores: Float32,
    raw: Float32,
    input_wh: tuple[int, int],
    min_score: float,
    *,
    offset: float,
) -> list[Detections]:
    strides = strides_of(raw.shape[1], input_wh)
    if strides is None:
        raise ModelLayoutError(
            f"expected {num_places(input_wh)} places for an input of {input_wh[0]}x{input_wh[1]} "
            f"with strides {STRIDES}, or those of another set; got {raw.shape[1]}"
        )
    cells, steps = grid(input_wh, strides)
    bins = raw.reshape(*raw.shape[:2], 4, -1)
    weights = np.exp(bins - bins.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    distances = (weights * np.arange(bins.shape[3], dtype=np.float32)).sum(axis=3) * steps
    return _decoded((cells + np.float32(offset)) * steps, distances, scores, min_score)


def _decoded(
    points: Float32, distances: Float32, scores: Float32, min_score: float
) -> list[Detections]:
    """Boxes from points (A, 2), distances (N, A, 4) in pixels and scores (N, A, C)."""
    found = []
    for image_distances, image_scores in zip(distances, scores, strict=True):
        keep = image_scores.max(axis=1) >= min_score
        found.append(best_class(around(points[keep], image_distances[keep]), image_scores[keep]))
    return found
