"""Observations to log, and the rows that a log holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from storeguard.analytics.track_parts import TrackParts
from storeguard.rules.observation import Observation

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def seen(
    at: datetime, *people: str, camera: str = "table", box: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
) -> Observation:
    """One frame with these people, all in one place."""
    return Observation(
        camera_id=camera,
        epoch="e",
        seq=0,
        captured_at=at,
        person_id=people,
        xyxy=np.tile(np.array(box, np.float32), (len(people), 1)),
        score=np.full(len(people), 0.5, np.float32),
    )


def stream(
    start: datetime, seconds: float, *people: str, fps: float = 5.0, camera: str = "table"
) -> Iterator[Observation]:
    """Frames with these people, `fps` a second."""
    for n in range(round(seconds * fps)):
        yield seen(start + timedelta(seconds=n / fps), *people, camera=camera)


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a log."""
    tables = [pq.read_table(part.path, partitioning=None) for part in TrackParts(folder).parts()]
    return [row for table in tables for row in table.to_pylist()]
