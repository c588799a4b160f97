"""The self-test: a picture with people, in which a loaded detector must find one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.nms import iou_matrix
from storeguard.errors import ModelError, SourceError
from storeguard.video.frame import Frame
from storeguard.video.pictures import read_picture

_log = logging.getLogger(__name__)

BUNDLED_PICTURE = "self_test.jpg"
BUNDLED_PERSON = (1.0, 63.0, 299.0, 511.0)
"""The man in the bundled picture, read by eye: corners in pixels of its 512x512."""
SURE_SCORE = 0.25
"""A less probable box does not count as a person found."""
_SAME_IOU = 0.5


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a detector found in the self-test picture.

    Attributes:
        picture: its path.
        found: whether it found a person; in the bundled picture, where the person is.
        best_score: the highest score of a person anywhere; None where it found nobody at all.
    """

    picture: str
    found: bool
    best_score: float | None

    def describe(self) -> str:
        """The outcome in words."""
        best = "no box" if self.best_score is None else f"best score {self.best_score:.2f}"
        outcome = "finds a person" if self.found else "finds nobody"
        return f"{outcome} in the self-test picture {self.picture} ({best})"


@dataclass(frozen=True, slots=True)
class SelfTestPicture:
    """A picture with people.

    Attributes:
        path: its file.
        frame: its pixels.
        person_xyxy: where a person is, pixels; None where that is not known.
    """

    path: Path
    frame: Frame
    person_xyxy: tuple[float, float, float, float] | None

    def result(self, people: Detections) -> SelfTest:
        """The outcome for the people that a detector found in it, best first."""
        sure = people[people.score >= SURE_SCORE]
        if self.person_xyxy is not None:
            person = np.array([self.person_xyxy], np.float32)
            sure = sure[iou_matrix(sure.xyxy, person)[:, 0] >= _SAME_IOU]
        return SelfTest(
            picture=str(self.path),
            found=len(sure) > 0,
            best_score=float(people.score.max()) if len(people) else None,
        )


def self_test_picture(path: str | None) -> SelfTestPicture | None:
    """The picture at a path, or the bundled one for None; None where that was not installed.

    Raises:
        ModelError: the picture at the path cannot be read.
    """
    if path is None:
        return _bundled()
    file = Path(path).expanduser()
    try:
        return SelfTestPicture(file, read_picture(file), None)
    except SourceError as error:
        raise ModelError(f"detector.self_test: {error}") from None


@lru_cache(maxsize=1)
def _bundled() -> SelfTestPicture | None:
    file = Path(str(resources.files("storeguard.models") / BUNDLED_PICTURE))
    try:
        return SelfTestPicture(file, read_picture(file), BUNDLED_PERSON)
    except SourceError as error:
        _log.warning("detectors are not tested: %s", error)
        return None
