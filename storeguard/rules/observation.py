"""What one camera tells the rules about one frame."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Observation:
    """The people seen in one processed frame.

    Attributes:
        camera_id: the camera's id in the configuration.
        epoch: names one life of the camera's tracker. Within it `seq` counts up by one and person
            ids mean the same person; a (camera_id, epoch, seq) seen before is a replay.
        seq: 0, 1, 2, ... within the epoch.
        captured_at: aware UTC, the frame's capture time. Never earlier than that of seq - 1.
        person_id: one id a person, unique across epochs of the camera.
        xyxy: (n, 4) float32, corners as fractions 0..1 of frame width and height.
        score: (n,) float32, detection confidence 0..1.
    """

    camera_id: str
    epoch: str
    seq: int
    captured_at: datetime
    person_id: tuple[str, ...]
    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.person_id)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,):
            raise ValueError(
                f"camera {self.camera_id!r}: expected xyxy ({n}, 4) and score ({n},); got "
                f"{self.xyxy.shape} and {self.score.shape}"
            )
        if self.captured_at.tzinfo is None:
            raise ValueError(f"camera {self.camera_id!r}: captured_at must carry a time zone")
