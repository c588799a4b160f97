"""What one camera tells the rules about one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storeguard.events.event import ModelRef


@dataclass(frozen=True, slots=True)
class ClipScore:
    """What the clip classifier said about two seconds of one person.

    Attributes:
        person_id: who.
        captured_at: aware UTC capture time of the clip's last picture.
        score: probability 0..1 that goods are being concealed.
        threshold: the one the model's training recommends.
        model: the classifier.
    """

    person_id: str
    captured_at: datetime
    score: float
    threshold: float
    model: ModelRef


@dataclass(frozen=True, slots=True)
class Attribute:
    """What the majority of looks at one person says of them.

    Attributes:
        name: the attribute, as configured.
        label: what most votes are for.
        share: of the votes, 0..1.
        num_votes: how many there are.
        model: the attribute's classifier.
    """

    name: str
    label: str
    share: float
    num_votes: int
    model: ModelRef

    def document(self) -> dict[str, Any]:
        """As it stands in an event's attributes."""
        return {
            "label": self.label,
            "share": round(self.share, 4),
            "votes": self.num_votes,
            "model": self.model.model_dump(),
        }


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
        step_s: seconds of capture time since the frame processed before; 0 if there was none. Who
            came or went did so somewhere in between: rules take the middle.
        age_s: (n,) float64, seconds since each person's track was first seen, which is a frame or
            more before it is sure enough to be reported; None counts as all 0.
        clip_scores: what the clip classifier has said since the observation before.
        attributes: what is said of people so far, by person id; also of some who are not in this
            frame. Those of whom nothing is said are left out.
    """

    camera_id: str
    epoch: str
    seq: int
    captured_at: datetime
    person_id: tuple[str, ...]
    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    step_s: float = 0.0
    age_s: NDArray[np.float64] | None = None
    clip_scores: tuple[ClipScore, ...] = ()
    attributes: Mapping[str, tuple[Attribute, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.person_id)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,):
            raise ValueError(
                f"camera {self.camera_id!r}: expected xyxy ({n}, 4) and score ({n},); got "
                f"{self.xyxy.shape} and {self.score.shape}"
            )
        if self.age_s is not None and self.age_s.shape != (n,):
            raise ValueError(
                f"camera {self.camera_id!r}: expected age_s ({n},), got {self.age_s.shape}"
            )
        if self.captured_at.tzinfo is None:
            raise ValueError(f"camera {self.camera_id!r}: captured_at must carry a time zone")
