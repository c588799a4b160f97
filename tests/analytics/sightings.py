"""Observations to log, and the rows that a log holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from storeguard.analytics.track_parts import TrackParts
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.events.event import ModelRef
from storeguard.rules.observation import Observation

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BY = ModelRef(name="m", sha256="1" * 64)


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


def labelled(observation: Observation, **labels: str) -> Observation:
    """The same frame, with a label of the attribute `basket` for each of these people."""
    attributes = {
        person: (AttributePrediction("basket", label, 1.0, 3, BY),)
        for person, label in labels.items()
    }
    return replace(observation, attributes=attributes)


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
