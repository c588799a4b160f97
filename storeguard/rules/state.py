"""What every rule's state can do, and what it saves across a restart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from storeguard.config.zones import RuleSettings
from storeguard.events.event import EventStatus, ModelRef
from storeguard.geometry import Line, Point, Zone
from storeguard.rules.scene import Box, Scene

Shape = Zone | Line | None
"""Where a rule applies; None is the whole picture."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a rule changes one of its events; the engine turns it into an `Event`.

    Attributes:
        version: 1 when the event opens, then counting up.
        person_id: None for events that are not about one person.
        rule: the settings that fired, JSON-able.
        model: the model that gave the score; None means the detector.

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
    """A visit that has begun and not ended.

    Attributes:
        person_id: the visitor; "" where the visit is not one person's (occupancy).
        started_at: when it began (see `Sighting.since`).
        first_inside_at, last_inside_at: capture times of the first and latest observation inside.
        left_after: from there to the estimated moment of leaving; 0 while the person is inside.
        score: highest detection confidence so far.
        box_xyxy: box at `last_inside_at`.
        version: of the visit's event; 0 while it has none.
        reported_at: capture time of that version.
        rule: the settings that opened its event.
        attributes: for its event.
        silence: of the camera, since `last_inside_at`.
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
    silence: timedelta = timedelta(0)

    @property
    def ended_at(self) -> datetime:
        """When it ended, if it has."""
        return self.last_inside_at + self.left_after

    @property
    def dwell(self) -> timedelta:
        """From its beginning to the latest moment inside."""
        return self.ended_at - self.started_at


class Side(StrEnum):
    """A side of a line, as seen from its first point towards its second."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(slots=True)
class LinePosition:
    """Where a person was last seen, and on which side of a line.

    Attributes:
        person_id: the person.
        x, y: the anchor point, fractions 0..1.
        at: capture time of that observation.
        score: detection confidence in it.
        box_xyxy: box in it.
        side: the side that the person is on; None until first seen clear of the line.
        counted: the side that the person is on by the events so far.
        crossed_at: when the person came to `side`, if no event has reported that yet.
        stepped_at: when the anchor last stepped over the line; None if that was beyond its ends.
        clear_since: since when the anchor has been clear of the line on the side that is not
            `side`; None if it is not.
        reported_at: `started_at` of the person's last event.
    """

    person_id: str
    x: float
    y: float
    at: datetime
    score: float = 0.0
    box_xyxy: Box | None = None
    side: Side | None = None
    counted: Side | None = None
    crossed_at: datetime | None = None
    stepped_at: datetime | None = None
    clear_since: datetime | None = None
    reported_at: datetime | None = None


class RuleCheckpoint(BaseModel):
    """What a rule's state saves; the next state of the same rule is built with it.

    Attributes:
        visits: of a rule about visits.
        cooldowns: (key, start).
        places: of people at a line, the one seen longest ago first.
        line: the line that the sides in `places` refer to; None in checkpoints without sides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    visits: tuple[Visit, ...] = ()
    cooldowns: tuple[tuple[str, datetime], ...] = ()
    places: tuple[LinePosition, ...] = ()
    line: tuple[Point, Point] | None = None


class RuleState(ABC):
    """A rule at work in one zone, or in the whole picture.

    Settings and shape never change: under other ones another state is built, from a checkpoint of
    this one. An event that is open by then stays open until its visit ends and keeps the settings
    that fired.

    Args:
        settings: the rule.
        shape: where it applies.
    """

    shows_dwell: ClassVar[bool] = False
    """Whether the overlay shows the dwell of this rule's visits."""

    def __init__(self, settings: RuleSettings, shape: Shape) -> None:
        self.settings = settings
        self.shape = shape
        self._document = settings.model_dump(mode="json")

    def is_built_for(self, settings: RuleSettings, shape: Shape) -> bool:
        """Whether these are the state's settings and shape."""
        return self.settings == settings and self.shape == shape

    @abstractmethod
    def step(self, scene: Scene) -> list[Change]:
        """Process an observation."""

    @abstractmethod
    def expire(self, silence: timedelta) -> list[Change]:
        """The camera has been silent for this long: end what no observation can bridge any more."""

    @abstractmethod
    def close(self) -> list[Change]:
        """End everything where it was last seen."""

    @abstractmethod
    def forget(self) -> None:
        """Drop what counts from past capture times: the camera's clock was set back."""

    @abstractmethod
    def ongoing(self) -> Iterable[Visit]:
        """The visits that have not ended, with and without an event."""

    @abstractmethod
    def checkpoint(self) -> RuleCheckpoint:
        """What has to survive a restart, as copies."""
