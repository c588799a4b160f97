"""Recording around a moment: from a camera's packet ring to clip files, on a thread of its own."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from storeguard.clock import Clock, SystemClock
from storeguard.config.store import Container, RecordingSettings
from storeguard.errors import NotFoundError, RecordingError
from storeguard.recording.part import Contents, finished, leftover_parts, mend, sha256_of
from storeguard.recording.recording import ClipFile, Recording
from storeguard.video.packets import PacketRing

_log = logging.getLogger(__name__)

_LOOK_S = 0.2
_STOOD_STILL_S = 1.0  # a wait for packets, of far less, that lasts so long
_GRACE_S = 3.0  # a camera silent for this long past a recording's end has no more for it


@dataclass(frozen=True, slots=True)
class RecorderStats:
    """Counters of one camera's recorder.

    Attributes:
        active: recordings going on.
        clips: files finished.
        failed: recordings that could not be written.
        packets_lost: packets the ring dropped before the recorder got to them.
        last_error: in words; None if there was none.
    """

    active: int
    clips: int
    failed: int
    packets_lost: int
    last_error: str | None


class Recorder:
    """Records one camera from its ring, on a thread of its own, so that disks never stall reading.

    The ring is its queue: bounded by the ring's own bounds, oldest packets dropped first, and
    what is dropped before it is written is counted and told with the clip.

    Args:
        ring: the camera's packets.
        camera_id: for names and messages.
        settings: of recording.
        folder: where files go.
        on_clip: gets each finished file, on the recorder's thread.
        on_error: gets a recording's id and the error that ended it, on the recorder's thread.
        clock: tells how long a camera has been silent.
    """

    def __init__(
        self,
        ring: PacketRing,
        *,
        camera_id: str,
        settings: RecordingSettings,
        folder: Path,
        on_clip: Callable[[ClipFile], None],
        on_error: Callable[[str, RecordingError], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ring = ring
        self._camera_id = camera_id
        self._settings = settings
        self._folder = folder
        self._on_clip = on_clip
        self._on_error = on_error
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()  # guards recordings, cursors and counters
        self._recordings: dict[str, Recording] = {}
        self._cursors: dict[str, int] = {}
        self._clips = self._failed = self._packets_lost = 0
        self._last_error: str | None = None
        self._heard: tuple[int, float] = (-1, self._clock.monotonic())
        self._stop = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._thread = threading.Thread(
            target=self._run, name=f"camera-{camera_id}-record", daemon=True
        )
        self._thread.start()

    def start(self, requested_start: datetime, requested_end: datetime | None = None) -> str:
        """Record a span, which may lie in the past as far as the ring reaches.

        A recording that already covers `requested_start` is extended, up to `max_duration_s`;
        else a new one begins.

        Args:
            requested_start: aware UTC, on the camera's time line.
            requested_end: None records until `stop`, or `default_duration_s` from now.

        Returns:
            The recording's id.

        Raises:
            RecordingError: the camera has sent no picture yet, or the span ends before it starts.
        """
        now = self._ring.newest()
        if now is None:
            raise RecordingError(
                f"camera {self._camera_id!r}: nothing to record, no keyframe has come yet"
            )
        with self._lock:
            end = requested_end or now + timedelta(seconds=self._settings.default_duration_s)
            longest = timedelta(seconds=self._settings.max_duration_s)
            for recording in self._recordings.values():
                begun = recording.started_at or recording.requested_start
                overlaps = begun <= requested_start <= recording.requested_end
                if overlaps and end - begun <= longest and recording.extend(end):
                    return recording.recording_id
            recording = Recording(
                camera_id=self._camera_id,
                settings=self._settings,
                folder=self._folder,
                requested_start=requested_start,
                requested_end=requested_end,
                now=now,
            )
            number = self._ring.keyframe_at(requested_start)
            recording.expect_audio(self._ring.audio_format())
            self._recordings[recording.recording_id] = recording
            self._cursors[recording.recording_id] = 0 if number is None else number
            self._idle.notify_all()
            return recording.recording_id

    def extend(self, recording_id: str, to: datetime) -> None:
        """Record until `to`, if that is later than planned.

        Raises:
            NotFoundError: no such recording is going on.
        """
        with self._lock:
            if not self._active(recording_id).extend(to):
                raise self._not_found(recording_id)

    def stop(self, recording_id: str, at: datetime | None = None) -> None:
        """End a recording at `at`; None is now, on the camera's time line.

        Raises:
            NotFoundError: no such recording is going on.
        """
        now = at or self._ring.newest()
        with self._lock:
            recording = self._active(recording_id)
            recording.stop(now or recording.requested_end)

    def active(self) -> tuple[str, ...]:
        """Ids of the recordings going on."""
        with self._lock:
            return tuple(self._recordings)

    def stats(self) -> RecorderStats:
        """Counters."""
        with self._lock:
            return RecorderStats(
                len(self._recordings),
                self._clips,
                self._failed,
                self._packets_lost,
                self._last_error,
            )

    def close(self, *, timeout_s: float | None = 10.0) -> bool:
        """Finish what is open and end the thread; True if it ended in time (None: however long)."""
        self._stop.set()
        with self._lock:
            self._idle.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _active(self, recording_id: str) -> Recording:
        try:
            return self._recordings[recording_id]
        except KeyError:
            raise self._not_found(recording_id) from None

    def _not_found(self, recording_id: str) -> NotFoundError:
        return NotFoundError(
            f"camera {self._camera_id!r}: no recording {recording_id!r} is going on"
        )

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._idle.wait_for(
                    lambda: bool(self._recordings) or self._stop.is_set(), timeout=1.0
                )
                ids = tuple(self._recordings)
            behind = False
            for recording_id in ids:
                behind |= self._advance(recording_id)
            if ids and not behind:
                self._wait_for_packets()
        for recording_id in self.active():
            while self._advance(recording_id):
                pass
            self._end(recording_id, reason="the recorder was closed")

    def _wait_for_packets(self) -> None:
        began_s = time.monotonic()
        self._ring.wait(self._ring.next_number(), timeout_s=_LOOK_S)
        lasted_s = time.monotonic() - began_s
        if lasted_s > _STOOD_STILL_S:
            # This process did, so its reader too: that is no silence of the camera's.
            number, heard_s = self._heard
            self._heard = (number, heard_s + lasted_s)

    def _advance(self, recording_id: str) -> bool:
        """Write what is new for one recording; True if there may be more."""
        with self._lock:
            recording = self._recordings.get(recording_id)
            cursor = self._cursors.get(recording_id, 0)
        if recording is None:
            return False
        number, packets = self._ring.read(cursor)
        if number > cursor and packets:
            self._note_loss(recording, number - cursor)
        for packet in packets:
            try:
                files = recording.feed(packet)
            except RecordingError as error:
                self._fail(recording_id, error)
                return False
            self._deliver(files)
            if recording.done:
                self._forget(recording_id)
                return False
        with self._lock:
            self._cursors[recording_id] = number + len(packets)
        if not packets and self._is_silent(recording):
            self._end(recording_id, reason="the camera sent no more")
        return bool(packets)

    def _note_loss(self, recording: Recording, num_packets: int) -> None:
        with self._lock:
            self._packets_lost += num_packets
        recording.lost(num_packets)

    def _is_silent(self, recording: Recording) -> bool:
        """Whether the recording's end is over and the camera has not come that far."""
        newest, number, now_s = (
            self._ring.newest(),
            self._ring.next_number(),
            self._clock.monotonic(),
        )
        if number != self._heard[0]:
            self._heard = (number, now_s)
        silent_s = now_s - self._heard[1]
        if newest is None or silent_s < _GRACE_S:
            return False
        return newest + timedelta(seconds=silent_s - _GRACE_S) >= recording.requested_end

    def _end(self, recording_id: str, *, reason: str) -> None:
        with self._lock:
            recording = self._recordings.get(recording_id)
        if recording is None:
            return
        try:
            files = recording.close(reason)
        except RecordingError as error:
            self._fail(recording_id, error)
            return
        self._deliver(files)
        self._forget(recording_id)

    def _deliver(self, files: list[ClipFile]) -> None:
        for file in files:
            with self._lock:
                self._clips += 1
            try:
                self._on_clip(file)
            except Exception:  # noqa: BLE001  # others' code must not stop the recorder
                _log.exception("camera %r: whoever takes its clips raised", self._camera_id)

    def _fail(self, recording_id: str, error: RecordingError) -> None:
        _log.error("camera %r: %s", self._camera_id, error)
        self._forget(recording_id)
        with self._lock:
            self._failed += 1
            self._last_error = str(error)
        if self._on_error is not None:
            try:
                self._on_error(recording_id, error)
            except Exception:  # noqa: BLE001  # others' code must not stop the recorder
                _log.exception("camera %r: whoever takes its errors raised", self._camera_id)

    def _forget(self, recording_id: str) -> None:
        with self._lock:
            self._recordings.pop(recording_id, None)
            self._cursors.pop(recording_id, None)


