"""Which recordings one camera has going on, and which clip requests each is for."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig
from storeguard.errors import RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.events.cursor import Cursor
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.clip_requests import TOLERANCE, ClipRequest
from storeguard.recording.recording import ClipFile, Recording
from storeguard.recording.spool import (
    EventItem,
    RecorderCheckpoint,
    RequestItem,
    Spool,
    closed_event,
)
from storeguard.recording.spool_writer import SpoolWriter
from storeguard.video.packets import PacketRing

_log = logging.getLogger(__name__)

_EXTEND_BY: Final = timedelta(seconds=10)  # an open event's recording is extended in such steps
_COOL_OFF_S: Final = 5.0  # after a recording that could not be written
_AHEAD: Final = timedelta(seconds=30)  # of the camera's present; no event is that early
_SILENT_S: Final = 3.0  # a camera silent for this long past a recording's end has no more for it
_STOOD_STILL_S: Final = 1.5  # between two rounds; the process stood still, so its reader did too
_MAX_FINISHED: Final = 256  # events remembered after their requests are fulfilled


@dataclass(slots=True)
class _Active:
    """A recording that is not over yet."""

    recording: Recording
    position: int
    """Number of the ring's next packet to be written."""
    planned: datetime
    requests: dict[str, ClipRequest] = field(default_factory=dict)
    files: list[ClipFile] = field(default_factory=list)
    failed: bool = False

    @property
    def begun(self) -> datetime:
        """From where it records; what lies behind can join it."""
        start = self.recording.requested_start
        return min(start, self.recording.started_at or start)


