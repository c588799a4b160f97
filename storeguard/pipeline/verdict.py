"""What the rules answer a camera after judging its frames."""

from __future__ import annotations

from dataclasses import dataclass

from storeguard.events.event import Event, EventType


@dataclass(frozen=True, slots=True)
class Dwell:
    """One person's present visit to one zone, in seconds of capture time."""

    person_id: str
    zone_id: str
    dwell_s: float


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """An event that is going on; `zone_id` and `person_id` are None where it has none."""

    event_id: str
    type: EventType
    zone_id: str | None
    person_id: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one camera's rules after its latest frame.

    Attributes:
        changes: events that opened, grew or closed since the verdict before.
        num_events: events opened on this camera since the rules began.
    """

    camera_id: str
    dwell: tuple[Dwell, ...] = ()
    open_events: tuple[OpenEvent, ...] = ()
    changes: tuple[Event, ...] = ()
    num_events: int = 0
