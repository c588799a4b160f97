"""One camera's smart recording: events and commands in, clips and pictures in the spool out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from storeguard.clock import Clock, SystemClock
from storeguard.config.store import CameraConfig, SmartRecord
from storeguard.errors import QueryError, RecordingError
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus
from storeguard.recording.clip_requests import Wanted
from storeguard.recording.manual_recording import RecordingAnswer, manual_event, span_asked
from storeguard.recording.recordings import Recordings
from storeguard.recording.snapshots import Snapshots, Still
from storeguard.recording.spool import (
    EventItem,
    Spool,
    key_prefix,
)
from storeguard.recording.spool_writer import SpoolWriter
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame
from storeguard.video.jpeg import encode_jpeg
from storeguard.video.packets import EncodedPacket

_log = logging.getLogger(__name__)

_STEP_S: Final = 1.0
_CLOSE_S: Final = 40.0  # for the last packets on a slow disk
_TAKE_OVER_S: Final = 5.0  # from a recorder that is still finishing
_MAX_STILLS: Final = 32
_KILLED: Final = "the camera's process ended before its video was written"


@dataclass(frozen=True, slots=True)
class RecordingPlace:
    """Where cameras of a store record to.

    Attributes:
        store_id: for keys and events.
        root: folder of the spools, one a camera.
        min_free_bytes: of its disk; with less, recording pauses.
    """

    store_id: str
    root: Path
    min_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RecordingState:
    """How one camera's recording is doing.

    Attributes:
        recording: whether a clip is being written.
        clips: files finished so far.
        paused: whether nothing is recorded because the disk is nearly full.
        error: what is wrong, or went wrong last; None if nothing did.
    """

    recording: bool
    clips: int
    paused: bool
    error: str | None


class CameraRecorder:
    """Turns one camera's events and commands into recordings, and tells the spool about them.

    Thread-safe. What needs the disk happens on a thread of its own and on the recorder's; `seen`,
    `judged` and `on_packet` never wait for it. Its inbox is bounded by the events that are open.

    Args:
        camera: its settings; `smart_record` must not be `off`.
        place: where to record to.
        clock: paces the thread.

    Raises:
        RecordingError: the spool folder cannot be used.
    """

    def __init__(
        self, camera: CameraConfig, place: RecordingPlace, *, clock: Clock | None = None
    ) -> None:
        self._camera = camera
        self._place = place
        self._clock = clock or SystemClock()
        self._by_events = camera.recording.smart_record is SmartRecord.EVENTS
        self._lock = threading.RLock()  # guards book, going, writer
        self._stills: deque[Still] = deque(maxlen=_MAX_STILLS)
        self._inbox = threading.Condition()  # guards what follows
        self._changes: dict[str, Event] = {}
        self._open: tuple[OpenEvent, ...] | None = None
        self._snapshots = Snapshots()
        self._woken = self._stopping = False
        self._held = ExitStack()
        folder = place.root / camera.id
        prefix = key_prefix(place.store_id, camera.id, camera.recording.folder)
        try:
            self._spool = Spool(folder, prefix=prefix)
            taken = self._held.enter_context(self._spool.writing(within_s=_TAKE_OVER_S))
            if taken:
                self._spool.recover(_KILLED)
        except OSError as error:
            self._held.close()
            if isinstance(error, RecordingError):
                raise
            raise RecordingError(f"camera {camera.id!r}: spool {folder}: {error}") from error
        if not taken:
            self._held.close()
            raise RecordingError(f"camera {camera.id!r}: another recorder still writes in {folder}")
        self._writer = SpoolWriter(
            self._spool, camera_id=camera.id, min_free_bytes=place.min_free_bytes
        )
        self._recordings = Recordings(
            camera, self._spool, self._writer, lock=self._lock, clock=self._clock
        )
        self._book = self._recordings.book
        self._ring = self._recordings.ring
        self._thread = threading.Thread(
            target=self._run, name=f"camera-{camera.id}-triggers", daemon=True
        )
        self._thread.start()

    # ------------------------------------------------------------------ from the camera

    def on_packet(self, packet: EncodedPacket) -> None:
        """Remember a packet. Called on the reading thread."""
        self._ring.append(packet)

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Take in a processed frame; for the events' pictures."""
        with self._inbox:
            self._snapshots.seen(frame, observation)

    def judged(self, verdict: Verdict) -> None:
        """Take in what the rules say."""
        if not self._by_events:
            return
        with self._inbox:
            before = self._open
            self._open = verdict.open_events
            for event in verdict.changes:
                self._changes[event.event_id] = event
            # Growth can wait for the next step; openings and endings cannot.
            if self._changes or before is None or len(before) != len(verdict.open_events):
                self._woken = True
                self._inbox.notify_all()

    def reconfigure(self, camera: CameraConfig) -> None:
        """Go on with other zones and rules."""
        with self._lock:
            self._book.camera = camera

    def state(self) -> RecordingState:
        """How it is doing."""
        stats = self._recordings.stats()
        return RecordingState(
            recording=stats.active > 0,
            clips=stats.clips,
            paused=self._writer.paused is not None,
            error=self._writer.paused or self._writer.fault,
        )

    def close(self) -> None:
        """Finish what is being written, queue it, and end the threads."""
        with self._inbox:
            self._stopping = True
            self._inbox.notify_all()
        name = f"camera-{self._camera.id}-end"
        ending = threading.Thread(target=self._finish, name=name, daemon=True)
        ending.start()
        ending.join(_CLOSE_S)
        if ending.is_alive():
            _log.error("camera %r: a clip is not finished yet, its disk is slow", self._camera.id)

    def _finish(self) -> None:
        """Until all is written, however long that takes, nobody may take it for left behind."""
        try:
            self._thread.join()
            with self._lock:
                now = self._ring.newest()
                for wanted in list(self._book.wanted.values()):
                    if not wanted.final or (now and wanted.end > now):
                        # Not more than there will ever be; at least what is known to be part of it.
                        end = max(wanted.start, min(now or wanted.end, wanted.target(wanted.end)))
                        self._recordings.conclude(wanted, end, closed=now or wanted.end)
            self._recordings.close()
        except Exception:  # noqa: BLE001 - whatever it is, the folder is let go
            _log.exception("camera %r: its recordings end badly", self._camera.id)
        finally:
            self._held.close()

    # ------------------------------------------------------------------ commands

    def command(self, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command; the recordings it starts are events of type `manual`.

        Raises:
            QueryError: the span is not possible.
            RecordingError: it is paused, there is no video yet, or nothing to stop.
        """
        with self._lock:
            span = self._ring.span()
            if span is None:
                raise RecordingError(
                    f"camera {self._camera.id!r}: nothing to record, no keyframe has come yet"
                )
            if command.command == "stop-recording":
                return self._stop_asked(command, span)
            return self._start_asked(command, span)

    def _start_asked(
        self, command: RecordCommand, span: tuple[datetime, datetime]
    ) -> RecordingAnswer:
        oldest, now = span
        if self._writer.paused is not None:
            raise RecordingError(f"camera {self._camera.id!r}: {self._writer.paused}")
        asked = span_asked(command, self._camera.recording, oldest=oldest, now=now)
        event = manual_event(self._place.store_id, self._camera.id, asked, now=now)
        known = self._book.wanted.get(event.event_id)
        if known is not None:  # the same command again
            return self._answer(command, [known], oldest)
        wanted = Wanted(
            event.event_id,
            asked.start,
            asked.began,
            False,
            timedelta(),
            asked=event,
            until=asked.end,
        )
        self._writer.put(EventItem(event=event), event.event_id)
        self._book.wanted[event.event_id] = wanted
        with self._inbox:
            self._keep_still(self._snapshots.opened(event))
        self._recordings.promise(wanted)
        if not self._recordings.cover(wanted):
            self._recordings.conclude(wanted, asked.end, closed=now)
            raise RecordingError(f"camera {self._camera.id!r}: {wanted.error or 'not possible'}")
        return self._answer(command, [wanted], oldest)

    def _stop_asked(
        self, command: RecordCommand, span: tuple[datetime, datetime]
    ) -> RecordingAnswer:
        oldest, now = span
        if command.duration_s is not None or command.start is not None:
            raise QueryError(
                "stop-recording: expected at most 'end', found 'start' or 'duration_s'"
            )
        asked = [wanted for wanted in self._book.wanted.values() if wanted.asked is not None]
        if not asked:
            raise RecordingError(
                f"camera {self._camera.id!r}: there is nothing to stop, no recording that was "
                "asked for is going on"
            )
        for wanted in asked:
            wanted.until = max(command.end or now, wanted.start)
        self._end_due(now)
        self._recordings.replan(now)
        return self._answer(command, asked, oldest)

    def _answer(
        self, command: RecordCommand, asked: list[Wanted], oldest: datetime
    ) -> RecordingAnswer:
        return RecordingAnswer(
            command=command.command,
            camera_id=self._camera.id,
            event_ids=tuple(wanted.event_id for wanted in asked),
            start=min(wanted.start for wanted in asked),
            end=max(wanted.until or wanted.end for wanted in asked),
            available_from=oldest,
        )

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            with self._inbox:
                self._inbox.wait_for(lambda: self._woken or self._stopping, timeout=_STEP_S)
                self._woken = False
                changes, self._changes = list(self._changes.values()), {}
                open_events, stopping = self._open, self._stopping
            try:
                self._step(changes, open_events)
            except Exception:  # noqa: BLE001 - a fault with one event must not end all recording
                _log.exception("camera %r: the recorder's step failed", self._camera.id)
            if stopping:
                return

    def _step(self, changes: list[Event], open_events: tuple[OpenEvent, ...] | None) -> None:
        with self._lock:
            self._recordings.watch_disk()
            now = self._ring.newest()
            for event in changes:
                self._hear(event)
            if open_events is not None and now is not None:
                resumed = self._book.resume(open_events, now)
                for wanted in resumed:
                    self._recordings.promise(wanted)
                ids = {event.event_id for event in open_events}
                with self._inbox:
                    self._snapshots.resumed(one for one in open_events if self._is_in(one, resumed))
                    for event_id in self._book.conclude_absent(ids, now):
                        self._keep_still(self._snapshots.closed(event_id))
            if now is not None:
                self._end_due(now)
                self._recordings.carry_on(now)
            self._recordings.settle()
            self._writer.write_out()
        self._encode_stills()

    def _hear(self, event: Event) -> None:
        known = event.event_id in self._book.wanted
        closed = event.status is EventStatus.CLOSED
        if closed and not known and event.event_id in self._recordings.settled:
            return  # said twice
        wanted = self._book.hear(event)
        if wanted is None:
            return
        with self._inbox:
            if not known:
                self._keep_still(self._snapshots.opened(event))
            if closed:
                self._keep_still(self._snapshots.closed(event.event_id))
        if not known:
            self._recordings.promise(wanted)

    @staticmethod
    def _is_in(event: OpenEvent, resumed: list[Wanted]) -> bool:
        return any(wanted.event_id == event.event_id for wanted in resumed)

    def _end_due(self, now: datetime) -> None:
        ended = self._recordings.end_due(now)
        with self._inbox:
            for event_id in ended:
                self._snapshots.closed(event_id)

    # ------------------------------------------------------------------ pictures

    def _keep_still(self, still: Still | None) -> None:
        if still is not None:
            self._stills.append(still)

    def _encode_stills(self) -> None:
        while self._stills:
            still = self._stills.popleft()
            jpeg = encode_jpeg(still.frame.rgb(), quality=88)
            with self._lock:
                self._writer.put_picture(
                    jpeg, event_id=still.event_id, name=still.name, day=still.day
                )
