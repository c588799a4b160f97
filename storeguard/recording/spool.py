"""The spool: one camera's finished recordings on local disk, on their way to object storage.

A folder is the queue, so that it outlives every process. What waits is a numbered manifest
(`<number>-<name>.ready.json`), written whole and in order; the files it speaks of lie beside it.
`<recording_id>.events.json` says which events a recording still being written is for.

Bound: the disk, of which `StorageSettings.min_free_bytes` are left alone (recording pauses before).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from storeguard.errors import RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.events.event import Event, EventStatus
from storeguard.recording.part import part_of
from storeguard.recording.recorder import recover
from storeguard.recording.recording import ClipFile

_log = logging.getLogger(__name__)

_READY: Final = ".ready.json"
_EVENTS: Final = ".events.json"
_TEMPORARY: Final = ".tmp"
_CLIPS: Final = (".mp4", ".mkv")
_LOOK_S: Final = 0.05
_WRITER_LOCK: Final = ".writer.lock"
_TAKER_LOCK: Final = ".taker.lock"
# Told per event, or harmless.
_NO_FAULT: Final = ("starts ", "ends ", "encoded from ", "index not in front: ")


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipItem(_Manifest):
    """A clip file to be stored and linked; or, with `upload` off, one to be linked to more events.

    Attributes:
        file: its name in the spool; key: where it goes in object storage.
        start, end: what it covers.
        fault: what is missing inside it; None if nothing is.
        links: the events it is for, each with the span it wants.
    """

    kind: Literal["clip"] = "clip"
    camera_id: str
    recording_id: str
    part: int
    file: str
    key: str
    upload: bool = True
    container: str
    codec: str
    start: AwareDatetime
    end: AwareDatetime
    requested_start: AwareDatetime
    requested_end: AwareDatetime
    num_frames: int
    sha256: str
    size_bytes: int
    complete: bool
    note: str
    fault: str | None
    links: tuple[ClipSpan, ...]


class WishItem(_Manifest):
    """Spans that are being recorded, or (with `error`) could not be."""

    kind: Literal["wish"] = "wish"
    links: tuple[ClipSpan, ...]
    error: str | None = None


class SnapshotItem(_Manifest):
    """An event's still picture."""

    kind: Literal["snapshot"] = "snapshot"
    event_id: str
    file: str
    key: str


class EventItem(_Manifest):
    """An event to be journalled: a recording that somebody asked for."""

    kind: Literal["event"] = "event"
    event: Event


Manifest = ClipItem | WishItem | SnapshotItem | EventItem
_manifests: TypeAdapter[Manifest] = TypeAdapter(Annotated[Manifest, Field(discriminator="kind")])


class RecordingEvents(_Manifest):
    """What a recording that is not over yet is for.

    Attributes:
        links: the events, with the spans they want so far.
        asked: those of them that were asked for by command, and are still open: nobody but the
            recording's own process would close them.
    """

    recording_id: str
    links: tuple[ClipSpan, ...]
    asked: tuple[Event, ...] = ()


class Item(BaseModel):
    """One waiting manifest and the file it was read from."""

    model_config = ConfigDict(frozen=True)

    path: Path
    manifest: Manifest
    waiting_since_s: float
    """Unix time at which it was written."""