class Scheduler:
    """Gives every clip request its recording: one that is going on, extended, or a new one.

    The one place that decides which events share a file. Not thread-safe.

    Args:
        camera: its settings.
        spool: where files go.
        writer: writes the manifests.
        ring: the camera's packets; bounded, the oldest go first, and what was dropped before it was
            written is counted and reported with the clip.
        clock: for the silence of the camera, and for waits after a failure.
    """

    def __init__(
        self,
        camera: CameraConfig,
        *,
        spool: Spool,
        writer: SpoolWriter,
        ring: PacketRing,
        clock: Clock,
    ) -> None:
        self.requests: dict[str, ClipRequest] = {}
        self.finished: deque[str] = deque(maxlen=_MAX_FINISHED)
        self.num_clips = 0
        self._camera_id = camera.id
        # A name that begins with a dot is a hidden file, and no key of object storage.
        prefix = camera.recording.file_prefix.lstrip(".")
        self._settings = camera.recording.model_copy(update={"file_prefix": prefix})
        self._spool = spool
        self._writer = writer
        self._ring = ring
        self._clock = clock
        self._active: dict[str, _Active] = {}
        self._not_before_s = 0.0
        self._last_number = -1
        self._last_packet_s = self._last_round_s = clock.monotonic()

    @property
    def is_recording(self) -> bool:
        """Whether a recording is going on."""
        return bool(self._active)

    def checkpoint(self, cursor: Cursor | None) -> RecorderCheckpoint:
        """What a restart has to know."""
        return RecorderCheckpoint(
            cursor=cursor,
            requests=tuple(self.requests.values()),
            recordings={name: tuple(one.requests) for name, one in self._active.items()},
            finished=tuple(self.finished),
        )

    def restore(self, checkpoint: RecorderCheckpoint) -> None:
        """Go on from a checkpoint; its recordings have been recovered already."""
        self.requests = {one.event_id: one for one in checkpoint.requests}
        self.finished.extend(checkpoint.finished)

    # ------------------------------------------------------------------ requests

    def add(self, request: ClipRequest) -> None:
        """Add a request and report that it is being recorded."""
        self.requests[request.event_id] = request
        self._report(request)

    def conclude(self, request: ClipRequest, end: datetime, *, closed: datetime) -> None:
        """A request ends at `end`; a manual event closes with it, at `closed`.

        The span is reported before the event closes: a reader of a closed event sees the whole
        span.
        """
        manual = request.manual
        request.conclude(end)
        if manual is not None:
            self._report(request)
            event = closed_event(manual, closed)
            self._writer.put(EventItem(event=event), request.event_id)

    def end_due(self, now: datetime) -> list[str]:
        """Close the events of manual recordings that have come to their end."""
        due = [one for one in self.requests.values() if one.until is not None and one.until <= now]
        for request in due:
            end = request.until or now
            self.conclude(request, end, closed=end)
        return [request.event_id for request in due]

    def schedule(self, now: datetime) -> None:
        """Have all that is requested recorded, and nothing more."""
        for request in list(self.requests.values()):
            self.cover(request)
        for active in self._active.values():
            requests = active.requests.values()
            target = max((one.target(now) for one in requests), default=active.planned)
            if target < active.planned and all(one.final for one in requests):
                active.planned = target
                active.recording.stop(target)

    def cover(self, request: ClipRequest) -> bool:
        """Have a request recorded, as far as possible; returns whether it is."""
        span = self._ring.span()
        if request.is_covered() or span is None:
            return request.is_covered()
        oldest, now = span
        target = request.target(now)
        for active in self._active.values():
            if request.event_id in active.requests and self._extend(active, request, target):
                return True
        start = max([request.start, oldest, *(end for _, end in request.covered)])
        if request.final and start > now + _AHEAD:
            request.fault = request.fault or Fault(code=FaultCode.CLOCK_SET_BACK)
        elif target <= start or (request.covered and now <= start + TOLERANCE):
            if not request.covered:
                request.fault = request.fault or Fault(code=FaultCode.NOTHING_KEPT)
        elif self._writer.paused is not None:
            request.fault = self._writer.paused
        elif self._clock.monotonic() >= self._not_before_s:
            return self._record(request, start, target)
        return False

    def _record(self, request: ClipRequest, start: datetime, target: datetime) -> bool:
        """Have a span recorded: by a recording that reaches back as far, else by a new one."""
        for active in self._active.values():
            if active.begun <= start and self._extend(active, request, target):
                self._join(active, request)
                return True
        now = self._ring.newest()
        if now is None:
            return False
        recording = Recording(
            camera_id=self._camera_id,
            settings=self._settings,
            folder=self._spool.folder,
            requested_start=start,
            requested_end=target,
            now=now,
        )
        recording.expect_audio(self._ring.audio_format())
        number = self._ring.keyframe_at(start)
        active = _Active(recording, number or 0, target)
        self._active[recording.recording_id] = active
        self._join(active, request)
        return True

    def _extend(self, active: _Active, request: ClipRequest, target: datetime) -> bool:
        """Whether a recording goes on to `target`; False if it is over."""
        more = target - active.planned
        if more <= timedelta() or (not request.final and more < _EXTEND_BY):
            return True
        if self._writer.paused is not None:  # it was stopped
            return True
        if not active.recording.extend(target):
            return False
        active.planned = target
        return True

    def _join(self, active: _Active, request: ClipRequest) -> None:
        active.requests[request.event_id] = request
        for clip in active.files:
            if request.shares(clip.start, clip.end):
                self._announce(clip, [request], upload=False)

    # ------------------------------------------------------------------ packets

    def write(self) -> bool:
        """Write what is new for every recording; True if there may be more already."""
        self._listen()
        behind = [self._advance(active) for active in list(self._active.values())]
        return any(behind)

    def _listen(self) -> None:
        """Note when the camera last sent a packet."""
        number, now_s = self._ring.next_number(), self._clock.monotonic()
        stood_still_s = now_s - self._last_round_s
        self._last_round_s = now_s
        if number != self._last_number:
            self._last_number, self._last_packet_s = number, now_s
        elif stood_still_s > _STOOD_STILL_S:
            self._last_packet_s += stood_still_s

    def _advance(self, active: _Active) -> bool:
        number, packets = self._ring.read(active.position)
        if number > active.position and packets:
            active.recording.lost(number - active.position)
        try:
            for packet in packets:
                self._store(active, active.recording.feed(packet))
                if active.recording.done:
                    self._end(active)
                    return False
            active.position = number + len(packets)
            if not packets and self._is_silent(active.recording):
                self._store(active, active.recording.close(FaultCode.CAMERA_SILENT))
                self._end(active)
        except RecordingError as error:
            self._fail(active, error)
            return False
        return bool(packets)

    def _is_silent(self, recording: Recording) -> bool:
        """Whether the recording's end is over and the camera has not come that far."""
        newest = self._ring.newest()
        over_s = self._clock.monotonic() - self._last_packet_s - _SILENT_S
        if newest is None or over_s < 0:
            return False
        return newest + timedelta(seconds=over_s) >= recording.requested_end

    def _store(self, active: _Active, clips: Iterable[ClipFile]) -> None:
        """Queue finished files for the events that they are for."""
        for clip in clips:
            requests = [one for one in active.requests.values() if one.shares(clip.start, clip.end)]
            if not requests:
                _log.warning("camera %r: %s is for no event", self._camera_id, clip.path.name)
                clip.path.unlink(missing_ok=True)
                continue
            self.num_clips += 1
            self._writer.error = None
            active.files.append(clip)
            self._announce(clip, requests, upload=True)

    def _announce(self, clip: ClipFile, requests: list[ClipRequest], *, upload: bool) -> None:
        spans: list[ClipSpan] = []
        for request in requests:
            request.reported = request.span
            request.covered.append((clip.start, clip.end))
            spans.append(request.reported)
        self._writer.put(self._spool.clip_item(clip, spans, upload=upload), clip.path.name)

    def _end(self, active: _Active) -> None:
        """A recording is over."""
        self._active.pop(active.recording.recording_id, None)
        if active.files or active.failed:
            return
        for request in active.requests.values():
            request.fault = request.fault or Fault(code=FaultCode.NOTHING_CAME)

    def _fail(self, active: _Active, error: RecordingError) -> None:
        self._not_before_s = self._clock.monotonic() + _COOL_OFF_S
        active.failed = True
        for request in active.requests.values():
            request.fault = Fault(code=FaultCode.WRITE_FAILED, detail=str(error))
        self._end(active)
        self._writer.report(str(error))
        self.watch_disk()

    # ------------------------------------------------------------------ reports and the disk

    def report_finished(self, *, closing: bool = False) -> None:
        """Report requests of which nothing more can come; on `closing`, also of the others."""
        busy = {name for active in self._active.values() for name in active.requests}
        for request in [one for one in self.requests.values() if one.event_id not in busy]:
            if not request.final or (not closing and self._may_go_on(request)):
                continue
            fault = None if request.is_covered() else request.fault
            if fault is None and not request.covered:
                fault = Fault(code=FaultCode.NOTHING_KEPT)
            if request.reported != request.span or fault is not None:
                self._writer.put(RequestItem(links=(request.span,), fault=fault), request.event_id)
            del self.requests[request.event_id]
            self.finished.append(request.event_id)

    def close(self) -> None:
        """End every recording with what it has, and report all requests."""
        while self.write():
            pass
        for active in list(self._active.values()):
            try:
                self._store(active, active.recording.close(FaultCode.RECORDER_CLOSED))
                self._end(active)
            except RecordingError as error:
                self._fail(active, error)
        self.report_finished(closing=True)

    def watch_disk(self) -> None:
        """Pause while the disk is nearly full, and go on when it has room again."""
        if not self._writer.watch_disk():
            return
        paused, now = self._writer.paused, self._ring.newest()
        for active in self._active.values() if paused else ():
            if now is not None:
                active.recording.stop(now)
            for request in active.requests.values():
                request.fault = paused
        for request in () if paused else self.requests.values():
            request.fault = request.fault if request.final else None

    def _report(self, request: ClipRequest) -> None:
        """Report that video of an event is being recorded."""
        request.reported = request.span.model_copy(update={"final": False})
        self._writer.put(RequestItem(links=(request.reported,)), request.event_id)

    def _may_go_on(self, request: ClipRequest) -> bool:
        """Whether more of a final request can still be recorded."""
        if request.is_covered() or self._writer.paused is not None or request.fault is not None:
            return False
        newest = self._ring.newest()
        return newest is not None and newest > request.covered_to() + TOLERANCE
