"""The format of a model's pictures: order of dimensions and colours, scale, normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import Channels, LayoutName, Pixels, Resize
from storeguard.errors import ModelError
from storeguard.inference.backend import Array, ModelInput

_IMAGENET_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_IMAGENET_STD: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What a model is fed.

    Attributes:
        pixels: 0..255, 0..1, or normalised as ImageNet's models are; not `auto`.
        channels: RGB or BGR; not `auto`.
        channels_last: (n, height, width, 3) instead of (n, 3, height, width).
        dtype: of its input; a uint8 input takes the bytes as they are.
    """

    pixels: Pixels
    channels: Channels
    channels_last: bool
    dtype: np.dtype[np.generic]

    def pack(self, images: NDArray[np.uint8]) -> Array:
        """Pictures (n, height, width, 3) uint8 RGB in the model's format."""
        if self.channels is Channels.BGR:
            images = images[..., ::-1]
        if not self.channels_last:
            images = images.transpose(0, 3, 1, 2)
        if self.dtype == np.uint8:
            return np.ascontiguousarray(images)
        values = np.ascontiguousarray(images, dtype=np.float32)
        if self.pixels is not Pixels.BYTES:
            values *= np.float32(1 / 255)
        if self.pixels is Pixels.IMAGENET:
            shape = (3,) if self.channels_last else (3, 1, 1)
            order = -1 if self.channels is Channels.BGR else 1
            values -= _IMAGENET_MEAN[::order].reshape(shape)
            values /= _IMAGENET_STD[::order].reshape(shape)
        return values.astype(self.dtype, copy=False)


def is_channels_last(model_input: ModelInput, path: Path) -> bool:
    """Whether a model for pictures takes (n, height, width, 3).

    Raises:
        ModelError: it takes no pictures.
    """
    shape = model_input.shape
    if len(shape) != 4:
        raise ModelError(f"{path}: expected pictures (4 dimensions) as input, got {shape}")
    if shape[3] == 3:
        return True
    if shape[1] in (3, None):
        return False
    raise ModelError(f"{path}: expected an input (N, 3, H, W) or (N, H, W, 3), got {shape}")


_E = TypeVar("_E", Pixels, Channels, LayoutName, Resize)


def chosen(setting: _E, metadata: str | None, default: _E) -> _E:
    """The setting, else the value in the model's metadata, else the default."""
    return from_metadata(metadata, default) if setting == "auto" else setting


def from_metadata(metadata: str | None, default: _E) -> _E:
    """The value in the model's metadata if it is one of ours: others write ``channels: 3``."""
    try:
        value = type(default)(metadata or "")
    except ValueError:
        return default
    return default if value == "auto" else value
