"""Which frame becomes an event's still picture: the one it began with, then the best box."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from storeguard.events.event import Event
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame

_RECENT = 6  # frames between a moment and the verdict about it
_MAX_HELD = 8  # decoded pictures held for open events
_TOO_FAR = timedelta(seconds=2)
_BETTER = 0.05  # by so much a score must rise for another picture


@dataclass(slots=True)
class _Subject:
    person_id: str | None
    score: float
    frame: Frame | None
    day: str


@dataclass(frozen=True, slots=True)
class Still:
    """A picture to be kept.

    Attributes:
        event_id: whose.
        name: `opening` or `best`.
        day: the event's, YYYY-MM-DD; part of its place in storage.
        frame: the picture, as the camera sent it.
    """

    event_id: str
    name: str
    day: str
    frame: Frame


class Snapshots:
    """Remembers frames by reference, so that at most two of an event's are ever encoded.

    Bound: the last few frames and one a person of an open event, `_MAX_HELD` at most; past it the
    opening picture stays. Not thread-safe.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[Frame, Observation]] = deque(maxlen=_RECENT)
        self._subjects: dict[str, _Subject] = {}

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Add a processed frame and the people in it."""
        self._recent.append((frame, observation))
        if not self._subjects:
            return
        scores = dict(zip(observation.person_id, observation.score.tolist(), strict=True))
        for subject in self._subjects.values():
            score = scores.get(subject.person_id or "")
            if score is None or score < subject.score + _BETTER or not self._has_room(frame):
                continue
            subject.score, subject.frame = score, frame

    def opened(self, event: Event) -> Still | None:
        """The picture of an event's opening; None if there is no frame of about that time."""
        if not self._recent:
            return None
        # The frame of the verdict, or the nearest that is still here.
        frame, observation = min(
            self._recent,
            key=lambda recent: abs((recent[0].captured_at - event.updated_at).total_seconds()),
        )
        scores = dict(zip(observation.person_id, observation.score.tolist(), strict=True))
        day = f"{event.started_at:%Y-%m-%d}"
        self._subjects[event.event_id] = _Subject(
            event.person_id, scores.get(event.person_id or "", 0.0), None, day
        )
        if abs(frame.captured_at - event.updated_at) > _TOO_FAR:
            return None
        return Still(event.event_id, "opening", day, frame)

    def resumed(self, event_id: str, person_id: str | None, started_at: datetime) -> None:
        """An event that opened before a restart: only its best picture can be had."""
        day = f"{started_at:%Y-%m-%d}"
        self._subjects.setdefault(event_id, _Subject(person_id, 0.0, None, day))

    def closed(self, event_id: str) -> Still | None:
        """The best picture since the opening; None if that was the best."""
        subject = self._subjects.pop(event_id, None)
        if subject is None or subject.frame is None:
            return None
        return Still(event_id, "best", subject.day, subject.frame)

    def _has_room(self, frame: Frame) -> bool:
        held = {id(one.frame) for one in self._subjects.values() if one.frame is not None}
        return len(held) < _MAX_HELD or id(frame) in held
