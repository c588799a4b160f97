"""Manual recordings: what a command means, and the event that stands for the recording."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from storeguard.config.store import RecordingSettings
from storeguard.errors import QueryError
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus, EventType, Moment, event_id_of

_AHEAD: Final = timedelta(seconds=60)


class RecordingAnswer(BaseModel):
    """What is being done about a command.

    Attributes:
        event_ids: the events of type `manual` that were opened or closed by it.
        start, end: the span that is recorded for them.
        available_from: the oldest video there is.
    """

    model_config = ConfigDict(frozen=True)

    command: str
    camera_id: str
    event_ids: tuple[str, ...]
    start: Moment
    end: Moment
    available_from: Moment


@dataclass(frozen=True, slots=True)
class RequestedSpan:
    """What a start command requests: video from `start` to `end`, of an event begun at `began`."""

    start: datetime
    began: datetime
    end: datetime


def requested_span(
    command: RecordCommand,
    settings: RecordingSettings,
    *,
    oldest: datetime,
    now: datetime,
) -> RequestedSpan:
    """The span of a start command: start-before-now plus duration, unless it names another.

    Args:
        command: to start recording.
        settings: defaults.
        oldest: where the kept video begins.
        now: the camera's own present.

    Raises:
        QueryError: it lies too far ahead, or before all kept video.
    """
    if command.start is not None and command.start > now + _AHEAD:
        raise QueryError(f"start: expected at most a minute ahead of {now}, got {command.start}")
    start = command.start or now - timedelta(seconds=settings.start_before_now_s)
    lasts = timedelta(seconds=command.duration_s or settings.default_duration_s)
    end = command.end or now + lasts
    if end <= max(start, oldest):
        raise QueryError(
            f"end: expected after {max(start, oldest)}, the start of what is kept; got {end}"
        )
    return RequestedSpan(start, command.start or now, end)


def manual_event(
    store_id: str, camera_id: str, requested: RequestedSpan, *, now: datetime
) -> Event:
    """The event that opens with a manual recording."""
    return Event(
        event_id=event_id_of(
            store_id=store_id,
            camera_id=camera_id,
            zone_id=None,
            person_id=None,
            rule=EventType.MANUAL,
            started_at=requested.began,
        ),
        version=1,
        type=EventType.MANUAL,
        status=EventStatus.OPEN,
        store_id=store_id,
        camera_id=camera_id,
        started_at=requested.began,
        updated_at=max(requested.began, now),
        rule={"type": "manual", "pre_roll_s": (requested.began - requested.start).total_seconds()},
    )