class Spool:
    """One camera's spool folder. One process writes, another takes; each holds a lock for it.

    Args:
        folder: made if absent.
        prefix: of the keys in object storage, such as ``corner-shop/table``.

    Raises:
        RecordingError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordingError(f"spool {folder}: cannot be made: {error}") from error
        self._next = 1 + max(
            (int(path.name.split("-", 1)[0]) for path in self._ready()), default=-1
        )

    # ------------------------------------------------------------------ writing

    def put(self, manifest: Manifest, name: str) -> None:
        """Queue a manifest, whole or not at all.

        Raises:
            OSError: the disk is full, ...; nothing was queued.
        """
        path = self.folder / f"{self._next:012d}-{name}{_READY}"
        _write(path, manifest.model_dump_json())
        self._next += 1

    def put_picture(self, jpeg: bytes, *, event_id: str, name: str, day: str) -> None:
        """Queue an event's still picture; a later one of the same event takes its place.

        Raises:
            OSError: nothing was queued.
        """
        file = self.folder / f"{event_id}-{name}.jpg"
        _write(file, jpeg)
        key = f"{self.prefix}/{day}/{event_id}.jpg"
        try:
            self.put(SnapshotItem(event_id=event_id, file=file.name, key=key), file.name)
        except OSError:
            file.unlink(missing_ok=True)
            raise

    def note(self, recording: RecordingEvents) -> None:
        """Keep which events a recording is for, should its process die. Raises OSError."""
        _write(self._events_path(recording.recording_id), recording.model_dump_json())

    def forget(self, recording_id: str) -> None:
        """The recording is over and all its files are queued."""
        self._events_path(recording_id).unlink(missing_ok=True)

    def clip_item(
        self, clip: ClipFile, links: Iterable[ClipSpan], *, upload: bool = True
    ) -> ClipItem:
        """The manifest of a finished file."""
        faults = [said for said in clip.note.split("; ") if said and not _harmless(said)]
        name = clip.path.name.lstrip(".") or "clip"
        return ClipItem(
            camera_id=clip.camera_id,
            recording_id=clip.recording_id,
            part=clip.part,
            file=clip.path.name,
            key=f"{self.prefix}/{clip.start:%Y-%m-%d}/{name}",
            upload=upload,
            container=clip.container.value,
            codec=clip.codec,
            start=clip.start,
            end=clip.end,
            requested_start=clip.requested_start,
            requested_end=clip.requested_end,
            num_frames=clip.num_frames,
            sha256=clip.sha256,
            size_bytes=clip.size_bytes,
            complete=clip.complete,
            note=clip.note,
            fault="; ".join(faults) or None,
            links=tuple(links),
        )

    # ------------------------------------------------------------------ taking

    def items(self) -> Iterator[Item]:
        """What waits, in the order it was put. An unreadable manifest is moved aside, loudly."""
        for path in self._ready():
            try:
                manifest = _manifests.validate_json(path.read_bytes())
                since_s = path.stat().st_mtime
            except FileNotFoundError:
                continue
            except ValidationError as error:
                _log.critical("%s: unreadable, set aside: %s", path, error)
                path.rename(path.with_name(f".{path.name}.damaged"))
                continue
            yield Item(path=path, manifest=manifest, waiting_since_s=since_s)

    def done(self, item: Item) -> None:
        """Remove a manifest that was dealt with, and the file it spoke of."""
        match item.manifest:
            case ClipItem(upload=True, file=file) | SnapshotItem(file=file):
                # The file first: a file without a manifest would be taken for an interrupted one.
                (self.folder / file).unlink(missing_ok=True)
            case _:
                pass
        item.path.unlink(missing_ok=True)

    def size(self) -> tuple[int, int]:
        """How many manifests wait, and the bytes of all files in the folder."""
        waiting = size = 0
        with os.scandir(self.folder) as entries:
            for entry in entries:
                waiting += entry.name.endswith(_READY)
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat().st_size
        return waiting, size

    def interrupted(self) -> int:
        """How many recordings were going on when their process died, and wait for `recover`."""
        found = sum(1 for _ in self.folder.glob(f"*{_EVENTS}"))
        if not found:
            return 0
        with self.writing() as abandoned:
            return found if abandoned else 0

    # ------------------------------------------------------------------ locks and crashes

    @contextlib.contextmanager
    def writing(self, *, within_s: float = 0.0) -> Iterator[bool]:
        """Be the one who records into the folder, until the block or the process ends.

        Args:
            within_s: how long to wait for whoever still is.

        Yields:
            Whether it was obtained.
        """
        with _locked(self.folder / _WRITER_LOCK, within_s=within_s) as held:
            yield held

    @contextlib.contextmanager
    def taking(self) -> Iterator[bool]:
        """Be the one who takes from the folder; yields False if somebody else is."""
        with _locked(self.folder / _TAKER_LOCK) as held:
            yield held

    def recover(self, why: str) -> int:
        """Make good what a killed writer left; the caller holds the writer's lock.

        Interrupted files are finished and queued with the events they are for. A file for no event,
        of which nobody would know, is removed; an event for which there is no file is told why.

        Args:
            why: what happened, for events that stay without video.

        Returns:
            How many files were saved.
        """
        for stray in self.folder.glob(f".*{_TEMPORARY}"):
            stray.unlink(missing_ok=True)
        self._reopen_unannounced()
        noted = {path: self._read_events(path) for path in self.folder.glob(f"*{_EVENTS}")}
        recordings = {one.recording_id: one for one in noted.values() if one is not None}
        saved = 0
        served: set[str] = set()
        ends: dict[str, datetime] = {}
        for clip in recover(self.folder):
            ends[clip.recording_id] = max(clip.end, ends.get(clip.recording_id, clip.end))
            recording = recordings.get(clip.recording_id)
            links = [] if recording is None else wishes_of(clip, recording.links)
            if not links:
                _log.warning("%s: for no event, removed", clip.path.name)
                clip.path.unlink(missing_ok=True)
                continue
            # Nobody will extend it any more, whatever was planned.
            final = [link.model_copy(update={"final": True}) for link in links]
            self.put(self.clip_item(clip, final), clip.path.name)
            served |= {link.event_id for link in final}
            saved += 1
        for path, recording in noted.items():
            left = [
                link.model_copy(update={"final": True})
                for link in (recording.links if recording else ())
                if link.event_id not in served
            ]
            if left:
                self.put(WishItem(links=tuple(left), error=why), path.stem)
            if recording is None:
                path.unlink(missing_ok=True)
                continue
            for event in recording.asked:
                closed = closed_event(event, ends.get(recording.recording_id, event.updated_at))
                self.put(EventItem(event=closed), event.event_id)
            path.unlink(missing_ok=True)
        self._sweep()
        return saved

    def _reopen_unannounced(self) -> None:
        """Files finished but not queued yet are taken up again as if interrupted."""
        announced = self._announced()
        for path in self.folder.iterdir():
            if path.suffix in _CLIPS and not path.name.startswith("."):
                if path.name not in announced:
                    path.replace(part_of(path))
                else:
                    part_of(path).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove pictures that were never queued and clips that could not be described."""
        announced = self._announced()
        for path in self.folder.iterdir():
            if path.suffix in {".jpg", *_CLIPS} and path.name not in announced:
                path.unlink(missing_ok=True)

    def _announced(self) -> set[str]:
        files: set[str] = set()
        for item in self.items():
            match item.manifest:
                case ClipItem(file=file) | SnapshotItem(file=file):
                    files.add(file)
                case _:
                    pass
        return files

    def _ready(self) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*-*{_READY}"))

    def _events_path(self, recording_id: str) -> Path:
        return self.folder / f"{recording_id}{_EVENTS}"

    def _read_events(self, path: Path) -> RecordingEvents | None:
        try:
            return RecordingEvents.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            _log.critical("%s: unreadable, its recording has no events: %s", path, error)
            return None


