"""Closed events whose video never came: the one scan that finds them.

A recorder reads the journal by its own cursor, so nothing has to be repeated to it. But there may
be no recorder: the camera was removed, or never ran again. And requested video may never come: the
node was lost with its disk. The journal knows which events those are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig, SmartRecord
from storeguard.events.changes import Change, ClipFailed
from storeguard.events.clip import ClipSpan, is_unmet
from storeguard.events.event import Event
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal
from storeguard.recording.clip_requests import span_of

_EVERY_S: Final = 5.0
_NO_RECORDER_S: Final = 300.0
_REMOVED_S: Final = 30.0  # a camera that was removed: as long as it may take to finish
_OVERDUE_S: Final = 900.0  # behind the span's end; a long recording is stored when it is over
_MAX_WAITING: Final = 256
_MAX_REQUESTED: Final = 4096


class MissingClips:
    """Scans the journal for such events. Not thread-safe.

    At most `_MAX_WAITING` events without a request and `_MAX_REQUESTED` with one are remembered at
    once; further ones wait in the journal.

    Args:
        journal: where events are.
        clock: for how long they have been waiting.
    """

    def __init__(self, journal: Journal, *, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._recording: frozenset[str] = frozenset()
        self._idle: frozenset[str] = frozenset()
        self._scanned_to = 0
        self._waiting: dict[str, float] = {}  # event id: monotonic seconds when first found
        self._requested: dict[str, float] = {}  # event id: monotonic seconds of its last moment
        self._next_s = clock.monotonic()

    def configure(self, cameras: Iterable[CameraConfig]) -> None:
        """Which cameras record events; of removed ones nothing more comes."""
        by_events = {
            camera.id: camera.recording.smart_record is SmartRecord.EVENTS for camera in cameras
        }
        self._recording = frozenset(name for name, recording in by_events.items() if recording)
        self._idle = frozenset(by_events) - self._recording

    def scan(self) -> list[Change]:
        """The faults to be noted now; call as often as you like.

        Raises:
            JournalError: the journal cannot be read.
        """
        now_s = self._clock.monotonic()
        if now_s < self._next_s:
            return []
        self._next_s = now_s + _EVERY_S
        changes = [*self._without_recorder(now_s), *self._overdue(now_s)]
        self._take_in(now_s)
        return changes

    def _without_recorder(self, now_s: float) -> list[Change]:
        changes: list[Change] = []
        for event_id, since_s in list(self._waiting.items()):
            event = self._journal.latest(event_id)
            if event is None or event.clip is not None:
                del self._waiting[event_id]
                continue
            patience_s = _NO_RECORDER_S if event.camera_id in self._recording else _REMOVED_S
            if now_s - since_s >= patience_s:
                changes.append(ClipFailed(span_of(event), Fault(code=FaultCode.NO_RECORDER)))
                del self._waiting[event_id]
        return changes

    def _overdue(self, now_s: float) -> list[Change]:
        changes: list[Change] = []
        for event_id, last_s in list(self._requested.items()):
            if now_s < last_s:
                continue
            del self._requested[event_id]
            event = self._journal.latest(event_id)
            if event is not None and is_unmet(event):
                fault = Fault(code=FaultCode.OVERDUE)
                changes.append(ClipFailed(requested_span_of(event), fault))
        return changes

    def _take_in(self, now_s: float) -> None:
        room = min(_MAX_WAITING - len(self._waiting), _MAX_REQUESTED - len(self._requested))
        if room <= 0:
            return
        for change in self._journal.without_video(self._scanned_to, limit=room):
            self._scanned_to, event = change.seq, change.event
            if is_unmet(event):
                after_close = requested_span_of(event).end - (event.ended_at or event.updated_at)
                last_s = now_s + max(0.0, after_close.total_seconds()) + _OVERDUE_S
                self._requested[event.event_id] = last_s
            elif event.camera_id not in self._idle and event.rule.get("record"):
                self._waiting.setdefault(event.event_id, now_s)


def requested_span_of(event: Event) -> ClipSpan:
    """The span of video that was requested for a closed event."""
    span, clip = span_of(event), event.clip
    if clip is None or clip.requested_start is None or clip.requested_end is None:
        return span
    return span.model_copy(update={"start": clip.requested_start, "end": clip.requested_end})
