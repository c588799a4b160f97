"""From the spools of one machine to object storage and into the events, in order, until it is done.

A file is announced to its events, uploaded, linked to them, and only then it leaves the spool.
Killed anywhere in between, the same is done again: the same key, and changes that change nothing
more. A node that is lost between the upload and the link leaves an announcement, by which the rules
find the file.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from storeguard.clock import Clock, SystemClock
from storeguard.errors import NotFoundError, RecordingError
from storeguard.events.changes import (
    Change,
    ClipAnnounced,
    ClipFailed,
    ClipRequested,
    ClipStored,
    EventReported,
    Outcome,
    SnapshotStored,
)
from storeguard.events.clip import ClipSpan, StoredClip
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.recovery import recover
from storeguard.recording.spool import (
    ClipItem,
    EventItem,
    Item,
    RequestItem,
    SnapshotItem,
    Spool,
    key_prefix,
)
from storeguard.storage.objects import ObjectStore

_log = logging.getLogger(__name__)

ApplyCall = Callable[[Sequence[Change]], Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class UploaderStats:
    """What one uploader did so far, and what waits.

    Attributes:
        waiting: manifests not dealt with; waiting_bytes: size of the spools.
        interrupted: clip requests whose process died, and that are not taken over yet.
        oldest_s: age of the oldest of what waits; None when nothing does.
        clips, snapshots: files stored.
        lost: files that were missing, or damaged, before they could be stored.
        retries: attempts that failed and are repeated.
        last_error: why the last one failed; None when the last one did not.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    interrupted: int = 0
    oldest_s: float | None = None
    clips: int = 0
    snapshots: int = 0
    lost: int = 0
    retries: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class UploaderTiming:
    """Seconds that an uploader waits.

    Attributes:
        retry_s, max_retry_s, jitter: between attempts: min(retry * 2^n, max), times 1 +- jitter.
        idle_s: between two rounds while nothing waits.
        abandoned_s: between two checks for spools that have no recorder.
    """

    retry_s: float = 0.5
    max_retry_s: float = 15.0
    jitter: float = 0.3
    idle_s: float = 0.5
    abandoned_s: float = 30.0


