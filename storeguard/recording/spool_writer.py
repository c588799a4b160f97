"""Writing into a spool whose disk may be full: pause with an alert, lose nothing, go on."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from storeguard.recording.spool import Manifest, RecordingEvents, Spool, free_bytes, is_disk_full

_log = logging.getLogger(__name__)

_MAX_UNWRITTEN: Final = 1000


class SpoolWriter:
    """One camera's way into its spool. Not thread-safe.

    Manifests that find no room wait in memory, in their order, `_MAX_UNWRITTEN` at most; past it
    the oldest is dropped, loudly. Recording pauses while less than `min_free_bytes` are free.

    Args:
        spool: where manifests go; the caller holds the writer's lock.
        camera_id: for messages.
        min_free_bytes: of the spool's disk.
    """

    def __init__(self, spool: Spool, *, camera_id: str, min_free_bytes: int) -> None:
        self.paused: str | None = None
        """Why nothing may be recorded now; None if it may."""
        self.fault: str | None = None
        """What went wrong last; None once something went well again."""
        self._spool = spool
        self._camera_id = camera_id
        self._min_free_bytes = min_free_bytes
        self._unwritten: deque[tuple[Manifest, str]] = deque()

    def put(self, manifest: Manifest, name: str) -> None:
        """Queue a manifest; on a full disk it waits in memory, in its turn."""
        self._unwritten.append((manifest, name))
        if len(self._unwritten) > _MAX_UNWRITTEN:
            lost, _ = self._unwritten.popleft()
            _log.critical("camera %r: LOST, the disk is full: %s", self._camera_id, lost)
        self.write_out()

    def write_out(self) -> None:
        """Write what waits in memory, as far as there is room."""
        while self._unwritten:
            manifest, name = self._unwritten[0]
            try:
                self._spool.put(manifest, name)
            except OSError as error:
                if not is_disk_full(error):
                    self.alarm(f"the spool cannot be written: {error}")
                return
            self._unwritten.popleft()

    def note(self, recording: RecordingEvents) -> bool:
        """Keep which events a recording is for; whether that was possible."""
        try:
            self._spool.note(recording)
        except OSError as error:
            self.alarm(f"which events a recording is for cannot be written: {error}")
            return False
        return True

    def put_picture(self, jpeg: bytes, *, event_id: str, name: str, day: str) -> None:
        """Queue an event's picture; without room there is none."""
        try:
            self._spool.put_picture(jpeg, event_id=event_id, name=name, day=day)
        except OSError as error:
            self.alarm(f"a picture of event {event_id} cannot be kept: {error}")

    def watch_disk(self) -> bool:
        """Look how much is free; whether `paused` changed."""
        try:
            free = free_bytes(self._spool.folder)
        except OSError as error:
            self.alarm(f"the spool's disk cannot be looked at: {error}")
            return False
        wanted = self._min_free_bytes
        if free < wanted and self.paused is None:
            self.paused = f"recording is paused: the spool's disk has less than {wanted} bytes free"
            _log.error("camera %r: %s (%d bytes)", self._camera_id, self.paused, free)
            return True
        if free >= wanted and self.paused is not None:
            self.paused = None
            _log.warning("camera %r: recording goes on, the disk has room again", self._camera_id)
            return True
        return False

    def alarm(self, fault: str) -> None:
        """Tell what went wrong; once, if it does again and again."""
        if fault != self.fault:
            _log.error("camera %r: %s", self._camera_id, fault)
        self.fault = fault