def closed_event(event: Event, at: datetime) -> Event:
    """The next version of an event that ends at a moment."""
    ended_at = max(at, event.started_at)
    return event.model_copy(
        update={
            "version": event.version + 1,
            "status": EventStatus.CLOSED,
            "ended_at": ended_at,
            "updated_at": max(ended_at, event.updated_at),
        }
    )


def wishes_of(clip: ClipFile | ClipItem, links: Iterable[ClipSpan]) -> list[ClipSpan]:
    """The events whose spans a file shares a moment with."""
    return [
        link
        for link in links
        if link.start < clip.end and (not link.final or clip.start < link.end)
    ]


def key_prefix(store_id: str, camera_id: str, folder: str) -> str:
    """Where a camera's files go in object storage; `folder` is `RecordingSettings.folder`."""
    parts = [part.strip(".") for part in folder.split("/")]
    return "/".join((store_id, *([part for part in parts if part] or [camera_id])))


def free_bytes(folder: Path) -> int:
    """What is free on a folder's disk."""
    return shutil.disk_usage(folder).free


def is_disk_full(error: OSError) -> bool:
    """Whether it says that the disk, or one's share of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def _harmless(said: str) -> bool:
    return said.startswith(_NO_FAULT)


def _write(path: Path, content: str | bytes) -> None:
    """Write a small file whole or not at all; on disk when this returns."""
    fresh = path.with_name(f".{path.name}{_TEMPORARY}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(path: Path, *, within_s: float = 0.0) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until_s = time.monotonic() + within_s
    try:
        while not (held := _lock(handle)) and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        yield held
    finally:
        os.close(handle)  # which unlocks


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
