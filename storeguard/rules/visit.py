"""Visits: one person's time in one zone, and what the rules about visits have in common.

A visit begins with the first observation that shows the person inside, and its dwell runs to the
last one that does. Where the spacing of frames is known, half of it is added at either end, because
people come and go between frames. A visit ends at its last moment inside, once an observation more
than `grace_s` later does not show the person inside. Time that the camera did not observe proves
nothing: if the next observation shows the person inside again, the visit has continued, provided
the camera was silent for at most `max_gap_s`. For a person whom the first frames after it miss,
`grace_s` does not count the silence either. Frames are never counted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from storeguard.config.zones import VisitSettings, ZoneVisitSettings
from storeguard.events.event import EventStatus
from storeguard.geometry import Line, Zone
from storeguard.rules.cooldown import Cooldown
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Change, RuleCheckpoint, RuleState, Shape, Visit

R = TypeVar("R", bound=VisitSettings)


class Visits:
    """The visits of one rule in one zone, one a person. Ended ones are dropped at once."""

    def __init__(self) -> None:
        self._by_person: dict[str, Visit] = {}

    def __len__(self) -> int:
        return len(self._by_person)

    def __iter__(self) -> Iterator[Visit]:
        return iter(self._by_person.values())

    def __getitem__(self, person_id: str) -> Visit:
        return self._by_person[person_id]

    def find(self, person_id: str) -> Visit | None:
        """The person's visit, if there is one."""
        return self._by_person.get(person_id)

    def advance(
        self, scene: Scene, inside: Iterable[Sighting], *, grace_s: float, max_gap_s: float
    ) -> list[Visit]:
        """Process an observation; returns the visits that it shows to have ended.

        Every person of `inside` has a visit afterwards.
        """
        here = {sighting.person_id for sighting in inside}
        grace = timedelta(seconds=grace_s)
        blind = scene.since_previous > timedelta(seconds=max_gap_s)
        ended = [
            visit
            for visit in self._by_person.values()
            if self._absence(visit, scene, blind=blind) > grace
            and (blind or visit.person_id not in here)
        ]
        for visit in self._by_person.values():
            visit.silence += scene.silence
            if visit.person_id not in here and not visit.left_after and not blind:
                visit.left_after = scene.edge
        for visit in ended:
            del self._by_person[visit.person_id]
        for sighting in inside:
            self._extend(sighting, scene.at)
        return ended

    @staticmethod
    def _absence(visit: Visit, scene: Scene, *, blind: bool) -> timedelta:
        """How long the visitor has been away: observed time only, unless now seen elsewhere."""
        absence = scene.at - visit.last_inside_at
        if blind or visit.person_id in scene.person_id:
            return absence
        return absence - visit.silence - scene.silence

    def _extend(self, sighting: Sighting, at: datetime) -> None:
        visit = self._by_person.get(sighting.person_id)
        if visit is None:
            self._by_person[sighting.person_id] = Visit(
                person_id=sighting.person_id,
                started_at=sighting.since,
                first_inside_at=at,
                last_inside_at=at,
                score=sighting.score,
                box_xyxy=sighting.box_xyxy,
            )
            return
        visit.last_inside_at = at
        visit.left_after = visit.silence = timedelta(0)
        visit.score = max(visit.score, sighting.score)
        visit.box_xyxy = sighting.box_xyxy

    def end_all(self) -> list[Visit]:
        """End every visit where it was last seen."""
        ended = list(self._by_person.values())
        self._by_person.clear()
        return ended

    def checkpoint(self) -> tuple[Visit, ...]:
        """Copies of all visits."""
        return tuple(replace(visit) for visit in self._by_person.values())

    def restore(self, visits: Iterable[Visit]) -> None:
        """Replace all visits by copies of these."""
        self._by_person = {visit.person_id: replace(visit) for visit in visits}


