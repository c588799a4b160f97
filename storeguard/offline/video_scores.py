"""One video file, classified: each person in it, tracked, two seconds at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storeguard.camera.person_clips import ClipRequest, PersonClips
from storeguard.classification.clips.classifier import ClipClassifier, top_mean
from storeguard.config.models import TrackerSettings
from storeguard.config.zones import ZoneConfig
from storeguard.detection.detector import Detector
from storeguard.events.event import EventType
from storeguard.offline.following import FILE_START, file_camera, follow
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames

_EVERYWHERE: Final = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_ZONE: Final = "picture"


@dataclass(frozen=True, slots=True)
class PersonScores:
    """One person's clips.

    Attributes:
        person: the track's number.
        ends_s: stream seconds at which the clips end.
        scores: their probabilities.
    """

    person: int
    ends_s: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean of the top clips."""
        return top_mean(self.scores) or 0.0


@dataclass(frozen=True, slots=True)
class VideoScores:
    """The classifier's scores of a video.

    Attributes:
        score: of the person that scores highest; None if no person stayed for a clip.
        people: all people with at least one clip.
    """

    score: float | None
    people: tuple[PersonScores, ...]


def score_video(
    video: Path,
    detector: Detector,
    classifier: ClipClassifier,
    *,
    every_s: float = 1.0,
) -> VideoScores:
    """Score each person in a video, a clip each `every_s` seconds of it.

    The people are detected, tracked and cut out by the classes that do it for cameras.

    Raises:
        SourceError: the file cannot be read, or holds no video.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for request, end_s in _requests(video, detector, every_s):
        (score,) = classifier.score([request.cut()])
        found.setdefault(request.person_id, []).append((end_s, float(score)))
    people = tuple(
        PersonScores(
            int(person_id.rsplit("-", 1)[-1]),
            tuple(round(end_s, 3) for end_s, _ in clips),
            tuple(score for _, score in clips),
        )
        for person_id, clips in found.items()
    )
    return VideoScores(max((one.score for one in people), default=None), people)


def _requests(
    video: Path, detector: Detector, every_s: float
) -> Iterator[tuple[ClipRequest, float]]:
    rules = [
        {"type": "intrusion"},
        {"type": "shoplifting_suspected", "cls_every_s": every_s},
    ]
    zone = ZoneConfig.model_validate({"id": _ZONE, "polygon": _EVERYWHERE, "rules": rules})
    camera = file_camera(video, zones=(zone,))
    clips = PersonClips(camera)
    frames = _offered(read_frames(camera, start=FILE_START), clips)
    for followed in follow(camera, detector, TrackerSettings(), frames=frames):
        clips.seen(followed.frame, followed.observation)
        clips.judged(_all_open(followed.observation.person_id))
        for request in clips.due():
            yield request, followed.frame.time_s


def _offered(frames: Iterator[Frame], clips: PersonClips) -> Iterator[Frame]:
    for frame in frames:
        clips.offer(frame)
        yield frame


def _all_open(person_ids: tuple[str, ...]) -> Verdict:
    """As if each person had an open event: clips of all people are due."""
    return Verdict(
        "video",
        open_events=tuple(
            OpenEvent(person_id, EventType.INTRUSION, _ZONE, person_id) for person_id in person_ids
        ),
    )
