"""The spool: one camera's finished recordings on local disk, on their way to object storage.

A folder is the queue, so that it outlives every process. What waits is a numbered manifest
(`<number>-<name>.ready.json`), written whole and in order; the files it names lie next to it.
`recorder.json` is the recorder's checkpoint: how far it has read the event journal, and which
events the recordings that are not over yet are for.

Bound: the disk, of which `StorageSettings.min_free_bytes` are left free (recording pauses before).
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
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from storeguard.errors import RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.events.cursor import Cursor
from storeguard.events.event import Event, EventStatus
from storeguard.events.faults import Fault, FaultCode
from storeguard.files import write_atomically
from storeguard.recording.clip_requests import ClipRequest
from storeguard.recording.recording import ClipFile

_log = logging.getLogger(__name__)

_READY: Final = ".ready.json"
_CHECKPOINT: Final = "recorder.json"
_CHECKPOINT_0_1: Final = ".events.json"  # one a recording, until release 0.1
_POLL_S: Final = 0.05
_WRITER_LOCK: Final = ".writer.lock"
_TAKER_LOCK: Final = ".taker.lock"


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipItem(_Manifest):
    """A clip file to be stored and linked; or, with `upload` off, one to be linked to more events.

    Attributes:
        file: its name in the spool; key: where it goes in object storage.
        start, end: what it covers.
        faults: what is missing inside it; empty if nothing is.
        links: the events it is for, each with the span it requests.
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
    faults: tuple[Fault, ...] = ()
    links: tuple[ClipSpan, ...]

    @model_validator(mode="before")
    @classmethod
    def _of_0_1(cls, document: Any) -> Any:
        """Release 0.1 wrote faults as sentences."""
        if not isinstance(document, dict) or "fault" not in document:
            return document
        fault = document["fault"]
        faults = () if fault is None else (Fault(code=FaultCode.OTHER, detail=fault),)
        known = {name: value for name, value in document.items() if name not in {"fault", "note"}}
        return {**known, "faults": faults}


class RequestItem(_Manifest):
    """Spans that are being recorded, or (with `fault`) could not be."""

    kind: Literal["wish"] = "wish"
    links: tuple[ClipSpan, ...]
    fault: Fault | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_0_1(cls, document: Any) -> Any:
        """Release 0.1 wrote the fault as a sentence."""
        if not isinstance(document, dict) or "error" not in document:
            return document
        error = document["error"]
        known = {name: value for name, value in document.items() if name != "error"}
        return {**known, "fault": error and Fault(code=FaultCode.OTHER, detail=error)}


class SnapshotItem(_Manifest):
    """An event's still picture."""

    kind: Literal["snapshot"] = "snapshot"
    event_id: str
    file: str
    key: str


class EventItem(_Manifest):
    """An event to be journalled: a manual recording."""

    kind: Literal["event"] = "event"
    event: Event


Manifest = ClipItem | RequestItem | SnapshotItem | EventItem
_manifests: TypeAdapter[Manifest] = TypeAdapter(Annotated[Manifest, Field(discriminator="kind")])


