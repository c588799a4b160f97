"""The recordings that are going on for one camera, and which events each is for."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig
from storeguard.errors import NotFoundError, RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.recording.clip_requests import Wanted, WishBook, needed_cache_s
from storeguard.recording.recorder import Recorder, RecorderStats
from storeguard.recording.recording import ClipFile
from storeguard.recording.spool import EventItem, RecordingEvents, Spool, WishItem, closed_event
from storeguard.recording.spool_writer import SpoolWriter
from storeguard.video.packets import PacketRing

_log = logging.getLogger(__name__)

_GATHER_S: Final = 0.4
_REPLAN: Final = timedelta(seconds=10)  # an open event's recording is extended in such steps
_TOLERANCE: Final = timedelta(milliseconds=5)
_COOL_OFF_S: Final = 5.0  # after a recording that could not be written
_AHEAD: Final = timedelta(seconds=30)  # of the camera's present; no event is that early
_MAX_SETTLED: Final = 256  # events remembered after all is told about them


@dataclass(slots=True)
class _Going:
    """A recording that is not over yet."""

    recording_id: str
    begun: datetime
    planned: datetime
    events: dict[str, Wanted] = field(default_factory=dict)
    files: list[ClipFile] = field(default_factory=list)
    noted: tuple[ClipSpan, ...] = ()
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


class Recordings:
    """Gives every wish its recording: one that is going on, extended, or a new one.

    The caller holds `lock` around every method but `stats` and `close`; the recorder's thread
    takes it by itself.

    Args:
        camera: its settings.
        spool: where files and manifests go.
        writer: writes the manifests.
        lock: guards this, the book and the writer.
        clock: for waits after a failure.
    """

    def __init__(
        self,
        camera: CameraConfig,
        spool: Spool,
        writer: SpoolWriter,
        *,
        lock: threading.RLock,
        clock: Clock,
    ) -> None:
        settings = camera.recording
        self.book = WishBook(camera)
        self.ring: PacketRing = _PatientRing(
            max_s=needed_cache_s(camera), max_bytes=settings.cache_bytes
        )
        self.settled: deque[str] = deque(maxlen=_MAX_SETTLED)
        """Events of which all was told, the latest last."""
        self._camera_id = camera.id
        self._spool = spool
        self._writer = writer
        self._lock = lock
        self._clock = clock
        self._going: dict[str, _Going] = {}
        self._not_before_s = 0.0
        self._recorder = Recorder(
            self.ring,
            camera_id=camera.id,
            # A name that begins with a dot is a hidden file, and no key of object storage.
            settings=settings.model_copy(update={"file_prefix": settings.file_prefix.lstrip(".")}),
            folder=spool.folder,
            on_clip=self._on_clip,
            on_error=self._on_error,
            clock=clock,
        )

    def stats(self) -> RecorderStats:
        """The recorder's counters."""
        return self._recorder.stats()

    def close(self) -> None:
        """Finish what is being written, however long it takes, and tell of it."""
        self._recorder.close(timeout_s=None)
        with self._lock:
            self.settle(closing=True)
            self._writer.write_out()

    def promise(self, wanted: Wanted) -> None:
        """Tell the event that video of it is being recorded."""
        wanted.told = wanted.wish.model_copy(update={"final": False})
        self._writer.put(WishItem(links=(wanted.told,)), wanted.event_id)

    def cover(self, wanted: Wanted) -> bool:
        """See that what is wanted is being recorded, as far as can be; whether it is."""
        span = self.ring.span()
        if wanted.is_covered() or span is None:
            return wanted.is_covered()
        oldest, now = span
        target = wanted.target(now)
        for going in self._going.values():
            if wanted.event_id in going.events and self._extend(going, wanted, target):
                return True
        start = max([wanted.start, oldest, *(end for _, end in wanted.covered)])
        if wanted.final and start > now + _AHEAD:
            wanted.error = wanted.error or "the camera's clock was set back before its time came"
        elif target <= start or (wanted.covered and now <= start + _TOLERANCE):
            wanted.error = wanted.error or (None if wanted.covered else "nothing of it was kept")
        elif self._writer.paused is not None:
            wanted.error = self._writer.paused
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
        recording = RecordingEvents(recording_id=going.recording_id, links=links, asked=asked)
        if self._writer.note(recording):
            going.noted = links

    def end_due(self, now: datetime) -> list[str]:
        """Close the events of recordings that were asked for and have come to their end."""
        due = [
            wanted
            for wanted in self.book.wanted.values()
            if wanted.until is not None and wanted.until <= now
        ]
        for wanted in due:
            end = wanted.until or now
            self.conclude(wanted, end, closed=end)
        return [wanted.event_id for wanted in due]

    def conclude(self, wanted: Wanted, end: datetime, *, closed: datetime) -> None:
        """A wish ends at `end`; an event that was asked for closes with it.

        Its span is told before it closes: who sees a closed one sees the whole of what was asked.
        """
        asked = wanted.asked
        wanted.conclude(end)
        if asked is not None:
            self.promise(wanted)  # goes ahead of files, as the event does; `settle` says the rest
            self._writer.put(EventItem(event=closed_event(asked, closed)), wanted.event_id)

    def carry_on(self, now: datetime) -> None:
        """See that all that is wanted is recorded, and nothing more."""
        for wanted in list(self.book.wanted.values()):
            self.cover(wanted)
        self.replan(now)

    def replan(self, now: datetime) -> None:
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

    def settle(self, *, closing: bool = False) -> None:
        """Tell the truth about what is over; on `closing` also about what could have gone on."""
        for going in self._going.values():
            self._note(going)
        active = set(self._recorder.active())
        over = [self._going.pop(name) for name in list(self._going) if name not in active]
        for going in over:
            if not going.files and not going.failed:
                for wanted in going.events.values():
                    wanted.error = wanted.error or "no video came while it was recorded"
        busy = {name for going in self._going.values() for name in going.events}
        for event_id in [name for name in self.book.wanted if name not in busy]:
            wanted = self.book.wanted[event_id]
            if not wanted.final or (not closing and self._may_go_on(wanted)):
                continue
            error = None if wanted.is_covered() else wanted.error
            if wanted.told != wanted.wish or error:
                self._writer.put(WishItem(links=(wanted.wish,), error=error), event_id)
            elif not wanted.covered:
                self._writer.put(
                    WishItem(links=(wanted.wish,), error="nothing was recorded"), event_id
                )
            del self.book.wanted[event_id]
            self.settled.append(event_id)
        for going in over:  # last: until then a crash finds which events it was for
            self._over(going)

    def _over(self, going: _Going) -> None:
        try:
            self._spool.forget(going.recording_id)
        except OSError as error:
            _log.warning("camera %r: %s", self._camera_id, error)

    def _may_go_on(self, wanted: Wanted) -> bool:
        """Whether more of a final wish can still be had."""
        if wanted.is_covered() or self._writer.paused is not None or wanted.error is not None:
            return False
        newest = self.ring.newest()
        return newest is not None and newest > wanted.covered_to() + _TOLERANCE

    # ------------------------------------------------------------------ from the recorder

    def _on_clip(self, clip: ClipFile) -> None:
        with self._lock:
            self._writer.fault = None
            going = self._going.get(clip.recording_id)
            links = [
                wanted
                for wanted in (going.events.values() if going else ())
                if wanted.shares(clip.start, clip.end)
            ]
            if going is None or not links:
                _log.warning("camera %r: %s is for no event", self._camera_id, clip.path.name)
                clip.path.unlink(missing_ok=True)
                return
            going.files.append(clip)
            self._announce(clip, links, upload=True)
            self._writer.write_out()

    def _announce(self, clip: ClipFile, links: list[Wanted], *, upload: bool) -> None:
        wishes: list[ClipSpan] = []
        for wanted in links:
            wanted.told = wanted.wish
            wanted.covered.append((clip.start, clip.end))
            wishes.append(wanted.told)
        self._writer.put(self._spool.clip_item(clip, wishes, upload=upload), clip.path.name)

    def _on_error(self, recording_id: str, error: RecordingError) -> None:
        with self._lock:
            self._not_before_s = self._clock.monotonic() + _COOL_OFF_S
            going = self._going.get(recording_id)
            if going is not None:
                going.failed = True
                for wanted in going.events.values():
                    wanted.error = str(error)
            self._writer.alarm(str(error))
            self.watch_disk()

    # ------------------------------------------------------------------ the disk

    def watch_disk(self) -> None:
        """Pause while the disk is nearly full, and go on when it has room again."""
        if not self._writer.watch_disk():
            return
        paused, now = self._writer.paused, self.ring.newest()
        for going in self._going.values() if paused else ():
            if now is not None:
                self._stop(going, now)
            for one in going.events.values():
                one.error = paused
        for one in () if paused else self.book.wanted.values():
            one.error = one.error if one.final else None
