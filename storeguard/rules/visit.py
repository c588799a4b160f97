"""Visits: one person's stay in one zone, and the rules that are about stays.

A visit begins with the first observation that shows the person inside, and its dwell runs to the
last one that does; where the frames' spacing is known, half of it is added at either end, because
people come and go between frames. It ends there once an observation later than `grace_s` after that
does not show the person inside. Time that the camera did not observe proves nothing: if the next
observation shows the person inside again, the visit has gone on, provided the camera was silent
for at most `max_gap_s`. Frames are never counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from storeguard.config.zones import (
    IntrusionRule,
    LoiteringRule,
    OccupancyRule,
    PersonRule,
    ShopliftingRule,
    ZoneAnchorSettings,
)
from storeguard.events.event import EventStatus, ModelRef
from storeguard.geometry import Zone
from storeguard.rules.cooldown import Cooldown
from storeguard.rules.scene import Box, Scene, Sighting

R = TypeVar("R", bound=IntrusionRule | LoiteringRule | OccupancyRule | PersonRule | ShopliftingRule)


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule has to say about one of its events; the engine makes the `Event` of it.

    Attributes:
        version: 1 when the event opens, then counting up.
        person_id: None for events that are not about one person.
        rule: the settings that fired, JSON-able.
        model: whose score it is; None means the detector's.

    The others are as in `storeguard.events.event.Event`.
    """

    status: EventStatus
    version: int
    person_id: str | None
    started_at: datetime
    ended_at: datetime | None
    dwell_s: float | None
    score: float
    box_xyxy: Box | None
    rule: dict[str, Any]
    attributes: dict[str, Any]
    model: ModelRef | None = None


@dataclass(slots=True)
class Visit:
    """A stay that has begun and not ended.

    Attributes:
        person_id: who; "" where the stay is nobody's own (occupancy).
        started_at: when it began (see `Sighting.since`).
        first_inside_at, last_inside_at: capture times of the first and latest observation inside.
        left_after: from there to the estimated moment of leaving; 0 while the person is inside.
        score: highest detection confidence so far.
        box_xyxy: box at `last_inside_at`.
        version: of the event it raised; 0 while it has raised none.
        reported_at: capture time of that version.
        rule: the settings its event was raised by.
        attributes: for its event.
    """

    person_id: str
    started_at: datetime
    first_inside_at: datetime
    last_inside_at: datetime
    score: float
    box_xyxy: Box | None
    version: int = 0
    reported_at: datetime | None = None
    rule: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    left_after: timedelta = timedelta(0)

    @property
    def ended_at(self) -> datetime:
        """When it ended, if it has."""
        return self.last_inside_at + self.left_after

    @property
    def dwell(self) -> timedelta:
        """From its beginning to the latest moment inside."""
        return self.ended_at - self.started_at


class LastPlace(BaseModel):
    """Where and when a person's anchor point was last seen."""

    model_config = ConfigDict(frozen=True)

    person_id: str
    x: float
    y: float
    at: datetime


class Memory(BaseModel):
    """What a rule has to remember across a restart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visits: tuple[Visit, ...] = ()
    cooldowns: tuple[tuple[str, datetime], ...] = ()
    places: tuple[LastPlace, ...] = ()


class Visits:
    """The stays of one rule in one zone, one a person. Ended ones are forgotten at once."""

    def __init__(self) -> None:
        self._by_person: dict[str, Visit] = {}

    def __len__(self) -> int:
        return len(self._by_person)

    def __iter__(self) -> Iterator[Visit]:
        return iter(self._by_person.values())

    def __getitem__(self, person_id: str) -> Visit:
        return self._by_person[person_id]

    def find(self, person_id: str) -> Visit | None:
        """The person's stay, if there is one."""
        return self._by_person.get(person_id)

    def advance(
        self, scene: Scene, inside: Iterable[Sighting], *, grace_s: float, max_gap_s: float
    ) -> list[Visit]:
        """Take in an observation; returns the visits that it shows to have ended.

        Everybody in `inside` has a visit afterwards.
        """
        here = {sighting.person_id for sighting in inside}
        grace = timedelta(seconds=grace_s)
        blind = scene.since_previous > timedelta(seconds=max_gap_s)
        ended = [
            visit
            for visit in self._by_person.values()
            if scene.at - visit.last_inside_at > grace and (blind or visit.person_id not in here)
        ]
        for visit in self._by_person.values():
            if visit.person_id not in here and not visit.left_after and not blind:
                visit.left_after = scene.edge
        for visit in ended:
            del self._by_person[visit.person_id]
        for sighting in inside:
            self._extend(sighting, scene.at)
        return ended

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
        visit.left_after = timedelta(0)
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
        """Take the place of what is there."""
        self._by_person = {visit.person_id: replace(visit) for visit in visits}


def anchored_inside(
    scene: Scene, zone: Zone | None, settings: ZoneAnchorSettings
) -> list[Sighting]:
    """Who is in the zone as the rule's settings have it; without a zone, whoever is seen."""
    if zone is None:
        return scene.seen(min_score=settings.min_score)
    return scene.inside(
        zone,
        anchor=settings.anchor,
        min_hit_ratio=settings.min_hit_ratio,
        min_score=settings.min_score,
    )


class VisitRuleState(ABC, Generic[R]):
    """What the rules about stays have in common: one event a visit, which opens, grows and closes.

    Args:
        settings: the rule.
        zone: where it holds; None for the whole picture.
    """

    def __init__(self, settings: R, zone: Zone | None) -> None:
        self.visits = Visits()
        self.cooldown = Cooldown()
        self.reconfigure(settings, zone)

    def reconfigure(self, settings: R, zone: Zone | None) -> None:
        """Go on under other settings or another polygon.

        Visits keep their start. Who is not inside any more ends as if they had left; an event
        that is open stays open until its visit ends, whatever the new threshold, and keeps the
        settings that fired.
        """
        self.settings = settings
        self.zone = zone
        self._dump = settings.model_dump(mode="json")

    def step(self, scene: Scene) -> list[Change]:
        """Take in an observation."""
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
            visit.rule = self._dump
        visit.version += 1
        visit.reported_at = at
        return self._change(visit, EventStatus.OPEN)

    def forget(self) -> None:
        """Drop what counts from past capture times: the camera's clock was set back."""
        self.cooldown.clear()

    def checkpoint(self) -> Memory:
        """What has to survive a restart."""
        return Memory(visits=self.visits.checkpoint(), cooldowns=tuple(self.cooldown.checkpoint()))

    def restore(self, memory: Memory) -> None:
        """Take the place of what is there."""
        self.visits.restore(memory.visits)
        self.cooldown.restore(memory.cooldowns)

    @abstractmethod
    def _inside(self, scene: Scene) -> list[Sighting]:
        """Whose stays this observation begins or lengthens."""

    @abstractmethod
    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        """Whether a visit that this observation shows has to open or update its event."""

    def _left(self, visit: Visit) -> None:
        """A visit with an event has ended. Nothing to do for most rules."""

    def _dwell_s(self, visit: Visit) -> float | None:
        """The dwell its event carries."""
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
