"""Fitting frames of any size into a model's input, and mapping boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import Resize
from storeguard.detection.detections import Detections
from storeguard.video.frame import Frame

PAD_VALUE = 114
"""Grey level of the padding, as YOLO models are trained with."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How one frame size sits in the model's input.

    Attributes:
        source_wh: frame width and height, pixels.
        inner_wh: size the frame is scaled to, pixels of the model's input.
        offset_xy: where its top-left corner sits, pixels of the model's input.
        input_wh: the model's input width and height, pixels.
    """

    source_wh: tuple[int, int]
    inner_wh: tuple[int, int]
    offset_xy: tuple[int, int]
    input_wh: tuple[int, int]

    def to_source(self, detections: Detections) -> Detections:
        """Boxes from pixels of the model's input to pixels of the frame, clipped to the frame.

        Boxes that lie in the padding alone are dropped.
        """
        width, height = self.source_wh
        scale = np.array(
            [width / self.inner_wh[0], height / self.inner_wh[1]] * 2, dtype=np.float32
        )
        offset = np.array(self.offset_xy * 2, dtype=np.float32)
        limit = np.array([width, height] * 2, dtype=np.float32)
        boxes = np.clip((detections.xyxy - offset) * scale, 0, limit)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return Detections(xyxy=boxes, score=detections.score, class_id=detections.class_id)[inside]


def fit(
    source_wh: tuple[int, int],
    input_wh: tuple[int, int],
    *,
    resize: Resize = Resize.LETTERBOX,
    centred: bool = True,
) -> Fit:
    """Where a frame is placed in the model's input.

    Args:
        source_wh: frame width and height in pixels, both positive.
        input_wh: the model's input width and height in pixels.
        resize: keep proportions and pad, or stretch.
        centred: pad on both sides, or only right and below (as YOLOX is trained).
    """
    if min(source_wh) < 1:
        raise ValueError(f"expected a frame of at least 1x1 pixels, got {source_wh}")
    if resize is Resize.STRETCH:
        return Fit(source_wh, input_wh, (0, 0), input_wh)
    scale = min(input_wh[0] / source_wh[0], input_wh[1] / source_wh[1])
    inner = (
        max(1, min(input_wh[0], round(source_wh[0] * scale))),
        max(1, min(input_wh[1], round(source_wh[1] * scale))),
    )
    offset = ((input_wh[0] - inner[0]) // 2, (input_wh[1] - inner[1]) // 2) if centred else (0, 0)
    return Fit(source_wh, inner, offset, input_wh)


def place(frame: Frame, where: Fit, canvas: NDArray[np.uint8]) -> None:
    """Scale a frame into its place on a canvas.

    Args:
        frame: a frame of size `where.source_wh`.
        where: from `fit`.
        canvas: (input height, input width, 3) uint8 RGB; every pixel of it is written.
    """
    (left, top), (width, height) = where.offset_xy, where.inner_wh
    canvas[:top] = PAD_VALUE
    canvas[top + height :] = PAD_VALUE
    canvas[top : top + height, :left] = PAD_VALUE
    canvas[top : top + height, left + width :] = PAD_VALUE
    canvas[top : top + height, left : left + width] = frame.rgb((width, height))
