"""The boxes that a detector found in one frame, as parallel arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes of one frame.

    Attributes:
        xyxy: (n, 4) float32, corners in pixels of the source frame (not of the model input).
        score: (n,) float32, confidence in 0..1.
        class_id: (n,) int64, index in the model's own class list.
    """

    xyxy: Float32
    score: Float32
    class_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError(
                "expected xyxy (n, 4), score (n,), class_id (n,); got "
                f"{self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, keep: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Detections:
        """Rows chosen by a boolean mask, an index array or a slice."""
        return Detections(
            xyxy=self.xyxy[keep], score=self.score[keep], class_id=self.class_id[keep]
        )

    @classmethod
    def empty(cls) -> Detections:
        """No boxes at all."""
        return cls.of(np.zeros((0, 4)), np.zeros(0))

    @classmethod
    def of(cls, xyxy: object, score: object, class_id: object | None = None) -> Detections:
        """Build from anything array-like, cast to the dtypes above; class 0 by default."""
        boxes = np.asarray(xyxy, dtype=np.float32).reshape(-1, 4)
        ids = np.zeros(len(boxes)) if class_id is None else class_id
        return cls(
            xyxy=boxes,
            score=np.asarray(score, dtype=np.float32).reshape(-1),
            class_id=np.asarray(ids, dtype=np.int64).reshape(-1),
        )
