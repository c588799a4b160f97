"""The event: what Storeguard reports, stores and answers questions about."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from storeguard.events.faults import Fault

_EVENT_NAMESPACE = uuid.UUID("6c1a6f2e-6a53-5d0e-9d2b-0f3f6f7b7a11")


class EventType(StrEnum):
    """The rule that raised an event."""

    INTRUSION = "intrusion"
    LOITERING = "loitering"
    LINE_CROSSING = "line_crossing"
    OCCUPANCY = "occupancy"
    PERSON = "person"
    SHOPLIFTING_SUSPECTED = "shoplifting_suspected"
    MANUAL = "manual"


class EventStatus(StrEnum):
    """An event opens once, may be updated while open, and closes once."""

    OPEN = "open"
    CLOSED = "closed"


def rfc3339(moment: datetime) -> str:
    """RFC 3339 UTC with milliseconds, e.g. ``2026-01-31T09:30:00.250Z``."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


Moment = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""An aware datetime, written to JSON as RFC 3339 UTC with milliseconds."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Record):
    """Which model's scores an event rests on."""

    name: str
    sha256: str


class ClipPart(_Record):
    """A further file of a clip that is too long for one, or was interrupted."""

    uri: str
    start: Moment
    end: Moment
    sha256: str | None = None


class ClipRef(_Record):
    """The video kept for an event.

    Attributes:
        uri: where the clip is; None until it is stored, and when it could not be (see `error`).
        start, end: the span the file really covers.
        requested_start, requested_end: the requested span.
        sha256: checksum of the file.
        error: why there is no clip, or why it covers less than requested, in words; None when
            nothing is wrong.
        faults: the same as data. Empty although there is an `error` in events of earlier releases.
        parts: the files after the first one, in order of time; mostly none.
    """

    uri: str | None = None
    start: Moment | None = None
    end: Moment | None = None
    requested_start: Moment | None = None
    requested_end: Moment | None = None
    sha256: str | None = None
    error: str | None = None
    faults: tuple[Fault, ...] = ()
    parts: tuple[ClipPart, ...] = ()


class SnapshotRef(_Record):
    """The still picture of an event (JPEG)."""

    uri: str


class Latency(_Record):
    """Milliseconds from a frame's capture to later steps; None where not measured."""

    capture_to_store: float | None = None


class Event(_Record):
    """One thing that happened, from opening to closing.

    `event_id` comes from store, camera, zone, person, rule and start (see `event_id_of`), so
    replaying the same observations can never make a second event. `version` counts up with each
    change: of two records with one id, the one with the higher version is the newer.

    Attributes:
        started_at: capture time at which the visit (or crossing, ...) began; never changes.
        ended_at: None while the event is open.
        dwell_s: seconds of capture time in the zone so far; None for rules without dwell.
        score: the highest detection (or classifier) confidence so far, 0..1.
        box_xyxy: the person's box at the last update, as fractions 0..1 of the frame; None for
            events that are not about one person.
        rule: the settings that fired, as in the configuration.
        attributes: what second-stage classifiers or rules add (e.g. ``{"direction": "in"}``).
    """

    event_id: str
    version: int = Field(ge=1)
    type: EventType
    status: EventStatus
    store_id: str
    camera_id: str
    zone_id: str | None = None
    person_id: str | None = None
    started_at: Moment
    ended_at: Moment | None = None
    updated_at: Moment
    dwell_s: float | None = Field(default=None, ge=0)
    score: float | None = Field(default=None, ge=0, le=1)
    box_xyxy: tuple[float, float, float, float] | None = None
    model: ModelRef | None = None
    rule: dict[str, Any] = Field(default_factory=dict)
    attributes: dict[str, Any] = Field(default_factory=dict)
    clip: ClipRef | None = None
    snapshot: SnapshotRef | None = None
    latency_ms: Latency = Latency()
    keep: bool = False


def event_id_of(
    *,
    store_id: str,
    camera_id: str,
    zone_id: str | None,
    person_id: str | None,
    rule: str,
    started_at: datetime,
) -> str:
    """The deterministic id of an event: UUIDv5 over what identifies it."""
    name = "\x1f".join(
        (store_id, camera_id, zone_id or "", person_id or "", rule, rfc3339(started_at))
    )
    return str(uuid.uuid5(_EVENT_NAMESPACE, name))
