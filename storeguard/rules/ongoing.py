"""What one camera's rules are reporting right now: dwell and open events."""

from __future__ import annotations

from dataclasses import dataclass

from storeguard.events.event import EventType


@dataclass(frozen=True, slots=True)
class Dwell:
    """One person's present visit to one zone, in seconds of capture time."""

    person_id: str
    zone_id: str
    dwell_s: float


@dataclass(frozen=True, slots=True)
class OpenEvent:
    """An event that has not closed; `zone_id` and `person_id` are None where it has none."""

    event_id: str
    type: EventType
    zone_id: str | None
    person_id: str | None
