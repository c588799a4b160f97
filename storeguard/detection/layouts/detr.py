"""The DETR family: a fixed number of queries, each a person or nothing; no NMS.

RT-DETR, D-FINE, DEIM, RF-DETR: logits (N, Q, C) and normalised centre boxes (N, Q, 4); Carion et
al. 2020, arXiv:2005.12872, sigmoid scores as in Zhu et al. 2021, arXiv:2010.04159. Ultralytics'
RT-DETR has both in one output, (N, Q, 4 + C), after the sigmoid.
"""

from __future__ import annotations

import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.layouts.outputs import (
    Float32,
    Outputs,
    best_class,
    corners,
    describe_shapes,
    probabilities,
    shapes_of,
)
from storeguard.errors import ModelLayoutError


def decode_detr(outputs: Outputs, input_wh: tuple[int, int], min_score: float) -> list[Detections]:
    """DETR family: logits or probabilities, boxes as cx, cy, w, h in 0..1."""
    scores, boxes = _scores_and_boxes(outputs)
    size = np.array(input_wh * 2, dtype=np.float32)
    (scores,) = probabilities([scores])
    found = []
    for image_scores, image_boxes in zip(scores, boxes, strict=True):
        keep = image_scores.max(axis=1) >= min_score
        rows = image_boxes[keep] * size
        found.append(best_class(corners(rows[:, :2], rows[:, 2:]), image_scores[keep]))
    return found


def _scores_and_boxes(outputs: Outputs) -> tuple[Float32, Float32]:
    if len(outputs) == 1:
        (both,) = outputs.values()
        if both.ndim != 3 or both.shape[2] < 5:
            raise ModelLayoutError(f"expected DETR output (N, Q, 4 + classes), got {both.shape}")
        return both[..., 4:], both[..., :4]
    named_boxes = [name for name in outputs if "box" in name.lower()]
    shaped_boxes = [name for name, array in outputs.items() if array.shape[-1] == 4]
    boxes = named_boxes if len(named_boxes) == 1 else shaped_boxes
    if len(outputs) != 2 or len(boxes) != 1:
        raise ModelLayoutError(
            "expected DETR logits (N, Q, C) and boxes (N, Q, 4), distinguishable by name or shape; "
            "got " + describe_shapes(shapes_of(outputs))
        )
    (logits,) = (name for name in outputs if name != boxes[0])
    return outputs[logits], outputs[boxes[0]]
