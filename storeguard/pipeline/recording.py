"""One camera's smart recording: events and commands in, clips and pictures in the spool out."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from storeguard.clock import Clock, SystemClock
from storeguard.config import CameraConfig, SmartRecord
from storeguard.errors import NotFoundError, QueryError, RecordingError
from storeguard.events.clip_link import Wish
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus, EventType, Moment, event_id_of
from storeguard.pipeline.overlay import encode_jpeg
from storeguard.pipeline.snapshots import Snapshots, Still
from storeguard.pipeline.verdict import Verdict
from storeguard.pipeline.wishes import Wanted, WishBook, needed_cache_s
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.storage.spool import (
    EventItem,
    Manifest,
    RecordingEvents,
    Spool,
    WishItem,
    closed_event,
    free_bytes,
    is_disk_full,
    key_prefix,
)
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket, PacketRing
from storeguard.video.recorder import Recorder
from storeguard.video.recording import ClipFile

_log = logging.getLogger(__name__)

_STEP_S: Final = 1.0
_GATHER_S: Final = 0.4
_REPLAN: Final = timedelta(seconds=10)  # an open event's recording is extended in such steps
_TOLERANCE: Final = timedelta(milliseconds=5)
_COOL_OFF_S: Final = 5.0  # after a recording that could not be written
_AHEAD: Final = timedelta(seconds=60)
_MAX_UNWRITTEN: Final = 1000
_MAX_STILLS: Final = 32
_MAX_SETTLED: Final = 256  # events remembered after all is told about them
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


@dataclass(slots=True)
class _Going:
    """A recording that is not over yet."""

    recording_id: str
    begun: datetime
    planned: datetime
    events: dict[str, Wanted] = field(default_factory=dict)
    files: list[ClipFile] = field(default_factory=list)
    noted: tuple[Wish, ...] = ()
    failed: bool = False


class _PatientRing(PacketRing):
    """Lets packets gather before its reader goes on: woken for each one, a recorder costs thrice
    as much. What waits meanwhile is in the ring, which holds seconds of it.
    """

    def wait(self, number: int, *, timeout_s: float) -> bool:
        """Whether packet `number` is there, looked at after a while."""
        del timeout_s
        time.sleep(_GATHER_S)
        return self.next_number() > number


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
        self._lock = threading.RLock()  # guards book, going, unwritten, figures
        self._book = WishBook(camera)
        self._going: dict[str, _Going] = {}
        self._unwritten: deque[tuple[Manifest, str]] = deque()
        self._settled: deque[str] = deque(maxlen=_MAX_SETTLED)
        self._stills: deque[Still] = deque(maxlen=_MAX_STILLS)
        self._paused: str | None = None
        self._last_error: str | None = None
        self._not_before_s = 0.0
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
            self._held.enter_context(self._spool.writing())
            self._spool.recover(_KILLED)
        except OSError as error:
            self._held.close()
            if isinstance(error, RecordingError):
                raise
            raise RecordingError(f"camera {camera.id!r}: spool {folder}: {error}") from error
        settings = camera.recording
        self._ring = _PatientRing(max_s=needed_cache_s(camera), max_bytes=settings.cache_bytes)
        self._recorder = Recorder(
            self._ring,
            camera_id=camera.id,
            # A name that begins with a dot is a hidden file, and no key of object storage.
            settings=settings.model_copy(update={"file_prefix": settings.file_prefix.lstrip(".")}),
            folder=folder,
            on_clip=self._on_clip,
            on_error=self._on_error,
            clock=self._clock,
        )
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
        stats = self._recorder.stats()
        return RecordingState(
            recording=stats.active > 0,
            clips=stats.clips,
            paused=self._paused is not None,
            error=self._paused or self._last_error,
        )

    def close(self) -> None:
        """Finish what is being written, queue it, and end the threads."""
        with self._inbox:
            self._stopping = True
            self._inbox.notify_all()
        self._thread.join(timeout=30.0)
        with self._lock:
            now = self._ring.newest()
            for wanted in list(self._book.wanted.values()):
                if not wanted.final or (now and wanted.end > now):
                    self._end_asked(wanted, now or wanted.end)
                    # Not more than there will ever be; and at least what is known to be part of it.
                    wanted.conclude(
                        max(wanted.start, min(now or wanted.end, wanted.target(wanted.end)))
                    )
        self._recorder.close()
        with self._lock:
            self._settle(closing=True)
            self._write_out()
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
        settings, (oldest, now) = self._camera.recording, span
        if self._paused is not None:
            raise RecordingError(f"camera {self._camera.id!r}: {self._paused}")
        if command.start is not None and command.start > now + _AHEAD:
            raise QueryError(
                f"start: expected at most a minute ahead of {now}, got {command.start}"
            )
        start = command.start or now - timedelta(seconds=settings.start_before_now_s)
        end = command.end or now + timedelta(
            seconds=command.duration_s or settings.default_duration_s
        )
        if end <= max(start, oldest):
            raise QueryError(
                f"end: expected after {max(start, oldest)}, the start of what is kept; got {end}"
            )
        began = command.start or now
        event = Event(
            event_id=event_id_of(
                store_id=self._place.store_id,
                camera_id=self._camera.id,
                zone_id=None,
                person_id=None,
                rule=EventType.MANUAL,
                started_at=began,
            ),
            version=1,
            type=EventType.MANUAL,
            status=EventStatus.OPEN,
            store_id=self._place.store_id,
            camera_id=self._camera.id,
            started_at=began,
            updated_at=max(began, now),
            rule={"type": "manual", "pre_roll_s": (began - start).total_seconds()},
        )
        known = self._book.wanted.get(event.event_id)
        if known is not None:  # the same command again
            return self._answer(command, [known], oldest)
        wanted = Wanted(event.event_id, start, began, False, timedelta(), asked=event, until=end)
        self._put(EventItem(event=event), event.event_id)
        self._book.wanted[event.event_id] = wanted
        with self._inbox:
            self._keep_still(self._snapshots.opened(event))
        self._promise(wanted)
        if not self._cover(wanted):
            self._end_asked(wanted, now)
            wanted.conclude(end)
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
        self._replan(now)
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
            self._watch_disk()
            now = self._ring.newest()
            for event in changes:
                self._hear(event)
            if open_events is not None and now is not None:
                resumed = self._book.resume(open_events, now)
                for wanted in resumed:
                    self._promise(wanted)
                ids = {event.event_id for event in open_events}
                with self._inbox:
                    self._snapshots.resumed(one for one in open_events if self._is_in(one, resumed))
                    for event_id in self._book.conclude_absent(ids, now):
                        self._keep_still(self._snapshots.closed(event_id))
            if now is not None:
                self._end_due(now)
                for wanted in list(self._book.wanted.values()):
                    self._cover(wanted)
                self._replan(now)
            for going in self._going.values():
                self._note(going)
            self._settle()
            self._write_out()
        self._encode_stills()

    def _hear(self, event: Event) -> None:
        known = event.event_id in self._book.wanted
        if not known and event.event_id in self._settled and event.status is EventStatus.CLOSED:
            return  # said twice
        wanted = self._book.hear(event)
        if wanted is None:
            return
        with self._inbox:
            if not known:
                self._keep_still(self._snapshots.opened(event))
            if event.status is EventStatus.CLOSED:
                self._keep_still(self._snapshots.closed(event.event_id))
        if not known:
            self._promise(wanted)

    @staticmethod
    def _is_in(event: OpenEvent, resumed: list[Wanted]) -> bool:
        return any(wanted.event_id == event.event_id for wanted in resumed)

    # ------------------------------------------------------------------ recordings

    def _promise(self, wanted: Wanted) -> None:
        """Tell the event that video of it is being recorded."""
        wanted.told = wanted.wish.model_copy(update={"final": False})
        self._put(WishItem(links=(wanted.told,)), wanted.event_id)

    def _cover(self, wanted: Wanted) -> bool:
        """See that what is wanted is being recorded, as far as can be; whether it is."""
        span = self._ring.span()
        if wanted.is_covered() or span is None:
            return wanted.is_covered()
        oldest, now = span
        target = wanted.target(now)
        for going in self._going.values():
            if wanted.event_id in going.events and self._extend(going, wanted, target):
                return True
        start = max([wanted.start, oldest, *(end for _, end in wanted.covered)])
        if target <= start or (wanted.covered and now <= start + _TOLERANCE):
            wanted.error = wanted.error or (None if wanted.covered else "nothing of it was kept")
        elif self._paused is not None:
            wanted.error = self._paused
        elif self._clock.monotonic() >= self._not_before_s:
            return self._record(wanted, start, target)
        return False

    def _record(self, wanted: Wanted, start: datetime, target: datetime) -> bool:
        """Have a span recorded: by a recording that reaches back as far, else by a new one."""
        for going in self._going.values():
            if going.begun <= start and self._extend(going, wanted, target):
                self._join(going, wanted)
                return True
        return self._begin(wanted, start, target)

    def _begin(self, wanted: Wanted, start: datetime, target: datetime) -> bool:
        try:
            recording_id = self._recorder.start(start, target)
        except RecordingError as error:
            wanted.error = str(error)
            return False
        going = self._going.setdefault(recording_id, _Going(recording_id, start, target))
        going.planned = max(going.planned, target)
        self._join(going, wanted)
        return True

    def _extend(self, going: _Going, wanted: Wanted, target: datetime) -> bool:
        """Whether a recording goes on to `target`; False if it is over."""
        if target <= going.planned or (not wanted.final and target - going.planned < _REPLAN):
            return going.recording_id in self._recorder.active()
        try:
            self._recorder.extend(going.recording_id, target)
        except NotFoundError:  # over; if it is still listed, its file is on its way to us
            return going.recording_id in self._recorder.active()
        going.planned = target
        return True

    def _join(self, going: _Going, wanted: Wanted) -> None:
        """Add an event to a recording: on disk before anything else, for its crash."""
        going.events[wanted.event_id] = wanted
        self._note(going)
        for clip in going.files:
            if wanted.shares(clip.start, clip.end):
                self._announce(clip, [wanted], upload=False)

    def _note(self, going: _Going) -> None:
        asked = tuple(one.asked for one in going.events.values() if one.asked is not None)
        links = tuple(wanted.wish for wanted in going.events.values())
        if links == going.noted:
            return
        try:
            self._spool.note(
                RecordingEvents(recording_id=going.recording_id, links=links, asked=asked)
            )
        except OSError as error:
            self._alarm(f"which events a recording is for cannot be written: {error}")
        else:
            going.noted = links

    def _end_due(self, now: datetime) -> None:
        """Close the events of recordings that were asked for and have come to their end."""
        for wanted in self._book.wanted.values():
            if wanted.until is not None and wanted.until <= now:
                end = wanted.until
                self._end_asked(wanted, end)
                wanted.conclude(end)
                with self._inbox:
                    self._snapshots.closed(wanted.event_id)

    def _end_asked(self, wanted: Wanted, at: datetime) -> None:
        if wanted.asked is not None:
            self._put(EventItem(event=closed_event(wanted.asked, at)), wanted.event_id)
            wanted.asked = None

    def _replan(self, now: datetime) -> None:
        """End recordings where nobody wants more."""
        for going in self._going.values():
            target = max(
                (wanted.target(now) for wanted in going.events.values()), default=going.planned
            )
            if target < going.planned and all(one.final for one in going.events.values()):
                going.planned = target
                self._stop(going, target)

    def _stop(self, going: _Going, at: datetime) -> None:
        try:
            self._recorder.stop(going.recording_id, at)
        except NotFoundError:
            return  # over already

    def _settle(self, *, closing: bool = False) -> None:
        """Tell the truth about what is over."""
        active = set(self._recorder.active())
        for recording_id in [name for name in self._going if name not in active]:
            going = self._going.pop(recording_id)
            if not going.files and not going.failed:
                for wanted in going.events.values():
                    wanted.error = wanted.error or "no video came while it was recorded"
            self._over(going)
        busy = {name for going in self._going.values() for name in going.events}
        for event_id in [name for name in self._book.wanted if name not in busy]:
            wanted = self._book.wanted[event_id]
            if not wanted.final or (not closing and self._may_go_on(wanted)):
                continue
            error = None if wanted.is_covered() else wanted.error
            if wanted.told != wanted.wish or error:
                self._put(WishItem(links=(wanted.wish,), error=error), event_id)
            elif not wanted.covered:
                self._put(WishItem(links=(wanted.wish,), error="nothing was recorded"), event_id)
            del self._book.wanted[event_id]
            self._settled.append(event_id)

    def _over(self, going: _Going) -> None:
        try:
            self._spool.forget(going.recording_id)
        except OSError as error:
            _log.warning("camera %r: %s", self._camera.id, error)

    def _may_go_on(self, wanted: Wanted) -> bool:
        """Whether more of a final wish can still be had."""
        if wanted.is_covered() or self._paused is not None or wanted.error is not None:
            return False
        newest = self._ring.newest()
        return newest is not None and newest > wanted.covered_to() + _TOLERANCE

    # ------------------------------------------------------------------ from the recorder

    def _on_clip(self, clip: ClipFile) -> None:
        with self._lock:
            self._last_error = None
            going = self._going.get(clip.recording_id)
            links = [
                wanted
                for wanted in (going.events.values() if going else ())
                if wanted.shares(clip.start, clip.end)
            ]
            if going is None or not links:
                _log.warning("camera %r: %s is for no event", self._camera.id, clip.path.name)
                clip.path.unlink(missing_ok=True)
                return
            going.files.append(clip)
            self._announce(clip, links, upload=True)
            self._write_out()

    def _announce(self, clip: ClipFile, links: list[Wanted], *, upload: bool) -> None:
        wishes: list[Wish] = []
        for wanted in links:
            wanted.told = wanted.wish
            wanted.covered.append((clip.start, clip.end))
            wishes.append(wanted.told)
        self._put(self._spool.clip_item(clip, wishes, upload=upload), clip.path.name)

    def _on_error(self, recording_id: str, error: RecordingError) -> None:
        with self._lock:
            self._not_before_s = self._clock.monotonic() + _COOL_OFF_S
            going = self._going.get(recording_id)
            if going is not None:
                going.failed = True
                for wanted in going.events.values():
                    wanted.error = str(error)
            self._alarm(str(error))
            self._watch_disk()

    # ------------------------------------------------------------------ the disk

    def _watch_disk(self) -> None:
        try:
            free = free_bytes(self._spool.folder)
        except OSError as error:
            self._alarm(f"the spool's disk cannot be looked at: {error}")
            return
        wanted = self._place.min_free_bytes
        if free < wanted and self._paused is None:
            self._paused = (
                f"recording is paused: the spool's disk has less than {wanted} bytes free"
            )
            _log.error("camera %r: %s (%d bytes)", self._camera.id, self._paused, free)
            now = self._ring.newest()
            for going in self._going.values():
                if now is not None:
                    self._stop(going, now)
                for one in going.events.values():
                    one.error = self._paused
        elif free >= wanted and self._paused is not None:
            self._paused = None
            for one in self._book.wanted.values():
                one.error = None if not one.final else one.error
            _log.warning("camera %r: recording goes on, the disk has room again", self._camera.id)

    def _alarm(self, fault: str) -> None:
        self._last_error = fault
        _log.error("camera %r: %s", self._camera.id, fault)

    def _put(self, manifest: Manifest, name: str) -> None:
        """Queue a manifest; on a full disk it waits in memory, in its turn."""
        self._unwritten.append((manifest, name))
        if len(self._unwritten) > _MAX_UNWRITTEN:
            lost, _ = self._unwritten.popleft()
            _log.critical("camera %r: LOST, the disk is full: %s", self._camera.id, lost)
        self._write_out()

    def _write_out(self) -> None:
        while self._unwritten:
            manifest, name = self._unwritten[0]
            try:
                self._spool.put(manifest, name)
            except OSError as error:
                if not is_disk_full(error):
                    self._alarm(f"the spool cannot be written: {error}")
                return
            self._unwritten.popleft()

    # ------------------------------------------------------------------ pictures

    def _keep_still(self, still: Still | None) -> None:
        if still is not None:
            self._stills.append(still)

    def _encode_stills(self) -> None:
        while self._stills:
            still = self._stills.popleft()
            try:
                jpeg = encode_jpeg(still.frame.rgb(), quality=88)
                with self._lock:
                    self._spool.put_picture(
                        jpeg, event_id=still.event_id, name=still.name, day=still.day
                    )
            except (OSError, ValueError) as error:
                self._alarm(f"a picture of event {still.event_id} cannot be kept: {error}")
