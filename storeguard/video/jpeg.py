"""Pictures as JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_jpeg(rgb: NDArray[np.uint8], *, quality: int = 80) -> bytes:
    """A (height, width, 3) uint8 RGB picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