def anchored_inside(scene: Scene, zone: Zone | None, settings: ZoneVisitSettings) -> list[Sighting]:
    """The people in the zone by the rule's settings; without a zone, all people in the picture."""
    if zone is None:
        return scene.seen(min_score=settings.min_score)
    return scene.inside(
        zone,
        anchor=settings.anchor,
        min_hit_ratio=settings.min_hit_ratio,
        min_score=settings.min_score,
    )


class VisitRuleState(RuleState, Generic[R]):
    """A rule about visits: one event a visit, which opens, grows and closes.

    Visits of the checkpoint keep their start. Visitors who are not inside under these settings or
    this zone leave with the next observation.

    Args:
        settings: the rule.
        shape: a zone; None for the whole picture.
        checkpoint: of the same rule's state before.

    Raises:
        TypeError: the shape is a line.
    """

    settings: R

    def __init__(self, settings: R, shape: Shape, checkpoint: RuleCheckpoint) -> None:
        if isinstance(shape, Line):
            raise TypeError(f"{type(settings).__name__}: expected a zone or None, got a line")
        super().__init__(settings, shape)
        self.zone = shape
        self.visits = Visits()
        self.visits.restore(checkpoint.visits)
        self.cooldown = Cooldown()
        self.cooldown.restore(checkpoint.cooldowns)

    def step(self, scene: Scene) -> list[Change]:
        """Process an observation."""
        inside = self._inside(scene)
        settings = self.settings
        ended = self.visits.advance(
            scene, inside, grace_s=settings.grace_s, max_gap_s=settings.max_gap_s
        )
        changes = self._close(ended)
        for sighting in inside:
            visit = self.visits[sighting.person_id]
            if self._is_due(visit, scene):
                changes.append(self.report(visit, scene.at))
        return changes

    def expire(self, silence: timedelta) -> list[Change]:
        """The camera has been silent for this long: end what no observation can bridge any more."""
        bridged_s = max(self.settings.grace_s, self.settings.max_gap_s)
        return self.close() if silence > timedelta(seconds=bridged_s) else []

    def close(self) -> list[Change]:
        """End all visits where they were last seen."""
        return self._close(self.visits.end_all())

    def ongoing(self) -> Iterable[Visit]:
        """The visits that have not ended, with and without an event."""
        return self.visits

    def report(self, visit: Visit, at: datetime) -> Change:
        """The change that opens a visit's event, or updates it."""
        if not visit.version:
            visit.rule = self._document
        visit.version += 1
        visit.reported_at = at
        return self._change(visit, EventStatus.OPEN)

    def forget(self) -> None:
        """Drop what counts from past capture times: the camera's clock was set back."""
        self.cooldown.clear()

    def checkpoint(self) -> RuleCheckpoint:
        """What has to survive a restart, as copies."""
        return RuleCheckpoint(
            visits=self.visits.checkpoint(), cooldowns=tuple(self.cooldown.checkpoint())
        )

    @abstractmethod
    def _inside(self, scene: Scene) -> list[Sighting]:
        """The people whose visits this observation begins or lengthens."""

    @abstractmethod
    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        """Whether a visit in this observation has to open or update its event."""

    def _left(self, visit: Visit) -> None:
        """Called when a visit with an event has ended."""

    def _dwell_s(self, visit: Visit) -> float | None:
        """The dwell of its event; None for a rule that measures none."""
        return visit.dwell.total_seconds()

    def _close(self, ended: Iterable[Visit]) -> list[Change]:
        changes = []
        for visit in ended:
            if visit.version:
                visit.version += 1
                changes.append(self._change(visit, EventStatus.CLOSED))
                self._left(visit)
        return changes

    def _change(self, visit: Visit, status: EventStatus) -> Change:
        return Change(
            status=status,
            version=visit.version,
            person_id=visit.person_id or None,
            started_at=visit.started_at,
            ended_at=visit.ended_at if status is EventStatus.CLOSED else None,
            dwell_s=self._dwell_s(visit),
            score=visit.score,
            box_xyxy=visit.box_xyxy,
            rule=visit.rule,
            attributes=dict(visit.attributes),
        )
