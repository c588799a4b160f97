"""Pictures as JPEG."""

from __future__ import annotations

import io

from PIL import Image

from storeguard.video.frame import Rgb


def encode_jpeg(rgb: Rgb, *, quality: int = 80) -> bytes:
    """A (height, width, 3) uint8 RGB picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