class RecorderCheckpoint(BaseModel):
    """What a camera's recorder has to know after a restart.

    Attributes:
        cursor: the last change of the event journal that it has dealt with; None before the first.
        requests: the clip requests that are not fulfilled yet.
        recordings: recordings that are not over, each with the ids of the events it is for.
        finished: events whose requests were fulfilled lately, the latest last.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    cursor: Cursor | None = None
    requests: tuple[ClipRequest, ...] = ()
    recordings: dict[str, tuple[str, ...]] = {}
    finished: tuple[str, ...] = ()


class _RecordingEvents01(BaseModel):
    """What release 0.1 kept of each recording that was not over."""

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
        write_atomically(path, manifest.model_dump_json())
        self._next += 1

    def put_picture(self, jpeg: bytes, *, event_id: str, name: str, day: str) -> None:
        """Queue an event's still picture; a later one of the same event takes its place.

        Raises:
            OSError: nothing was queued.
        """
        file = self.folder / f"{event_id}-{name}.jpg"
        write_atomically(file, jpeg)
        key = f"{self.prefix}/{day}/{event_id}.jpg"
        try:
            self.put(SnapshotItem(event_id=event_id, file=file.name, key=key), file.name)
        except OSError:
            file.unlink(missing_ok=True)
            raise

    def clip_item(
        self, clip: ClipFile, links: Iterable[ClipSpan], *, upload: bool = True
    ) -> ClipItem:
        """The manifest of a finished file."""
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
            # Coverage is a matter of each event: it depends on the event's span and all its files.
            faults=tuple(one for one in clip.faults if not (one.is_remark or one.is_coverage)),
            links=tuple(links),
        )

    # ------------------------------------------------------------------ the recorder's checkpoint

    def save(self, checkpoint: RecorderCheckpoint) -> None:
        """Replace the recorder's checkpoint. Raises OSError: the one before is still there."""
        write_atomically(self.folder / _CHECKPOINT, checkpoint.model_dump_json())
        for path in self.folder.glob(f"*{_CHECKPOINT_0_1}"):
            path.unlink(missing_ok=True)

    def load(self) -> RecorderCheckpoint:
        """The recorder's checkpoint; an empty one if there is none, or (logged) it is unreadable.

        Raises:
            OSError: the file is there and cannot be opened.
        """
        path = self.folder / _CHECKPOINT
        checkpoint = RecorderCheckpoint()
        try:
            checkpoint = RecorderCheckpoint.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            pass
        except ValidationError as error:
            _log.critical(
                "%s: unreadable, set aside; its recordings belong to no event: %s", path, error
            )
            path.replace(path.with_name(f".{path.name}.damaged"))
        return self._with_0_1(checkpoint)

    def _with_0_1(self, checkpoint: RecorderCheckpoint) -> RecorderCheckpoint:
        requests = {one.event_id: one for one in checkpoint.requests}
        recordings = dict(checkpoint.recordings)
        for path in self.folder.glob(f"*{_CHECKPOINT_0_1}"):
            try:
                old = _RecordingEvents01.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                _log.critical("%s: unreadable, its recording belongs to no event: %s", path, error)
                continue
            manual = {event.event_id: event for event in old.asked}
            recordings[old.recording_id] = tuple(link.event_id for link in old.links)
            for link in old.links:
                request = ClipRequest(**link.model_dump(), manual=manual.get(link.event_id))
                requests.setdefault(link.event_id, request)
        return checkpoint.model_copy(
            update={"requests": tuple(requests.values()), "recordings": recordings}
        )

    def interrupted(self) -> int:
        """How many clip requests were open when their process died, and wait for recovery."""
        if not (self.folder / _CHECKPOINT).exists() and not any(
            self.folder.glob(f"*{_CHECKPOINT_0_1}")
        ):
            return 0
        with self.writing() as abandoned:
            if not abandoned:
                return 0
            checkpoint = self.load()
            return max(len(checkpoint.requests), len(checkpoint.recordings))

    # ------------------------------------------------------------------ taking

    def items(self) -> Iterator[Item]:
        """What waits, in the order it was put. An unreadable manifest is moved aside and logged."""
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
        """Remove a manifest that was dealt with, and the file it names."""
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
                waiting += entry.name.endswith(_READY) and not entry.name.startswith(".")
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat().st_size
        return waiting, size

    def announced(self) -> set[str]:
        """Names of the files that waiting manifests name."""
        files: set[str] = set()
        for item in self.items():
            match item.manifest:
                case ClipItem(file=file) | SnapshotItem(file=file):
                    files.add(file)
                case _:
                    pass
        return files

    # ------------------------------------------------------------------ locks

    @contextlib.contextmanager
    def writing(self, *, within_s: float = 0.0) -> Iterator[bool]:
        """Be the one process that records into the folder, until the block or the process ends.

        Args:
            within_s: how long to wait for another one to end.

        Yields:
            Whether the lock was obtained.
        """
        with _locked(self.folder / _WRITER_LOCK, within_s=within_s) as held:
            yield held

    @contextlib.contextmanager
    def taking(self) -> Iterator[bool]:
        """Be the one process that takes from the folder; yields False if another one is."""
        with _locked(self.folder / _TAKER_LOCK) as held:
            yield held

    def _ready(self) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*-*{_READY}"))


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


def key_prefix(store_id: str, camera_id: str, folder: str) -> str:
    """Where a camera's files go in object storage; `folder` is `RecordingSettings.folder`."""
    parts = [part.strip(".") for part in folder.split("/")]
    return "/".join((store_id, *([part for part in parts if part] or [camera_id])))


def free_bytes(folder: Path) -> int:
    """What is free on a folder's disk."""
    return shutil.disk_usage(folder).free


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or one's share of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def _locked(path: Path, *, within_s: float = 0.0) -> Iterator[bool]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until_s = time.monotonic() + within_s
    try:
        while not (held := _lock(handle)) and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        yield held
    finally:
        os.close(handle)  # which unlocks


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