class Uploader:
    """Empties every camera's spool below a folder, on a thread of its own.

    One attempt at a time and each spool in its order: what cannot be stored now holds up what is
    behind it in the same spool, and is tried again for as long as it takes.

    Args:
        root: the folder of the spools, one a camera.
        objects: where files go. It should not retry by itself: this does.
        apply: applies changes to events, as `EventChanges.apply` does; raises if it is not certain
            that they were.
        store_id: for the keys of what is recovered from abandoned spools.
        timing: how long to wait for what.
        clock: for waits.
    """

    def __init__(
        self,
        root: Path,
        objects: ObjectStore,
        apply: ApplyCall,
        *,
        store_id: str,
        timing: UploaderTiming = UploaderTiming(),
        clock: Clock | None = None,
    ) -> None:
        self._root = root
        self._objects = objects
        self._apply = apply
        self._store_id = store_id
        self._timing = timing
        self._clock = clock or SystemClock()
        self._failures: dict[str, int] = {}
        self._not_before_s: dict[str, float] = {}
        self._checked_s = self._clock.monotonic()  # a live camera needs a moment to lock its spool
        self._stats = UploaderStats()
        self._lock = threading.Lock()  # guards stats
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clip-uploader", daemon=True)
            self._thread.start()

    def stop(self, *, drain_s: float = 5.0) -> bool:
        """Stop; what waits is stored first, for at most `drain_s`.

        Returns:
            Whether nothing was left. What is left stays in the spool.
        """
        deadline_s = self._clock.monotonic() + drain_s
        while self._thread is not None and self._clock.monotonic() < deadline_s:
            if not self.stats().waiting:
                break
            self._clock.sleep(0.05)
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=60.0)
            self._thread = None
        return not self.stats().waiting

    def stats(self) -> UploaderStats:
        """What was done so far, and what waits now."""
        waiting = size = interrupted = 0
        oldest_s: float | None = None
        for spool in self._spools():
            number, held = spool.size()
            waiting, size = waiting + number, size + held
            interrupted += spool.interrupted()
            if number:
                first = next(spool.items(), None)
                # File times are the wall clock's.
                age_s = 0.0 if first is None else max(0.0, time.time() - first.waiting_since_s)
                oldest_s = max(oldest_s or 0.0, age_s)
        with self._lock:
            return replace(
                self._stats,
                waiting=waiting,
                waiting_bytes=size if waiting else 0,
                interrupted=interrupted,
                oldest_s=oldest_s,
            )

    def step(self) -> int:
        """One round over all spools; returns how many manifests were dealt with."""
        self._take_over_abandoned()
        dealt = 0
        for spool in self._spools():
            with spool.taking() as mine:
                if mine:
                    dealt += self._empty(spool)
        return dealt

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ------------------------------------------------------------------ inside

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                dealt = self.step()
            except Exception:  # noqa: BLE001 - a surprise in one round must not end all uploads
                _log.exception("a round of uploads failed")
                dealt = 0
            if not dealt:
                self._wake.wait(self._timing.idle_s)
                self._wake.clear()

    def _spools(self) -> Iterator[Spool]:
        try:
            folders = sorted(path for path in self._root.iterdir() if path.is_dir())
        except FileNotFoundError:
            return
        for folder in folders:
            # The writer has put the keys into its manifests; the prefix is for abandoned ones.
            yield Spool(folder, prefix=key_prefix(self._store_id, folder.name, ""))

    def _empty(self, spool: Spool) -> int:
        """Deal with a spool's manifests until one fails; what waits for no file goes first."""
        name = spool.folder.name
        items = list(spool.items())
        ahead = [item for item in items if _waits_for_no_file(item)]
        is_late = self._clock.monotonic() < self._not_before_s.get(name, 0.0)
        rest = [] if is_late else [item for item in items if item not in ahead]
        dealt = 0
        for batch in [ahead] * bool(ahead) + [[item] for item in rest]:
            if self._stop.is_set():
                break
            try:
                self._deal_with(spool, batch)
            except Exception as error:  # noqa: BLE001 - dead rules or stores have many names
                self._failed(name, error)
                break
            for item in batch:
                spool.done(item)
            dealt += len(batch)
            self._failures.pop(name, None)
        return dealt

    def _deal_with(self, spool: Spool, items: Sequence[Item]) -> None:
        changes: list[Change] = []
        for item in items:
            match item.manifest:
                case EventItem(event=event):
                    changes.append(EventReported(event))
                case RequestItem(links=links, fault=fault):
                    changes += _requested(links, fault)
                case ClipItem() as clip:
                    self._store_clip(spool, clip)
                case SnapshotItem() as snapshot:
                    self._store_snapshot(spool, snapshot)
        if changes:
            self._apply(changes)

    def _store_clip(self, spool: Spool, clip: ClipItem) -> None:
        local = spool.folder / clip.file
        faults, sha256 = clip.faults, clip.sha256
        uri: str | None = f"{self._objects.uri}/{clip.key}"
        if clip.upload and local.exists():
            self._apply(_stored(clip, str(uri), sha256, faults, announced=True))
            stored = self._objects.put_file(local, clip.key)
            uri, sha256 = stored.uri, stored.sha256
            if sha256 != clip.sha256:
                faults = (*faults, Fault(code=FaultCode.CHECKSUM_CHANGED))
                _log.error("%s: its checksum changed on disk", local)
            self._count(clips=1)
        else:
            uri = self._uri_if_stored(clip.key)
        if uri is None:
            _log.error("%s: missing before it was stored", local)
            self._count(lost=1)
            fault = Fault(code=FaultCode.FILE_LOST, detail=clip.file)
            self._apply(_requested(clip.links, fault))
            return
        outcomes = self._apply(_stored(clip, uri, sha256, faults, announced=False))
        if clip.upload and all(outcome is Outcome.NO_EVENT for outcome in outcomes):
            _log.warning("%s: none of its events exists any more, removed", uri)
            self._objects.delete(uri)

    def _store_snapshot(self, spool: Spool, snapshot: SnapshotItem) -> None:
        local = spool.folder / snapshot.file
        if local.exists():
            uri: str | None = self._objects.put_file(local, snapshot.key).uri
            self._count(snapshots=1)
        else:
            uri = self._uri_if_stored(snapshot.key)
        if uri is None:
            return
        outcomes = self._apply([SnapshotStored(snapshot.event_id, uri)])
        if outcomes == [Outcome.NO_EVENT]:
            self._objects.delete(uri)

    def _uri_if_stored(self, key: str) -> str | None:
        """Where an earlier attempt, cut short before the manifest was gone, has put it."""
        try:
            self._objects.size(key)
        except NotFoundError:
            return None
        return f"{self._objects.uri}/{key}"

    def _take_over_abandoned(self) -> None:
        """Recover spools that have no recorder: of removed cameras, or of a dead process."""
        now_s = self._clock.monotonic()
        if now_s < self._checked_s + self._timing.abandoned_s:
            return
        self._checked_s = now_s
        for spool in self._spools():
            with ExitStack() as held:
                if held.enter_context(spool.writing()):
                    try:
                        recover(spool, goes_on=False)
                    except (OSError, RecordingError) as error:
                        _log.warning("spool %s: cannot be recovered: %s", spool.folder, error)

    def _failed(self, name: str, error: Exception) -> None:
        failures = self._failures.get(name, 0)
        timing = self._timing
        wait_s = min(timing.retry_s * 2.0 ** min(failures, 20), timing.max_retry_s)
        wait_s *= 1 + timing.jitter * random.uniform(-1, 1)  # noqa: S311 - no secret
        self._failures[name] = failures + 1
        self._not_before_s[name] = self._clock.monotonic() + wait_s
        if failures == 0:
            _log.warning("spool of %r waits, trying again: %s", name, error)
        with self._lock:
            self._stats = replace(
                self._stats, retries=self._stats.retries + 1, last_error=str(error)
            )

    def _count(self, *, clips: int = 0, snapshots: int = 0, lost: int = 0) -> None:
        with self._lock:
            self._stats = replace(
                self._stats,
                clips=self._stats.clips + clips,
                snapshots=self._stats.snapshots + snapshots,
                lost=self._stats.lost + lost,
                last_error=None,
            )


def _requested(links: Sequence[ClipSpan], fault: Fault | None) -> list[Change]:
    if fault is None:
        return [ClipRequested(span) for span in links]
    return [ClipFailed(span, fault) for span in links]


def _stored(
    clip: ClipItem, uri: str, sha256: str, faults: tuple[Fault, ...], *, announced: bool
) -> list[Change]:
    stored = StoredClip(uri=uri, start=clip.start, end=clip.end, sha256=sha256, faults=faults)
    kind = ClipAnnounced if announced else ClipStored
    return [kind(span, stored) for span in clip.links]


def _waits_for_no_file(item: Item) -> bool:
    match item.manifest:
        case EventItem():
            return True
        case RequestItem(links=links, fault=None):
            return not any(link.final for link in links)
        case _:
            return False
