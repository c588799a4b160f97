"""One observation, prepared once and shared by all rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from storeguard.config.zones import Anchor
from storeguard.geometry import Float64, Zone, Zones, foot_points, head_points
from storeguard.rules.observation import Observation

Box = tuple[float, float, float, float]

_MAX_STEP = timedelta(seconds=1)
"""Between frames further apart than this the camera was silent: the moment of coming or leaving is
not estimated."""

_NEWCOMER_STEPS = 2.5
"""A track at most this many frames old has just been confirmed: its person is new to the rules."""

_ROUNDING = 1e-6
"""Boxes and scores are float32: a ratio this little below its threshold counts as reaching it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One person in one observation.

    Attributes:
        person_id: the person.
        score: detection confidence, 0..1.
        box_xyxy: corners as fractions 0..1; None where it is not about one person.
        since: the moment from which this sighting counts. A person comes at an unknown moment
            between two frames: the middle is taken. A new person was there when the track began.
    """

    person_id: str
    score: float
    box_xyxy: Box | None
    since: datetime


class Scene:
    """Where each person is in one observation, and how long after the observation before it.

    Boxes that reach past the picture are cut at its edge, so that feet below the picture still
    are in a zone that ends there.

    Args:
        observation: the observation.
        zones: all zones of the camera's rules.
        previous_at: capture time of the observation before it; None for the first.
        new_epoch: True on the first observation of an epoch: no movement connects it with the
            observations before.
    """

    def __init__(
        self,
        observation: Observation,
        *,
        zones: Zones,
        previous_at: datetime | None,
        new_epoch: bool,
    ) -> None:
        self.at = observation.captured_at
        self.since_previous = timedelta(0) if previous_at is None else self.at - previous_at
        self.silence = max(self.since_previous - _MAX_STEP, timedelta(0))
        self.new_epoch = new_epoch
        self.clip_scores = observation.clip_scores
        self.person_id = observation.person_id
        self.xyxy = _rounded(observation.xyxy)
        self.score = _rounded(observation.score)
        self.edge = min(timedelta(seconds=observation.step_s), _MAX_STEP) / 2
        self._since = self._came_at(observation)
        self._zones = zones

    @cached_property
    def sightings(self) -> tuple[Sighting, ...]:
        """All people, in the observation's order."""
        return tuple(
            Sighting(person_id=person_id, score=score, box_xyxy=(x1, y1, x2, y2), since=since)
            for person_id, score, (x1, y1, x2, y2), since in zip(
                self.person_id, self.score.tolist(), self.xyxy.tolist(), self._since, strict=True
            )
        )

    @cached_property
    def head(self) -> Float64:
        """(n, 2) head points."""
        return head_points(self.xyxy)

    @cached_property
    def foot(self) -> Float64:
        """(n, 2) foot points."""
        return foot_points(self.xyxy)

    @cached_property
    def _head_in(self) -> NDArray[np.bool_]:
        return self._zones.contains(self.head)

    @cached_property
    def _foot_in(self) -> NDArray[np.bool_]:
        return self._zones.contains(self.foot)

    @cached_property
    def _hit_ratio(self) -> Float64:
        return self._zones.hit_ratio(self.xyxy)

    def inside(
        self, zone: Zone, *, anchor: Anchor, min_hit_ratio: float, min_score: float
    ) -> list[Sighting]:
        """The people in one of the scene's zones by the given anchor, from `min_score` on."""
        if not self.person_id:
            return []
        column = self._zones.column(zone)
        found: NDArray[np.bool_]
        match anchor:
            case Anchor.HEAD:
                found = self._head_in[:, column]
            case Anchor.FOOT:
                found = self._foot_in[:, column]
            case Anchor.HIT_RATIO:
                found = self._hit_ratio[:, column] >= min_hit_ratio - _ROUNDING
        return self._chosen(found & (self.score >= min_score))

    def seen(self, *, min_score: float) -> list[Sighting]:
        """The people of the whole picture, from `min_score` on."""
        return self._chosen(self.score >= min_score)

    def _came_at(self, observation: Observation) -> list[datetime]:
        came_at = self.at - self.edge
        if observation.age_s is None:
            return [came_at] * len(observation.person_id)
        newcomer_s = _NEWCOMER_STEPS * min(observation.step_s, _MAX_STEP.total_seconds())
        return [
            came_at - timedelta(seconds=age_s) if age_s <= newcomer_s else came_at
            for age_s in observation.age_s.tolist()
        ]

    def _chosen(self, mask: NDArray[np.bool_]) -> list[Sighting]:
        return [
            sighting for sighting, keep in zip(self.sightings, mask.tolist(), strict=True) if keep
        ]


def _rounded(fractions: NDArray[np.float32]) -> Float64:
    """As float64 within 0..1, rounded as float32 needs: 0.35, not 0.3499999940."""
    rounded: Float64 = fractions.astype(np.float64).clip(0.0, 1.0).round(6)
    return rounded
