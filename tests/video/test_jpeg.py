"""Pictures as JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from storeguard.video.jpeg import encode_jpeg


def test_jpeg_keeps_size_and_colour_order() -> None:
    rgb = np.full((48, 64, 3), (200, 100, 50), np.uint8)

    with Image.open(io.BytesIO(encode_jpeg(rgb))) as picture:
        back = np.asarray(picture.convert("RGB"))

    assert picture.format == "JPEG"
    assert back.shape == rgb.shape
    np.testing.assert_allclose(back.mean(axis=(0, 1)), (200, 100, 50), atol=4)
    assert len(encode_jpeg(rgb, quality=10)) < len(encode_jpeg(rgb, quality=95))
