"""Finding people in a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from storeguard.config.models import DetectorSettings
from storeguard.engines.loading import load_detector
from storeguard.errors import ConfigError, DatasetError
from storeguard.video.pictures import PictureFolder


@dataclass(frozen=True, slots=True)
class DetectedFolder:
    """What became of a folder's files.

    Attributes:
        num_pictures: lines written.
        lost: files that gave no picture, by cause.
        losses: the same in words, with the files' names.
    """

    num_pictures: int
    lost: Mapping[str, int]
    losses: str


def detect_folder(
    folder: Path,
    out: Path,
    settings: DetectorSettings,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> DetectedFolder:
    """Write one JSON line a picture: ``image`` (file name), ``boxes_xyxy`` (pixels), ``scores``.

    Boxes are in pixels of the picture as it is shown.

    Raises:
        DatasetError: the folder is missing, or holds no picture that can be read.
        ConfigError: `out` cannot be written.
    """
    pictures = PictureFolder(folder)
    if not pictures.files:
        raise DatasetError(f"{folder}: no picture in it; lost: {pictures.describe_losses()}")
    detector = load_detector(settings)
    done = 0
    with _opened(out) as lines:
        for done, (path, frame) in enumerate(pictures.frames(), start=1):
            found, _ = detector.find(frame)
            line = {
                "image": path.name,
                "boxes_xyxy": [[round(float(v), 2) for v in box] for box in found.xyxy],
                "scores": [round(float(score), 4) for score in found.score],
            }
            lines.write(json.dumps(line) + "\n")
            progress(done)
    if not done:
        raise DatasetError(
            f"{folder}: none of its pictures can be read: {pictures.describe_losses()}"
        )
    return DetectedFolder(done, pictures.losses(), pictures.describe_losses(names=1000))


def _opened(out: Path) -> TextIO:
    try:
        return out.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
