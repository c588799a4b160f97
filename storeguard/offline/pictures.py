"""Finding people in a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from storeguard.config.models import DetectorSettings
from storeguard.detection.detections import Detections
from storeguard.detection.detector import Detector
from storeguard.detection.letterbox import Fit, place
from storeguard.errors import ConfigError, DatasetError, SourceError
from storeguard.video.frame import Frame

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def detect_folder(
    folder: Path,
    out: Path,
    settings: DetectorSettings,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write one JSON line a picture: ``image`` (file name), ``boxes_xyxy`` (pixels), ``scores``.

    Returns:
        How many pictures there were.

    Raises:
        DatasetError: the folder is missing or holds no picture.
        SourceError: a picture cannot be read; it names the file.
        ConfigError: `out` cannot be written.
    """
    files = find_pictures(folder)
    detector = Detector(settings)
    with _opened(out) as lines:
        for done, path in enumerate(files, start=1):
            found = detect_picture(detector, path)
            line = {
                "image": path.name,
                "boxes_xyxy": [[round(float(v), 2) for v in box] for box in found.xyxy],
                "scores": [round(float(score), 4) for score in found.score],
            }
            lines.write(json.dumps(line) + "\n")
            progress(done)
    return len(files)


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


def detect_picture(detector: Detector, path: Path) -> Detections:
    """People in one picture file, in its pixels (after its EXIF orientation).

    Raises:
        SourceError: it cannot be read.
    """
    canvas, where = fitted_picture(detector, path)
    found, _ = detector.detect(canvas[np.newaxis])
    return where.to_source(found[0])


def fitted_picture(detector: Detector, path: Path) -> tuple[NDArray[np.uint8], Fit]:
    """One picture file as the detector wants it, and where in it the picture went.

    Returns:
        (height, width, 3) uint8 RGB of the detector's input size.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: cannot read the picture: {error}") from None
    frame = Frame(
        camera_id=path.name,
        index=0,
        captured_at=_EPOCH,
        time_s=0.0,
        picture=av.VideoFrame.from_ndarray(rgb, format="rgb24"),
        scene_cut=False,
        decode_ms=0.0,
        received_s=0.0,
    )
    where = detector.info.fit(frame.wh)
    width, height = detector.info.input_wh
    canvas = np.empty((height, width, 3), np.uint8)
    place(frame, where, canvas)
    return canvas, where


def _opened(out: Path) -> TextIO:
    try:
        return out.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
