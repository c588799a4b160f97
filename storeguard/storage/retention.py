"""Retention of stored files: bounds of age and size, and events that are always kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from storeguard.clock import Clock, SystemClock
from storeguard.config.store import StorageSettings
from storeguard.events.changes import Change, FileDropped, Outcome
from storeguard.events.clip import files_of
from storeguard.events.event import Event
from storeguard.events.query import MAX_LIMIT, EventQuery, Page
from storeguard.storage.objects import ObjectStore

_log = logging.getLogger(__name__)

_DAY: Final = re.compile(r"/(\d{4}-\d\d-\d\d)/[^/]+$")
_LEFTOVER_S: Final = 86_400.0  # an unfinished upload is done or dead by then
_FRESH: Final = timedelta(days=1)  # a file so young may not be linked yet

Apply = Callable[[Sequence[Change]], Sequence[Outcome]]
"""Applies changes to events, all or none; see `storeguard.events.changes.EventChanges.apply`."""


class Events(Protocol):
    """Where events are found; `storeguard.events.store.EventStore` is one."""

    def query(self, question: EventQuery) -> Page: ...


@dataclass(frozen=True, slots=True)
class RetentionStats:
    """What retention did so far, and the result of its last sweep.

    Attributes:
        deleted, deleted_bytes: files removed so far.
        files, bytes: what there was after the last sweep.
        kept_bytes: how many of these bytes are of events marked `keep`.
        swept_at: when that was; None before the first sweep.
        over_bytes: by how much the kept alone exceed the bound; 0 if they do not.
    """

    deleted: int = 0
    deleted_bytes: int = 0
    files: int = 0
    bytes: int = 0
    kept_bytes: int = 0
    swept_at: datetime | None = None
    over_bytes: int = 0


@dataclass(slots=True)
class _File:
    key: str
    uri: str
    size: int
    at: datetime
    camera_id: str | None = None
    owners: list[str] = field(default_factory=list)
    keep: bool = False


class Retention:
    """Deletes the oldest files past the bounds, and removes them from their events.

    An event is changed before its file is deleted, so that none ever refers to a file that is not
    there. A file of an event marked `keep` stays, whatever the bounds are. While the events cannot
    be read nothing is deleted.

    Args:
        objects: where the files are.
        events: which files belong to which events.
        apply: removes a file from its events before it is deleted.
        store_id: the store whose files these are.
        settings: the bounds.
        clock: for ages.
    """

    def __init__(
        self,
        objects: ObjectStore,
        events: Events,
        apply: Apply,
        *,
        store_id: str,
        settings: StorageSettings,
        clock: Clock | None = None,
    ) -> None:
        self._objects = objects
        self._events = events
        self._apply = apply
        self._store_id = store_id
        self._settings = settings
        self._clock = clock or SystemClock()
        self._stats = RetentionStats()

    def stats(self) -> RetentionStats:
        """What was done so far."""
        return self._stats

    def sweep(self) -> int:
        """Delete what is past the bounds; returns how many files.

        Raises:
            StoreError: the events cannot be read; nothing was deleted.
            StorageError: the storage does not answer.
        """
        self._objects.remove_leftovers(older_than_s=_LEFTOVER_S)
        files = self._files()
        due = self._past_bounds(files)
        deleted = {file.key: file for file, reason in due if self._delete(file, reason)}
        left = [file for file in files if file.key not in deleted]
        held = sum(file.size for file in left)
        bound = self._settings.retain_bytes
        over = max(0, held - bound) if bound is not None else 0
        if over:
            _log.warning("%d bytes past the bound are of kept or fresh files", over)
        self._stats = replace(
            self._stats,
            deleted=self._stats.deleted + len(deleted),
            deleted_bytes=self._stats.deleted_bytes + sum(file.size for file in deleted.values()),
            files=len(left),
            bytes=held,
            kept_bytes=sum(file.size for file in left if file.keep),
            swept_at=self._clock.now(),
            over_bytes=over,
        )
        return len(deleted)

    def _files(self) -> list[_File]:
        """All files, oldest first, with the events they belong to.

        Listed before the events are read: a file that is linked in between has its owner.
        """
        files = {
            (file := self._file(key, size)).uri: file
            for key, size in self._objects.list(self._store_id)
        }
        for event in self._all_events():
            for uri in files_of(event):
                if (found := files.get(uri)) is not None:
                    at = max(event.started_at, found.at) if found.owners else event.started_at
                    found.at, found.camera_id = at, event.camera_id
                    found.owners.append(event.event_id)
                    found.keep |= event.keep
        return sorted(files.values(), key=lambda file: (file.at, file.key))

    def _file(self, key: str, size: int) -> _File:
        day = _DAY.search(f"/{key}")
        at = self._clock.now()
        if day is not None:
            at = datetime.fromisoformat(day[1]).replace(tzinfo=UTC) + timedelta(days=1)
        return _File(key=key, uri=f"{self._objects.uri}/{key}", size=size, at=at)

    def _all_events(self) -> Iterator[Event]:
        cursor: str | None = None
        while True:
            page = self._events.query(
                EventQuery(store=self._store_id, limit=MAX_LIMIT, cursor=cursor)
            )
            yield from page.events
            cursor = page.next_cursor
            if cursor is None:
                return

    def _past_bounds(self, files: list[_File]) -> list[tuple[_File, str]]:
        settings, now = self._settings, self._clock.now()
        loose = [
            file for file in files if not file.keep and (file.owners or now - file.at > _FRESH)
        ]
        due: dict[str, tuple[_File, str]] = {}
        if settings.retain_days is not None:
            for file in loose:
                if now - file.at > timedelta(days=settings.retain_days):
                    reason = f"deleted by retention: older than {settings.retain_days:g} days"
                    due[file.key] = (file, reason)
        per_camera = settings.retain_bytes_per_camera
        if per_camera is not None:
            for camera_id in {file.camera_id for file in files}:
                whose = [file for file in files if file.camera_id == camera_id]
                reason = f"deleted by retention: more than {per_camera} bytes of the camera"
                _past(per_camera, whose, loose, due, reason)
        if settings.retain_bytes is not None:
            reason = f"deleted by retention: more than {settings.retain_bytes} bytes in all"
            _past(settings.retain_bytes, files, loose, due, reason)
        return list(due.values())

    def _delete(self, file: _File, reason: str) -> bool:
        outcomes = self._apply([FileDropped(owner, file.uri, reason) for owner in file.owners])
        if Outcome.KEPT in outcomes:  # marked a moment ago
            return False
        self._objects.delete(file.key)
        _log.info("%s: %s", file.key, reason)
        return True


def _past(
    bound: int,
    files: list[_File],
    loose: list[_File],
    due: dict[str, tuple[_File, str]],
    reason: str,
) -> None:
    """Add the oldest loose files until what is left is within the bound."""
    free = {file.key for file in loose}
    held = sum(file.size for file in files if file.key not in due)
    for file in files:
        if held <= bound:
            return
        if file.key in free and file.key not in due:
            due[file.key] = (file, reason)
            held -= file.size
