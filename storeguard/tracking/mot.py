"""MOTChallenge text files: `frame,id,x,y,width,height,confidence,...`, frames counted from 1.

The layout is described on motchallenge.net; x and y are the left upper corner, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.detection.detections import Detections
from storeguard.errors import DatasetError
from storeguard.tracking.tracks import Tracks

PEDESTRIAN = 1
MIN_COLUMNS = 7


def lines_of(frame: int, tracks: Tracks) -> Iterator[str]:
    """One line a person, without line ends: `frame,id,x,y,width,height,score,-1,-1,-1`.

    Args:
        frame: counted from 1.
        tracks: who is where in it.
    """
    for track_id, (x1, y1, x2, y2), score in zip(
        tracks.track_id, tracks.xyxy.astype(np.float64), tracks.score, strict=True
    ):
        yield (
            f"{frame},{track_id},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1"
        )


def read_tracks(path: Path | str, *, pedestrians_only: bool = False) -> dict[int, Tracks]:
    """Read tracks or a ground truth, by frame number; without ages: the files hold no seconds.

    Args:
        path: the text file.
        pedestrians_only: keep the rows that MOTChallenge scores: flag (column 7) not 0 and class
            (column 8) pedestrian. Right for MOT16, MOT17 and MOT20 ground truth alone.

    Raises:
        DatasetError: the file is missing, or a row has fewer than 7 numbers, or no class
            where pedestrians are requested.
    """
    table = _read_table(Path(path))
    if pedestrians_only:
        if table.shape[1] <= MIN_COLUMNS:
            raise DatasetError(f"{path}: expected column 8, the class, to choose pedestrians by")
        table = table[(table[:, 6] != 0) & (table[:, 7] == PEDESTRIAN)]
    return {
        frame: Tracks(
            track_id=rows[:, 1].astype(np.int64),
            xyxy=_corners(rows),
            score=np.clip(rows[:, 6], 0, 1).astype(np.float32),
        )
        for frame, rows in _by_frame(table)
    }


def read_detections(path: Path | str) -> dict[int, Detections]:
    """Read detections, by frame number; scores are returned as in the file.

    Raises:
        DatasetError: the file is missing, or a row has fewer than 7 numbers.
    """
    return {
        frame: Detections.of(_corners(rows), rows[:, 6])
        for frame, rows in _by_frame(_read_table(Path(path)))
    }


def _read_table(path: Path) -> NDArray[np.float64]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        table = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected a MOTChallenge text file: {error}") from error
    if len(table) == 0:
        return np.zeros((0, MIN_COLUMNS + 1))
    if table.shape[1] < MIN_COLUMNS:
        raise DatasetError(
            f"{path}: expected at least {MIN_COLUMNS} columns (frame,id,x,y,width,height,"
            f"confidence), found {table.shape[1]}"
        )
    return table


def _by_frame(table: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for frame in np.unique(table[:, 0]):
        yield int(frame), table[table[:, 0] == frame]


def _corners(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1).astype(np.float32)
