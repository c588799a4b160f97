"""Finding people in a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from storeguard.config.models import DetectorSettings
from storeguard.engines.loading import load_detector
from storeguard.errors import ConfigError
from storeguard.video.pictures import find_pictures, read_picture


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
    detector = load_detector(settings)
    with _opened(out) as lines:
        for done, path in enumerate(files, start=1):
            found, _ = detector.find(read_picture(path))
            line = {
                "image": path.name,
                "boxes_xyxy": [[round(float(v), 2) for v in box] for box in found.xyxy],
                "scores": [round(float(score), 4) for score in found.score],
            }
            lines.write(json.dumps(line) + "\n")
            progress(done)
    return len(files)


def _opened(out: Path) -> TextIO:
    try:
        return out.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
