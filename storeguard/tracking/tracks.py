"""Who is where in one frame: the tracker's result, as parallel arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tracks:
    """The people a tracker reports for one frame. Only tracks matched in this frame are listed.

    Attributes:
        track_id: (n,) int64, positive, unique within one tracker's life; kept across a re-link.
        xyxy: (n, 4) float32, pixels of the source frame.
        score: (n,) float32, confidence of the matched detection, 0..1.
        age_s: (n,) float64, seconds of capture time since each track was first seen; None if
            unknown.
    """

    track_id: NDArray[np.int64]
    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    age_s: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        n = len(self.track_id)
        if self.track_id.shape != (n,) or self.xyxy.shape != (n, 4) or self.score.shape != (n,):
            raise ValueError(
                "expected track_id (n,), xyxy (n, 4), score (n,); got "
                f"{self.track_id.shape}, {self.xyxy.shape}, {self.score.shape}"
            )
        if self.age_s is not None and self.age_s.shape != (n,):
            raise ValueError(f"expected age_s ({n},), got {self.age_s.shape}")

    def __len__(self) -> int:
        return len(self.track_id)

    @classmethod
    def empty(cls) -> Tracks:
        """No people in view."""
        return cls(
            track_id=np.zeros(0, np.int64),
            xyxy=np.zeros((0, 4), np.float32),
            score=np.zeros(0, np.float32),
            age_s=np.zeros(0),
        )
