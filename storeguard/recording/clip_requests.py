"""Which spans of video the events of one camera want, as the rules and commands tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from storeguard.classification.clips.clip import CLIP_S
from storeguard.config.store import CameraConfig
from storeguard.config.zones import LoiteringRule, OccupancyRule, RecordSettings, ShopliftingRule
from storeguard.events.clip import ClipSpan
from storeguard.events.event import Event, EventStatus
from storeguard.rules.ongoing import OpenEvent

_HOLD = timedelta(seconds=20)  # recorded ahead of an open event, should the rules fall silent
_SLACK_S = 5.0  # between a moment and the verdict about it
_TOLERANCE = timedelta(milliseconds=5)


@dataclass(slots=True)
class Wanted:
    """One event's wish, as it grows.

    Attributes:
        start: where its video shall begin.
        end: where it shall end, once `final`; until then the earliest it can end.
        asked: the event itself, if it was asked for by command and is still open.
        until: when a recording that was asked for ends by itself.
        told: the wish as last put into a manifest.
        covered: the spans of its finished files.
        error: why something of it could not be recorded.
    """

    event_id: str
    start: datetime
    end: datetime
    final: bool
    post_roll: timedelta
    asked: Event | None = None
    until: datetime | None = None
    told: ClipSpan | None = None
    covered: list[tuple[datetime, datetime]] = field(default_factory=list)
    error: str | None = None

    @property
    def wish(self) -> ClipSpan:
        """As it is told to others."""
        return ClipSpan(event_id=self.event_id, start=self.start, end=self.end, final=self.final)

    def target(self, now: datetime) -> datetime:
        """Where recording for it shall go on to, as of now."""
        if self.final:
            return self.end
        return self.until or now + self.post_roll + _HOLD

    def shares(self, start: datetime, end: datetime) -> bool:
        """Whether it wants anything of a span."""
        return self.start < end and (not self.final or start < self.end)

    def covered_to(self) -> datetime:
        """Until where there is video of it, without a gap at the end."""
        return max([self.start, *(end for _, end in self.covered)])

    def is_covered(self) -> bool:
        """Whether its files reach to its end."""
        return self.final and bool(self.covered) and self.covered_to() >= self.end - _TOLERANCE

    def conclude(self, end: datetime) -> None:
        """It ends; `end` is where its video shall end."""
        self.end, self.final, self.asked, self.until = max(end, self.start), True, None, None


class WishBook:
    """What the events of a camera want that are going on, or not settled yet.

    Args:
        camera: for the settings of events of which no more than their id is known.
    """

    def __init__(self, camera: CameraConfig) -> None:
        self.camera = camera
        self.wanted: dict[str, Wanted] = {}
        self._passed: set[str] = set()  # open events whose rule keeps no video

    def hear(self, event: Event) -> Wanted | None:
        """An event opened, grew or closed; returns its wish, None if it has none."""
        record = RecordSettings(
            **{name: event.rule[name] for name in RecordSettings.model_fields if name in event.rule}
        )
        is_open = event.status is EventStatus.OPEN
        if not record.record:
            (self._passed.add if is_open else self._passed.discard)(event.event_id)
            return None
        start = event.started_at - timedelta(seconds=record.pre_roll_s)
        post_roll = timedelta(seconds=record.post_roll_s)
        wanted = self.wanted.get(event.event_id)
        if wanted is None:
            wanted = Wanted(event.event_id, start, event.started_at, False, post_roll)
            self.wanted[event.event_id] = wanted
        wanted.start = min(wanted.start, start)
        if not is_open:
            wanted.conclude((event.ended_at or event.updated_at) + post_roll)
        return wanted

    def resume(self, events: Iterable[OpenEvent], now: datetime) -> list[Wanted]:
        """Take up events that are open without our having heard of it; returns their wishes."""
        fresh = []
        for event in events:
            if event.event_id in self.wanted or event.event_id in self._passed:
                continue
            record = self._settings_of(event)
            if record is None or not record.record:
                self._passed.add(event.event_id)
                continue
            wanted = Wanted(
                event.event_id,
                now - timedelta(seconds=record.pre_roll_s),
                now,
                False,
                timedelta(seconds=record.post_roll_s),
            )
            self.wanted[event.event_id] = wanted
            fresh.append(wanted)
        return fresh

    def conclude_absent(self, open_ids: set[str], now: datetime) -> list[str]:
        """Events that are not open any more, of whose end we did not hear, end now."""
        ended = [
            wanted
            for wanted in self.wanted.values()
            if not wanted.final and wanted.until is None and wanted.event_id not in open_ids
        ]
        for wanted in ended:
            wanted.conclude(now + wanted.post_roll)
        self._passed &= open_ids
        return [wanted.event_id for wanted in ended]

    def _settings_of(self, event: OpenEvent) -> RecordSettings | None:
        rules: list[Any] = [
            rule
            for zone in self.camera.zones
            if zone.id == event.zone_id
            for rule in zone.rules
            if rule.type == event.type
        ]
        person = self.camera.person
        if event.zone_id is None and person is not None and person.type == event.type:
            rules.append(person)
        return rules[0] if rules else None


def needed_cache_s(camera: CameraConfig) -> float:
    """Seconds of video to remember, so that every rule's pre-roll is there when it fires.

    A rule fires some time after its event began (`loiter_s`, `for_s`): the pre-roll comes on top.
    """
    needs = [camera.recording.start_before_now_s]
    rules: list[Any] = [rule for zone in camera.zones for rule in zone.rules]
    for rule in [*rules, *filter(None, [camera.person])]:
        match rule:
            case LoiteringRule(loiter_s=delay_s) | OccupancyRule(for_s=delay_s):
                pass
            case ShopliftingRule(window_s=window_s):
                delay_s = window_s + CLIP_S
            case _:
                delay_s = 0.0
        if rule.record:
            needs.append(rule.pre_roll_s + delay_s)
    return max(camera.recording.cache_s, max(needs) + _SLACK_S)
