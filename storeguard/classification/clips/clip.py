"""Clips of one person: which moments, which part of the picture, and the model's input.

Training and serving both use this file, so that a model is served the clips it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storeguard.config.zones import CLIP_S

CLIP_FPS: Final = 8.0
CLIP_FRAMES: Final = round(CLIP_S * CLIP_FPS)
SIDE_PX: Final = 224
PAD: Final = 1.15
"""Side of the square window, in heights (or widths, if more) of the person's box."""
FILL_RGB: Final = (124, 116, 104)
"""Colour outside the frame: ImageNet's mean, which normalises to about zero."""

_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32) * 255
_STD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32) * 255
_LATE_S: Final = 1.5 / CLIP_FPS  # a moment's picture may be this far from it

MAX_UNSEEN_S: Final = 1.25
"""Between two sightings of a clip's person: a detector that runs once a second is enough."""

Clip = NDArray[np.uint8]
"""(CLIP_FRAMES, SIDE_PX, SIDE_PX, 3) uint8 RGB: one person, oldest first."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """How a training clip's windows are moved, the same for all its frames.

    Attributes:
        zoom: factor on the window's side.
        shift: (x, y) as fractions of the window's side.
        flip: mirrored, left and right.
    """

    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False


def clip_times(end_s: float) -> NDArray[np.float64]:
    """(CLIP_FRAMES,) stream seconds of a clip's moments, the last one `end_s`."""
    return end_s - np.arange(CLIP_FRAMES - 1, -1, -1) / CLIP_FPS


def nearest_frames(
    frame_s: NDArray[np.float64], moments_s: NDArray[np.float64]
) -> list[int] | None:
    """For each requested moment the index of the frame nearest to it.

    Args:
        frame_s: (n,) stream seconds of the frames there are, rising.
        moments_s: (t,) from `clip_times`.

    Returns:
        Indices, one a moment; a frame may be used twice where some were dropped. None if a moment
        has no frame near it: such a clip would show another motion than the person's.
    """
    if not len(frame_s):
        return None
    right = np.clip(np.searchsorted(frame_s, moments_s), 1, max(1, len(frame_s) - 1))
    left = right - 1
    right = np.minimum(right, len(frame_s) - 1)
    nearer = np.where(
        np.abs(frame_s[right] - moments_s) < np.abs(frame_s[left] - moments_s), right, left
    )
    if np.abs(frame_s[nearer] - moments_s).max() > _LATE_S:
        return None
    return [int(i) for i in nearer]


def boxes_at(
    seen_s: NDArray[np.float64], xyxy: NDArray[np.float32], moments_s: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(t, 4) the person's boxes at the requested moments, interpolated between sightings.

    Args:
        seen_s: (n,) stream seconds at which the person was seen, rising, n > 0.
        xyxy: (n, 4) their boxes then.
        moments_s: (t,) stream seconds.
    """
    columns = [np.interp(moments_s, seen_s, xyxy[:, i]) for i in range(4)]
    return np.stack(columns, axis=1).astype(np.float32)


def stays(seen_s: NDArray[np.float64]) -> list[tuple[float, float]]:
    """First and last sighting of each part of a person's track without a gap: clips fit in there.

    Args:
        seen_s: (n,) stream seconds at which the person was seen, rising.
    """
    parts = np.split(seen_s, np.flatnonzero(np.diff(seen_s) > MAX_UNSEEN_S) + 1)
    return [(float(part[0]), float(part[-1])) for part in parts if len(part)]


def windows_of(boxes: NDArray[np.float32], jitter: Jitter | None = None) -> NDArray[np.float64]:
    """(t, 3) square windows (centre x, centre y, side) that follow the boxes of one clip.

    The side is one for the whole clip, and the centre is smoothed over three moments: the
    detector's jitter would otherwise appear as motion.

    Args:
        boxes: (t, 4) xyxy in pixels of the frame.
        jitter: for training.
    """
    jitter = jitter or Jitter()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    padded = np.concatenate([centres[:1], centres, centres[-1:]]).astype(np.float64)
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    side = float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))) * PAD * jitter.zoom
    side = max(side, 2.0)
    shift = np.array(jitter.shift) * side
    return np.column_stack([smooth + shift, np.full(len(boxes), side)])


def cut_out(
    picture: NDArray[np.uint8], window: NDArray[np.float64], *, side_px: int = SIDE_PX
) -> NDArray[np.uint8]:
    """(side_px, side_px, 3) uint8 RGB: a square window of a picture, scaled; filled up outside.

    Args:
        picture: (height, width, 3) uint8 RGB.
        window: (3,) centre x, centre y, side, in pixels of the picture.
        side_px: of the result.
    """
    height, width = picture.shape[:2]
    x, y, side = (float(value) for value in window)
    left, top = x - side / 2, y - side / 2
    inner = (max(left, 0.0), max(top, 0.0), min(left + side, width), min(top + side, height))
    scale = side_px / side
    canvas = np.empty((side_px, side_px, 3), np.uint8)
    canvas[:] = FILL_RGB
    to = [round((inner[i] - (left, top)[i % 2]) * scale) for i in range(4)]
    size = (to[2] - to[0], to[3] - to[1])
    if min(size) < 1 or inner[2] <= inner[0] or inner[3] <= inner[1]:
        return canvas
    # Only the rows and columns that are needed: the picture may be a file mapped into memory.
    x0, y0 = int(inner[0]), int(inner[1])
    x1, y1 = min(width, int(np.ceil(inner[2]))), min(height, int(np.ceil(inner[3])))
    part = Image.fromarray(np.ascontiguousarray(picture[y0:y1, x0:x1]))
    box = (inner[0] - x0, inner[1] - y0, inner[2] - x0, inner[3] - y0)
    canvas[to[1] : to[3], to[0] : to[2]] = np.asarray(
        part.resize(size, Image.Resampling.BILINEAR, box=box)
    )
    return canvas


def person_clip(
    pictures: Sequence[NDArray[np.uint8]],
    boxes: NDArray[np.float32],
    jitter: Jitter | None = None,
) -> Clip:
    """One person, followed, cut out of clean pictures.

    Args:
        pictures: CLIP_FRAMES pictures (height, width, 3) uint8 RGB, oldest first.
        boxes: (CLIP_FRAMES, 4) the person's boxes in them, xyxy in their pixels.
        jitter: for training.
    """
    if len(pictures) != CLIP_FRAMES or boxes.shape != (CLIP_FRAMES, 4):
        raise ValueError(
            f"expected {CLIP_FRAMES} pictures and as many boxes, got {len(pictures)} and "
            f"{boxes.shape}"
        )
    windows = windows_of(boxes, jitter)
    clip = np.stack(
        [cut_out(picture, window) for picture, window in zip(pictures, windows, strict=True)]
    )
    return np.ascontiguousarray(clip[:, :, ::-1]) if jitter and jitter.flip else clip


def to_input(clips: Sequence[Clip]) -> NDArray[np.float32]:
    """(n, CLIP_FRAMES, 3, SIDE_PX, SIDE_PX) float32: a clip classifier's input.

    Normalised as ImageNet's classifiers are: mean (0.485, 0.456, 0.406), standard deviation (0.229,
    0.224, 0.225) of RGB in 0..1.
    """
    stacked = np.stack(clips).astype(np.float32)
    return np.ascontiguousarray(((stacked - _MEAN) / _STD).transpose(0, 1, 4, 2, 3))
