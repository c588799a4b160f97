"""Model inputs to calibrate and compare on: real pictures, through the detector's preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.detection.detector import Detector
from storeguard.errors import DatasetError
from storeguard.inference.backend import Array
from storeguard.video.pictures import find_pictures, read_picture


class CalibrationBatches:
    """Batches as ONNX Runtime's quantiser reads them (its CalibrationDataReader, by shape).

    Args:
        input_name: the model's input.
        batches: (n, ...) of the input's dtype each.
    """

    def __init__(self, input_name: str, batches: Sequence[Array]) -> None:
        if not batches:
            raise DatasetError("calibration: no batch to calibrate on")
        self._name = input_name
        self._batches = batches
        self._next, self._end = 0, len(batches)

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Read the batches of this range next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by input name; None at the end of the range."""
        if self._next >= self._end:
            return None
        self._next += 1
        return {self._name: self._batches[self._next - 1]}


def read_pictures(folder: Path, detector: Detector, *, limit: int) -> NDArray[np.uint8]:
    """Pictures of a folder, evenly spread over it, fitted into the detector's input.

    Returns:
        (n, height, width, 3) uint8 RGB, n at most `limit`.

    Raises:
        DatasetError: the folder is missing or holds no picture.
        SourceError: a picture cannot be read; it names the file.
    """
    files = find_pictures(folder)
    spread = np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int)
    return np.stack([detector.info.fitted(read_picture(files[at]))[0] for at in spread])
