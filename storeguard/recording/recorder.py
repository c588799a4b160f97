"""One camera's smart recording: verdicts, commands and packets in, clips and pictures out.

`Recorder` is a state machine without threads: one caller at a time calls `step` with a message.
`recorder_thread.RecorderThread` is that caller in the running system.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig, SmartRecord
from storeguard.errors import QueryError, RecordingError, StoreguardError
from storeguard.events.commands import RecordCommand
from storeguard.events.cursor import Cursor
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal import ChangeBatch
from storeguard.recording.clip_requests import ClipRequest, needed_cache_s, request_of
from storeguard.recording.manual_recording import (
    RecordingAnswer,
    manual_event,
    requested_span,
)
from storeguard.recording.messages import Command, FrameSeen, Message, Reconfigure, Stop, Tick
from storeguard.recording.scheduler import Scheduler
from storeguard.recording.snapshots import Snapshots, Still
from storeguard.recording.spool import EventItem, RecorderCheckpoint, Spool, free_bytes
from storeguard.recording.spool_writer import SpoolWriter
from storeguard.rules.verdict import Verdict
from storeguard.video.jpeg import encode_jpeg
from storeguard.video.packets import PacketRing

_log = logging.getLogger(__name__)

_CURSOR_EVERY_S: Final = 5.0  # a cursor that lags costs some events read twice, no more


@dataclass(frozen=True, slots=True)
class RecorderTiming:
    """Seconds that a recorder's thread waits.

    Attributes:
        tick_s: between two rounds while nothing is recorded.
        write_s: between two rounds of writing; woken for each packet, a recorder costs three times
            as much. What waits meanwhile is in the ring.
        answer_s: for the answer to a command.
        close_s: for the last packets on a slow disk; the thread then goes on by itself.
        take_over_s: for another recorder of the folder that is still finishing.
    """

    tick_s: float = 1.0
    write_s: float = 0.4
    answer_s: float = 15.0
    close_s: float = 40.0
    take_over_s: float = 5.0


@dataclass(frozen=True, slots=True)
class RecordingPlace:
    """Where cameras of a store record to.

    Attributes:
        store_id: for keys and events.
        root: folder of the spools, one a camera.
        min_free_bytes: of its disk; with less, recording pauses.
        free: how many bytes are free on a folder's disk.
        timing: how long a recorder's thread waits for what.
    """

    store_id: str
    root: Path
    min_free_bytes: int = 0
    free: Callable[[Path], int] = free_bytes
    timing: RecorderTiming = RecorderTiming()


@dataclass(frozen=True, slots=True)
class RecordingState:
    """How one camera's recording is doing.

    Attributes:
        recording: whether a clip is being written.
        clips: files finished so far.
        paused: whether nothing is recorded because the disk is nearly full.
        error: what is wrong, or went wrong last; None if nothing did.
        cursor: the last change of the event journal that was dealt with; None before the first.
    """

    recording: bool = False
    clips: int = 0
    paused: bool = False
    error: str | None = None
    cursor: Cursor | None = None


class Recorder:
    """Turns one camera's events and commands into recordings, and queues them in its spool.

    Not thread-safe, but for `ring.append` and for reading `state`.

    Args:
        camera: its settings; `smart_record` is not `off`.
        place: where to record to.
        spool: the camera's; the caller holds its writer's lock.
        checkpoint: what to go on from, recovered.
        clock: for the silence of the camera, and for waits.
    """

    def __init__(
        self,
        camera: CameraConfig,
        place: RecordingPlace,
        *,
        spool: Spool,
        checkpoint: RecorderCheckpoint,
        clock: Clock,
    ) -> None:
        settings = camera.recording
        self.ring = PacketRing(max_s=needed_cache_s(camera), max_bytes=settings.cache_bytes)
        """The camera's last seconds; the reader's thread appends to it."""
        self._camera = camera
        self._store_id = place.store_id
        self._clock = clock
        self._by_events = settings.smart_record is SmartRecord.EVENTS
        self._writer = SpoolWriter(
            spool, camera_id=camera.id, min_free_bytes=place.min_free_bytes, free=place.free
        )
        self._scheduler = Scheduler(
            camera, spool=spool, writer=self._writer, ring=self.ring, clock=clock
        )
        self._scheduler.restore(checkpoint)
        self._snapshots = Snapshots()
        for request in checkpoint.requests:
            self._snapshots.resumed(request.event_id, request.person_id, request.start)
        self._stills: deque[Still] = deque()
        self._cursor = checkpoint.cursor
        self._cursor_saved_s = clock.monotonic()
        self.state = RecordingState(cursor=checkpoint.cursor)
        """As of the last step."""

    def step(self, message: Message) -> bool:
        """Deal with one message and with the packets that have come.

        Returns:
            Whether there is more to do at once: more packets wait to be written.
        """
        match message:
            case FrameSeen(frame, observation):
                self._snapshots.seen(frame, observation)
                return False
            case Verdict(changes=changes):
                self._take_in(changes)
            case Command(command, answer):
                try:
                    answer.set_result(self._command(command))
                except StoreguardError as error:
                    answer.set_exception(error)
            case Reconfigure(camera):
                self._camera = camera
            case Tick():
                pass
            case Stop():
                self._finish()
                return False
        return self._work()

    def _work(self) -> bool:
        scheduler, now = self._scheduler, self.ring.newest()
        scheduler.watch_disk()
        if now is not None:
            for event_id in scheduler.end_due(now):
                self._snapshots.closed(event_id)
            scheduler.schedule(now)
        self._save()  # a crash must find which events the files are for
        more = scheduler.write()
        scheduler.report_finished()
        self._encode_stills()
        self._writer.write_out()
        self._save()
        self._publish()
        return more

    def _finish(self) -> None:
        now = self.ring.newest()
        for request in list(self._scheduler.requests.values()):
            if not request.final or (now and request.end > now):
                # Not more than there will ever be; at least what is known to be part of it.
                end = max(request.start, min(now or request.end, request.target(request.end)))
                self._scheduler.conclude(request, end, closed=now or request.end)
        self._scheduler.close()
        self._encode_stills()
        self._writer.write_out()
        self._save(cursor_too=True)
        self._publish()

    def _save(self, *, cursor_too: bool = False) -> None:
        """Save the checkpoint if more than its cursor has changed, or its cursor is old."""
        now_s = self._clock.monotonic()
        if now_s >= self._cursor_saved_s + _CURSOR_EVERY_S:
            self._cursor_saved_s, cursor_too = now_s, True
        self._writer.save(self._scheduler.checkpoint(self._cursor), cursor_too=cursor_too)

    def _publish(self) -> None:
        paused = self._writer.paused
        self.state = RecordingState(
            recording=self._scheduler.is_recording,
            clips=self._scheduler.num_clips,
            paused=paused is not None,
            error=paused.in_words() if paused is not None else self._writer.error,
            cursor=self._cursor,
        )

    # ------------------------------------------------------------------ events

    def _take_in(self, batch: ChangeBatch | None) -> None:
        """Deal with what changed, as the journal reports it; harmless when repeated."""
        if batch is None or not self._by_events:
            return
        if self._cursor is not None and self._cursor.journal_id != batch.journal_id:
            self._conclude_open()
        for change in batch.changes:
            self._update(change.event)
        self._cursor = batch.cursor

    def _conclude_open(self) -> None:
        """The journal was replaced: the ends of events open before will never be reported."""
        now = self.ring.newest()
        for request in self._scheduler.requests.values():
            if not request.final and request.manual is None:
                end = (now or request.end) + timedelta(seconds=request.post_roll_s)
                self._scheduler.conclude(request, end, closed=end)
                self._keep(self._snapshots.closed(request.event_id))

    def _update(self, event: Event) -> None:
        known = self._scheduler.requests.get(event.event_id)
        closed = event.status is EventStatus.CLOSED
        if known is None and event.event_id in self._scheduler.finished and closed:
            return
        if known is None and closed and event.clip is not None:
            return  # another recorder, or this one before its restart, has dealt with it
        if known is not None and known.final:
            return
        request = request_of(event, known)
        if request is None:
            return
        if known is None:
            self._keep(self._snapshots.opened(event))
            self._scheduler.add(request)
        if closed:
            self._keep(self._snapshots.closed(event.event_id))

    # ------------------------------------------------------------------ commands

    def _command(self, command: RecordCommand) -> RecordingAnswer:
        span = self.ring.span()
        if span is None:
            raise RecordingError(
                f"camera {self._camera.id!r}: nothing to record, no keyframe has come yet"
            )
        if command.command == "stop-recording":
            return self._stop_recording(command, span)
        return self._start_recording(command, span)

    def _start_recording(
        self, command: RecordCommand, span: tuple[datetime, datetime]
    ) -> RecordingAnswer:
        oldest, now = span
        if self._writer.paused is not None:
            raise RecordingError(f"camera {self._camera.id!r}: {self._writer.paused.in_words()}")
        requested = requested_span(command, self._camera.recording, oldest=oldest, now=now)
        event = manual_event(self._store_id, self._camera.id, requested, now=now)
        known = self._scheduler.requests.get(event.event_id)
        if known is not None:  # the same command again
            return self._answer(command, [known], oldest)
        request = ClipRequest(
            event_id=event.event_id,
            start=requested.start,
            end=requested.began,
            manual=event,
            until=requested.end,
        )
        self._writer.put(EventItem(event=event), event.event_id)
        self._keep(self._snapshots.opened(event))
        self._scheduler.add(request)
        if not self._scheduler.cover(request):
            self._scheduler.conclude(request, requested.end, closed=now)
            reason = "not possible" if request.fault is None else request.fault.in_words()
            raise RecordingError(f"camera {self._camera.id!r}: {reason}")
        return self._answer(command, [request], oldest)

    def _stop_recording(
        self, command: RecordCommand, span: tuple[datetime, datetime]
    ) -> RecordingAnswer:
        oldest, now = span
        if command.duration_s is not None or command.start is not None:
            raise QueryError(
                "stop-recording: expected at most 'end', found 'start' or 'duration_s'"
            )
        manual = [one for one in self._scheduler.requests.values() if one.manual is not None]
        if not manual:
            raise RecordingError(
                f"camera {self._camera.id!r}: there is nothing to stop, no manual recording is "
                "going on"
            )
        for request in manual:
            request.until = max(command.end or now, request.start)
        return self._answer(command, manual, oldest)

    def _answer(
        self, command: RecordCommand, requests: list[ClipRequest], oldest: datetime
    ) -> RecordingAnswer:
        return RecordingAnswer(
            command=command.command,
            camera_id=self._camera.id,
            event_ids=tuple(one.event_id for one in requests),
            start=min(one.start for one in requests),
            end=max(one.until or one.end for one in requests),
            available_from=oldest,
        )

    # ------------------------------------------------------------------ pictures

    def _keep(self, still: Still | None) -> None:
        if still is not None:
            self._stills.append(still)

    def _encode_stills(self) -> None:
        while self._stills:
            still = self._stills.popleft()
            jpeg = encode_jpeg(still.frame.rgb(), quality=88)
            self._writer.put_picture(jpeg, event_id=still.event_id, name=still.name, day=still.day)
