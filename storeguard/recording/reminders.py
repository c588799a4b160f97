"""Closed events of whose video nobody has said anything: to be told to their camera again.

What the rules answer is said once, and its hearer may be dead by then: the camera's process was
killed, or the rules' own before the answer was on its way. The journal knows which events want
video and have heard nothing of it. And what was promised may never come: the node was lost with
its disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig, SmartRecord
from storeguard.config.zones import RecordSettings
from storeguard.events.clip import ClipSpan, is_unmet
from storeguard.events.event import Event
from storeguard.events.journal import Journal

_AGAIN_S: Final = 5.0  # a camera at work says within a second or two what it records
_GIVE_UP_S: Final = 300.0
_GIVE_UP_GONE_S: Final = 30.0  # a camera that was removed: as long as it may take to finish
_OVERDUE_S: Final = 900.0  # behind the span's end; a long recording is stored when it is over
_BATCH: Final = 256
_MAX_PROMISED: Final = 4096


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now.

    Attributes:
        again: closed events to be said to their cameras once more.
        given_up: those that no camera has taken up in minutes, or whose camera was removed, to be
            told that there is no video.
        overdue: those that were promised a file, and lack it after minutes; it may still come.
    """

    again: list[Event] = field(default_factory=list)
    given_up: list[Event] = field(default_factory=list)
    overdue: list[Event] = field(default_factory=list)


class Reminders:
    """Looks through the journal for such events. Not thread-safe.

    At most `_BATCH` and `_MAX_PROMISED` events are remembered at once; further ones wait in the
    journal.

    Args:
        journal: where events are.
        clock: for how long they have been waiting.
    """

    def __init__(self, journal: Journal, *, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._recording: frozenset[str] = frozenset()
        self._idle: frozenset[str] = frozenset()
        self._looked_through = 0
        self._waiting: dict[str, float] = {}  # event id: monotonic seconds when first seen
        self._promised: dict[str, float] = {}  # event id: monotonic seconds of its last moment
        self._next_s = clock.monotonic()

    def configure(self, cameras: Iterable[CameraConfig]) -> None:
        """Cameras that record no events are passed over; of removed ones nothing more comes."""
        by_events = {
            camera.id: camera.recording.smart_record is SmartRecord.EVENTS for camera in cameras
        }
        self._recording = frozenset(name for name, recording in by_events.items() if recording)
        self._idle = frozenset(by_events) - self._recording

    def look(self) -> Due:
        """What is due now; call as often as you like.

        Raises:
            JournalError: the journal cannot be read.
        """
        now_s = self._clock.monotonic()
        if now_s < self._next_s:
            return Due()
        self._next_s = now_s + _AGAIN_S
        due = Due()
        for event_id, since_s in list(self._waiting.items()):
            event = self._journal.latest(event_id)
            if event is None or event.clip is not None:
                del self._waiting[event_id]
            elif now_s - since_s >= self._patience_s(event.camera_id):
                due.given_up.append(event)
                del self._waiting[event_id]
            elif event.camera_id in self._recording:
                due.again.append(event)
        due.overdue.extend(self._overdue(now_s))
        self._take_in(now_s)
        return due

    def _overdue(self, now_s: float) -> Iterator[Event]:
        for event_id, last_s in list(self._promised.items()):
            if now_s < last_s:
                continue
            del self._promised[event_id]
            event = self._journal.latest(event_id)
            if event is not None and is_unmet(event):
                yield event

    def _take_in(self, now_s: float) -> None:
        room = min(_BATCH - len(self._waiting), _MAX_PROMISED - len(self._promised))
        if room <= 0:
            return
        for change in self._journal.without_video(self._looked_through, limit=room):
            self._looked_through, event = change.seq, change.event
            if is_unmet(event):
                self._promised[event.event_id] = now_s + _after_close_s(event) + _OVERDUE_S
            elif event.camera_id not in self._idle and event.rule.get("record"):
                self._waiting.setdefault(event.event_id, now_s)

    def _patience_s(self, camera_id: str) -> float:
        return _GIVE_UP_S if camera_id in self._recording else _GIVE_UP_GONE_S


def promise_of(event: Event) -> ClipSpan:
    """The span of video that an event was promised."""
    wish = wish_of(event)
    clip = event.clip
    if clip is None or clip.requested_start is None or clip.requested_end is None:
        return wish
    return wish.model_copy(update={"start": clip.requested_start, "end": clip.requested_end})


def _after_close_s(event: Event) -> float:
    promise = promise_of(event)
    return max(0.0, (promise.end - (event.ended_at or event.updated_at)).total_seconds())


def wish_of(event: Event) -> ClipSpan:
    """The span of video that a closed event wants, going by the rule that raised it."""
    record = RecordSettings(
        **{name: event.rule[name] for name in RecordSettings.model_fields if name in event.rule}
    )
    return ClipSpan(
        event_id=event.event_id,
        start=event.started_at - timedelta(seconds=record.pre_roll_s),
        end=(event.ended_at or event.updated_at) + timedelta(seconds=record.post_roll_s),
        final=True,
    )
