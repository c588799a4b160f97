"""Which spans of video one camera's events request, as they open, grow and close."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from storeguard.config.store import CameraConfig
from storeguard.config.zones import RecordSettings
from storeguard.events.clip import ClipSpan
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.faults import Fault

TOLERANCE: Final = timedelta(milliseconds=5)
_HOLD: Final = timedelta(seconds=20)  # recorded ahead of an open event, while the rules are silent
_SLACK_S: Final = 5.0  # between a moment and the verdict about it


class ClipRequest(BaseModel):
    """The video requested for one event. Part of the recorder's checkpoint.

    Attributes:
        event_id: the event.
        person_id: whom the event is about; None if it is not about one person.
        start: where its video begins.
        end: where it ends, once `final`; until then the earliest it can end.
        final: whether the event is closed, so that the span does not grow any more.
        post_roll_s: seconds of video after the event's end.
        manual: the event itself, if it is an open manual recording; None for events of rules.
        until: when a manual recording ends by itself.
        reported: the span as last put into the spool.
        covered: the spans of its finished files.
        fault: why some of it could not be recorded.
    """

    model_config = ConfigDict(extra="forbid")

    event_id: str
    person_id: str | None = None
    start: AwareDatetime
    end: AwareDatetime
    final: bool = False
    post_roll_s: float = 0.0
    manual: Event | None = None
    until: AwareDatetime | None = None
    reported: ClipSpan | None = None
    covered: list[tuple[AwareDatetime, AwareDatetime]] = []
    fault: Fault | None = None

    @property
    def span(self) -> ClipSpan:
        """The span as of now."""
        return ClipSpan(event_id=self.event_id, start=self.start, end=self.end, final=self.final)

    def target(self, now: datetime) -> datetime:
        """Where recording for it goes on to, as of now."""
        if self.final:
            return self.end
        return self.until or now + timedelta(seconds=self.post_roll_s) + _HOLD

    def shares(self, start: datetime, end: datetime) -> bool:
        """Whether a span has a moment in common with it."""
        return self.start < end and (not self.final or start < self.end)

    def covered_to(self) -> datetime:
        """The end of its last file; its start if there is none."""
        return max([self.start, *(end for _, end in self.covered)])

    def is_covered(self) -> bool:
        """Whether its files reach to its end."""
        return self.final and bool(self.covered) and self.covered_to() >= self.end - TOLERANCE

    def conclude(self, end: datetime) -> None:
        """Its event closed; its video ends at `end`."""
        self.end, self.final, self.manual, self.until = max(end, self.start), True, None, None


def request_of(event: Event, before: ClipRequest | None) -> ClipRequest | None:
    """What an event requests now.

    Args:
        event: as it is now.
        before: its request so far, which is updated; None if there is none.

    Returns:
        The request; None if the event's rule keeps no video, or it is a manual recording, whose
        request comes with the command.
    """
    record = record_settings_of(event)
    if not record.record or event.type is EventType.MANUAL:
        return None
    start = event.started_at - timedelta(seconds=record.pre_roll_s)
    request = before or ClipRequest(
        event_id=event.event_id,
        person_id=event.person_id,
        start=start,
        end=event.started_at,
        post_roll_s=record.post_roll_s,
    )
    request.start = min(request.start, start)
    if event.status is EventStatus.CLOSED:
        post_roll = timedelta(seconds=record.post_roll_s)
        request.conclude((event.ended_at or event.updated_at) + post_roll)
    return request


def record_settings_of(event: Event) -> RecordSettings:
    """The recording settings of the rule that raised an event."""
    return RecordSettings(
        **{name: event.rule[name] for name in RecordSettings.model_fields if name in event.rule}
    )


def span_of(event: Event) -> ClipSpan:
    """The span that a closed event requests, by the settings of the rule that raised it."""
    record = record_settings_of(event)
    return ClipSpan(
        event_id=event.event_id,
        start=event.started_at - timedelta(seconds=record.pre_roll_s),
        end=(event.ended_at or event.updated_at) + timedelta(seconds=record.post_roll_s),
        final=True,
    )


def needed_cache_s(camera: CameraConfig) -> float:
    """Seconds of video to remember, so that every rule's pre-roll is there when it fires.

    A rule fires some time after its event began (`loiter_s`, `for_s`): the pre-roll comes on top.
    """
    needs = [camera.recording.start_before_now_s]
    needs += [rule.pre_roll_s + rule.longest_delay_s for _, rule in camera.rules() if rule.record]
    return max(camera.recording.cache_s, max(needs) + _SLACK_S)
