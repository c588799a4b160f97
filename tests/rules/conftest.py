"""A stage for the rules: people are at given places at given seconds, and events are raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from storeguard.config.store import CameraConfig
from storeguard.events.event import Event
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
ZONE = ((0.3, 0.2), (0.7, 0.2), (0.7, 0.9), (0.3, 0.9))
IN, OUT = 0.5, 0.1
"""x of a person's centre: well inside the zone, and well outside."""

Place = float | tuple[float, float, float, float]


def box_at(place: Place) -> tuple[float, float, float, float]:
    """A person's box around the centre (place, 0.6), or the given box."""
    return place if isinstance(place, tuple) else (place - 0.05, 0.4, place + 0.05, 0.8)


class Stage:
    """One camera's rules, with observations made by hand.

    Args:
        rules: of the zone `z`, a polygon in the middle of the picture.
        line: rules of the zone `line`, upright in the middle, from the bottom to the top.
        person: the camera-wide rule.
    """

    IN, OUT, START = IN, OUT, START

    def __init__(
        self,
        *rules: Mapping[str, Any],
        line: Sequence[Mapping[str, Any]] = (),
        person: Mapping[str, Any] | None = None,
        polygon: Sequence[tuple[float, float]] = ZONE,
    ) -> None:
        self.camera = self.configured(*rules, line=line, person=person, polygon=polygon)
        self.rules = CameraRules("shop", self.camera)
        self.events: list[Event] = []
        self._seq = 0
        self._epoch = "a"

    @staticmethod
    def configured(
        *rules: Mapping[str, Any],
        line: Sequence[Mapping[str, Any]] = (),
        person: Mapping[str, Any] | None = None,
        polygon: Sequence[tuple[float, float]] = ZONE,
    ) -> CameraConfig:
        zones: list[dict[str, Any]] = []
        if rules:
            zones.append({"id": "z", "polygon": polygon, "rules": rules})
        if line:
            zones.append({"id": "line", "line": [(0.5, 1), (0.5, 0)], "rules": line})
        return CameraConfig.model_validate(
            {"id": "cam", "source": "made up", "zones": zones, "person": person}
        )

    def observation(
        self,
        at_s: float,
        people: Mapping[str, Place],
        *,
        epoch: str | None = None,
        score: float | Mapping[str, float] = 0.8,
    ) -> Observation:
        """The next observation of the epoch; naming another epoch begins it."""
        if epoch is not None and epoch != self._epoch:
            self._epoch, self._seq = epoch, 0
        scores = [score[name] if isinstance(score, Mapping) else score for name in people]
        self._seq += 1
        return Observation(
            camera_id="cam",
            epoch=self._epoch,
            seq=self._seq - 1,
            captured_at=START + timedelta(seconds=at_s),
            person_id=tuple(people),
            xyxy=np.array([box_at(place) for place in people.values()], np.float32).reshape(-1, 4),
            score=np.array(scores, np.float32),
        )

    def see(self, at_s: float, **people: Place) -> list[Event]:
        """Process people at their places at a second; returns the raised events."""
        return self.take(self.observation(at_s, people))

    def take(self, observation: Observation) -> list[Event]:
        """Process an observation and add the raised events to `events`."""
        raised = self.rules.step(observation)
        self.events += raised
        return raised

    def watch(self, start_s: float, stop_s: float, *, fps: float = 10, **people: Place) -> None:
        """See the same people from one second to another, both included."""
        for index in range(round((stop_s - start_s) * fps) + 1):
            self.see(start_s + index / fps, **people)

    def statuses(self) -> list[tuple[str, str, str | None]]:
        """All raised events in order: (type, status, person)."""
        return [(event.type.value, event.status.value, event.person_id) for event in self.events]

    def closed(self) -> list[tuple[str | None, float, float]]:
        """The events that have ended: (person, start second, end second)."""
        return [
            (event.person_id, second_of(event.started_at), second_of(event.ended_at))
            for event in self.events
            if event.ended_at is not None
        ]


def second_of(moment: datetime | None) -> float:
    """Seconds since the stage opened."""
    assert moment is not None
    return round((moment - START).total_seconds(), 6)


@pytest.fixture(scope="session")
def stage() -> type[Stage]:
    return Stage
