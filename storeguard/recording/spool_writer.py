"""Writing into a spool whose disk may be full: pause with an alert, lose nothing, go on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.spool import (
    Manifest,
    RecorderCheckpoint,
    Spool,
    free_bytes,
    is_disk_full,
)

_log = logging.getLogger(__name__)

_MAX_UNWRITTEN: Final = 1000


class SpoolWriter:
    """One camera's way into its spool. Not thread-safe.

    Manifests that find no room wait in memory, in their order, `_MAX_UNWRITTEN` at most; past it
    the oldest is dropped and logged. Recording pauses while less than `min_free_bytes` are free.

    Args:
        spool: where manifests go; the caller holds the writer's lock.
        camera_id: for messages.
        min_free_bytes: of the spool's disk.
        free: how many bytes are free on a folder's disk.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        camera_id: str,
        min_free_bytes: int,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.paused: Fault | None = None
        """Why nothing may be recorded now; None if it may."""
        self.error: str | None = None
        """The latest error; None once something was recorded again."""
        self._spool = spool
        self._camera_id = camera_id
        self._min_free_bytes = min_free_bytes
        self._free = free
        self._unwritten: deque[tuple[Manifest, str]] = deque()
        self._saved: RecorderCheckpoint | None = None

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
                    self.report(f"the spool cannot be written: {error}")
                return
            self._unwritten.popleft()

    def save(self, checkpoint: RecorderCheckpoint, *, cursor_too: bool) -> None:
        """Save the recorder's checkpoint if it has changed, once all before it is written.

        Args:
            checkpoint: as of now.
            cursor_too: whether a change of the cursor alone matters.
        """
        if self._saved is not None:
            before = checkpoint.cursor if not cursor_too else self._saved.cursor
            if checkpoint == self._saved.model_copy(update={"cursor": before}):
                return
        self.write_out()
        if self._unwritten:  # a cursor ahead of manifests that a crash would lose
            return
        try:
            self._spool.save(checkpoint)
        except OSError as error:
            self.report(f"the recorder's checkpoint cannot be written: {error}")
            return
        self._saved = checkpoint.model_copy(deep=True)

    def put_picture(self, jpeg: bytes, *, event_id: str, name: str, day: str) -> None:
        """Queue an event's picture; without room there is none."""
        try:
            self._spool.put_picture(jpeg, event_id=event_id, name=name, day=day)
        except OSError as error:
            self.report(f"a picture of event {event_id} cannot be kept: {error}")

    def watch_disk(self) -> bool:
        """Check how much is free; whether `paused` changed."""
        try:
            free = self._free(self._spool.folder)
        except OSError as error:
            self.report(f"the free space of the spool's disk cannot be read: {error}")
            return False
        required = self._min_free_bytes
        if free < required and self.paused is None:
            reason = f"the spool's disk has less than {required} bytes free"
            self.paused = Fault(code=FaultCode.PAUSED, detail=reason)
            _log.error("camera %r: recording is paused: %s (%d)", self._camera_id, reason, free)
            return True
        if free >= required and self.paused is not None:
            self.paused = None
            _log.warning("camera %r: recording goes on, the disk has room again", self._camera_id)
            return True
        return False

    def report(self, error: str) -> None:
        """Note and log an error; a repeated one is logged once."""
        if error != self.error:
            _log.error("camera %r: %s", self._camera_id, error)
        self.error = error