def recover(folder: Path) -> list[ClipFile]:
    """Mend what a crash left below a folder: call it at start-up, before recording begins.

    Interrupted files are finished, and those without a picture removed.

    Returns:
        The files that were saved, marked as not complete.
    """
    saved = []
    for part in leftover_parts(folder):
        mended = mend(part)
        if mended is None:
            _log.warning("%s: nothing could be saved, removed", part.name)
            continue
        path = finished(part)
        clip = _recovered(path, mended)
        if clip is None:
            _log.warning("%s: saved, but its description is unreadable", path.name)
            continue
        _log.warning("%s: saved %.1f s", path.name, mended.duration_s)
        saved.append(clip)
    return saved


def _recovered(path: Path, contents: Contents) -> ClipFile | None:
    try:
        told = json.loads(contents.comment)
        start = datetime.fromisoformat(told["start"])
        requested_start = datetime.fromisoformat(told["requested_start"])
        requested_end = datetime.fromisoformat(told["requested_end"])
        camera_id, recording_id, part = told["camera_id"], told["recording_id"], told["part"]
    except (ValueError, KeyError, TypeError):
        return None
    return ClipFile(
        camera_id=camera_id,
        recording_id=recording_id,
        part=part,
        path=path,
        container=Container(path.suffix.removeprefix(".")),
        codec=contents.codec,
        start=start,
        end=start + timedelta(seconds=contents.duration_s),
        requested_start=requested_start,
        requested_end=requested_end,
        num_frames=contents.num_frames,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        complete=False,
        note="; ".join(filter(None, ("recovered after a crash", contents.note))),
    )
