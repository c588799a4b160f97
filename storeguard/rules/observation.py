"""What the rules receive from one camera about one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.events.event import ModelRef


@dataclass(frozen=True, slots=True)
class ClipScore:
    """The clip classifier's score for two seconds of one person.

    Attributes:
        person_id: the person.
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
class Observation:
    """The people seen in one processed frame.

    Attributes:
        camera_id: the camera's id in the configuration.
        epoch: the name of one run of the camera's tracker. Within it `seq` counts up by one and a
            person id means one person; a (camera_id, epoch, seq) received before is a replay.
        seq: 0, 1, 2, ... within the epoch.
        captured_at: aware UTC, the frame's capture time. Never earlier than that of seq - 1.
        person_id: one id a person, unique across epochs of the camera.
        xyxy: (n, 4) float32, corners as fractions 0..1 of frame width and height.
        score: (n,) float32, detection confidence 0..1.
        step_s: seconds of capture time since the frame processed before; 0 if there was none. A
            person came or left somewhere in between: rules take the middle.
        age_s: (n,) float64, seconds since each person's track was first seen, which is a frame or
            more before the track is confirmed and reported; None counts as all 0.
        clip_scores: the clip classifier's scores since the observation before.
        attributes: the attribute predictions so far, by person id; also for some people who are
            not in this frame. People without a prediction are left out.

    Raises:
        ValueError: the arrays' shapes do not fit, or `captured_at` has no time zone; names the
            camera, expected and found.
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
    attributes: Mapping[str, tuple[AttributePrediction, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.person_id)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,):
            raise ValueError(
                f"camera {self.camera_id!r}: expected xyxy ({n}, 4) and score ({n},); found "
                f"{self.xyxy.shape} and {self.score.shape}"
            )
        if self.age_s is not None and self.age_s.shape != (n,):
            raise ValueError(
                f"camera {self.camera_id!r}: expected age_s ({n},), found {self.age_s.shape}"
            )
        if self.captured_at.tzinfo is None:
            raise ValueError(
                f"camera {self.camera_id!r}: expected captured_at with a time zone, found none"
            )
