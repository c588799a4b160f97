"""Reading picture files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import av
import numpy as np
from PIL import Image, ImageOps

from storeguard.errors import DatasetError, SourceError
from storeguard.video.frame import Frame

ENDINGS: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def find_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, by name.

    Raises:
        DatasetError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of pictures")
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()
    )
    if not files:
        raise DatasetError(f"{folder}: no picture in it ({', '.join(sorted(ENDINGS))})")
    return files


def read_picture(path: Path) -> Frame:
    """One picture file as a frame, turned as its EXIF orientation says; its time is 1970-01-01.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: cannot read the picture: {error}") from None
    return Frame(
        camera_id=path.name,
        index=0,
        captured_at=_EPOCH,
        time_s=0.0,
        picture=av.VideoFrame.from_ndarray(rgb, format="rgb24"),
        scene_cut=False,
        decode_ms=0.0,
        received_s=0.0,
    )
