"""Crops of one person: which part of the picture, and the model's input.

Training and serving both use this file, so that a model is served the crops it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storeguard.config.models import Resize

PAD: Final = 0.08
"""Added on each side of the person's box, in its widths and heights: things in hands stick out."""
MAX_SIDE_PX: Final = 256
"""The longer side of a crop; larger ones are scaled down."""
FILL_RGB: Final = (124, 116, 104)
"""What a letterboxed crop is filled up with: ImageNet's mean colour, about zero normalised."""

Crop = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB: one person, with a little around, at most MAX_SIDE_PX a side."""


def person_crop(picture: NDArray[np.uint8], xyxy: NDArray[np.float32]) -> Crop:
    """One person, cut out of a clean picture.

    Args:
        picture: (height, width, 3) uint8 RGB.
        xyxy: (4,) their box, in its pixels; what lies outside the picture is left out.

    Raises:
        ValueError: nothing of the box lies in the picture.
    """
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    pad_x, pad_y = PAD * (x2 - x1), PAD * (y2 - y1)
    left, top = max(0, round(x1 - pad_x)), max(0, round(y1 - pad_y))
    right, bottom = min(width, round(x2 + pad_x)), min(height, round(y2 + pad_y))
    if right <= left or bottom <= top:
        raise ValueError(f"expected a box inside {width}x{height}, got {xyxy.tolist()}")
    return shrunk(picture[top:bottom, left:right])


def shrunk(picture: NDArray[np.uint8]) -> Crop:
    """A picture of one person, scaled down if it is larger than a crop."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE_PX / max(width, height)
    if scale >= 1:
        return np.ascontiguousarray(picture)
    return _resized(picture, (max(1, round(width * scale)), max(1, round(height * scale))))


def to_pictures(
    crops: Sequence[Crop], size_wh: tuple[int, int], *, resize: Resize
) -> NDArray[np.uint8]:
    """(n, height, width, 3) uint8 RGB: crops of any size as a model of one size takes them.

    Args:
        crops: n > 0 of them.
        size_wh: width and height of the model's input, pixels.
        resize: keep proportions, centred, and fill up with FILL_RGB, or stretch.
    """
    width, height = size_wh
    pictures = np.empty((len(crops), height, width, 3), np.uint8)
    pictures[:] = FILL_RGB
    for crop, canvas in zip(crops, pictures, strict=True):
        if resize is Resize.STRETCH:
            canvas[:] = _resized(crop, size_wh)
            continue
        scale = min(width / crop.shape[1], height / crop.shape[0])
        inner_w = max(1, min(width, round(crop.shape[1] * scale)))
        inner_h = max(1, min(height, round(crop.shape[0] * scale)))
        left, top = (width - inner_w) // 2, (height - inner_h) // 2
        canvas[top : top + inner_h, left : left + inner_w] = _resized(crop, (inner_w, inner_h))
    return pictures


def _resized(picture: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size_wh, Image.Resampling.BILINEAR))
