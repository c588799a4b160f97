"""The durable log of where people were: at most one row a person and second, in Parquet."""

from __future__ import annotations

import errno
import json
import logging
import math
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Self

import pyarrow as pa

from storeguard.analytics.track_parts import TRACK_SCHEMA, TrackParts
from storeguard.clock import Clock, SystemClock
from storeguard.config.store import StoreConfig
from storeguard.events.query import milliseconds
from storeguard.rules.observation import Observation

_log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_SWEEP_S: Final = 300.0
_HELD: Final = 4  # times max_rows: rows held in memory while the disk cannot be written
_SLOT_KEPT_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_Row = tuple[int, str, str, float, float, float, float, float, str | None]


@dataclass(frozen=True, slots=True)
class TrackLogStats:
    """What the log has done so far.

    Attributes:
        rows: written to disk.
        bytes, parts: on disk now, as of the last write or sweep.
        waiting: rows in memory.
        passed_over: rows left out by the rate; they are not lost rows.
        dropped: rows lost, by cause: `no_space` (the disk is full), `write_failed`, `backlog`
            (the writer does not keep up), `fault` (an error in this class), `closed` (after
            `close`).
        error: why the last write failed; None if it succeeded.
    """

    rows: int = 0
    bytes: int = 0
    parts: int = 0
    waiting: int = 0
    passed_over: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(slots=True)
class _Buffer:
    """One camera's rows that are not on disk yet, oldest first."""

    since_s: float
    rows: deque[_Row] = field(default_factory=deque)


class TrackLog:
    """Keeps where people were. Never blocks its caller, and never raises to it.

    `take` only appends to memory; the log's own thread writes. A camera's rows become a file (see
    `TrackParts`) when there are `max_rows` of them, when the first is `max_age_s` old, and at
    `close`. At most the rows in memory are lost when the process is killed.

    Of each person it keeps the first row in each slot of 1/`rate_hz` seconds of capture time.
    Slots are counted from 1970, so at 1 Hz they begin on the full second for all cameras.
    Observations that are sent twice are kept once. The volume is people x rate x bytes a row.
    Measured on jittery random walks with one person or five: 18 bytes a row once an hour is merged
    (25 to 55 in a part of a minute). Five people in view all day make 5 x 1 Hz x 86 400 s =
    432 000 rows, 8 MB a day, 235 MB in 30 days; 1 GiB holds 30 days of 23 people.

    While the disk cannot be written, at most `_HELD` times `max_rows` rows are held. Drop policy:
    the oldest rows of the camera that has most; they are counted.

    Args:
        folder: of the log; made by the first write.
        clock: measures age.
        max_rows: of a part.
        max_age_s: how long rows may stay in memory.
        retain_days: days before today (UTC) that are kept; a day is removed as a whole.
        max_bytes: of all files; past it the oldest go.
        rate_hz: rows a person and second of capture time, 60 at most.
        min_free_bytes: nothing is written while the disk has less free space than this, which
            is left to the event journal.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        max_rows: int = 20_000,
        max_age_s: float = 60.0,
        retain_days: float = 30.0,
        max_bytes: int = 2**30,
        rate_hz: float = 1.0,
        min_free_bytes: int = 0,
    ) -> None:
        if not 0 < rate_hz <= 60 or max_rows < 1:
            raise ValueError(
                f"expected 0 < rate_hz <= 60 and max_rows >= 1, got {rate_hz} and {max_rows}"
            )
        self._parts = TrackParts(folder)
        self._clock = clock or SystemClock()
        self._max_rows = max_rows
        self._max_age_s = max_age_s
        self._retain = timedelta(days=retain_days)
        self._max_bytes = max_bytes
        self._rate_hz = rate_hz
        self._min_free_bytes = min_free_bytes
        self._buffers: dict[str, _Buffer] = {}
        self._slots: dict[str, dict[str, int]] = {}
        self._closed = False
        self._lock = threading.Lock()  # guards all above and the counters; never held while writing
        self._writing = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._error: str | None = None
        self._cause = "backlog"
        self._recovered = False
        self._swept_s: float | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write from a thread of its own, until `close`."""
        self._thread = threading.Thread(target=self._run, name="track-log", daemon=True)
        self._thread.start()

    def take(self, observations: Sequence[Observation]) -> None:
        """Keep where these people were. Never blocks on the disk and never raises."""
        for observation in observations:
            try:
                self._take(observation)
            except Exception as error:  # noqa: BLE001 - the log never stops the rules
                with self._lock:
                    self._dropped["fault"] += len(observation.person_id)
                self._fail(error)

    def flush_due(self, *, everything: bool = False) -> None:
        """Write the rows that are due, and sweep if that is due; never raises.

        The log's thread calls this each second; without `start` the caller does.
        """
        with self._writing:
            try:
                if not self._recovered:
                    self._parts.recover()
                    self._recovered = True
            except (OSError, pa.ArrowException) as error:
                self._fail(error)
                return
            for camera_id in self._due(everything=everything):
                self._flush(camera_id)
            self._sweep()

    def stats(self) -> TrackLogStats:
        """What the log has done so far."""
        with self._lock:
            counts = self._counts
            return TrackLogStats(
                rows=counts["rows"],
                bytes=counts["bytes"],
                parts=counts["parts"],
                waiting=self._waiting(),
                passed_over=counts["passed_over"],
                dropped=dict(self._dropped),
                error=self._error,
            )

    def close(self, *, timeout_s: float = 10.0) -> None:
        """Write the remaining rows and stop; rows not written are dropped and counted."""
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                _log.error("track log: the last rows could not be written within %g s", timeout_s)
                return
            self._thread = None
        self.flush_due(everything=True)
        with self._lock:
            if left := self._waiting():
                self._dropped[self._cause] += left
                self._buffers.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ------------------------------------------------------------------ taking

    def _take(self, observation: Observation) -> None:
        at_ms = milliseconds(observation.captured_at)
        slot = math.floor(at_ms * self._rate_hz / 1000)
        boxes, scores = observation.xyxy.tolist(), observation.score.tolist()
        with self._lock:
            if self._closed:
                self._dropped["closed"] += len(observation.person_id)
                return
            slots = self._slots.setdefault(observation.camera_id, {})
            rows = []
            for person_id, box, score in zip(observation.person_id, boxes, scores, strict=True):
                # An earlier slot is an observation sent twice: a person's time never goes back.
                if slot <= slots.get(person_id, -1):
                    self._counts["passed_over"] += 1
                    continue
                slots[person_id] = slot
                labels = _labels(observation, person_id)
                rows.append((at_ms, observation.camera_id, person_id, *box, score, labels))
            oldest = slot - math.ceil(_SLOT_KEPT_MS * self._rate_hz / 1000)
            if len(slots) > 2 * len(observation.person_id) + 64:
                self._slots[observation.camera_id] = {
                    person_id: last for person_id, last in slots.items() if last >= oldest
                }
            if rows:
                self._keep(observation.camera_id, rows)

    def _keep(self, camera_id: str, rows: Sequence[_Row]) -> None:
        buffer = self._buffers.get(camera_id)
        if buffer is None:
            buffer = self._buffers[camera_id] = _Buffer(self._clock.monotonic())
        buffer.rows.extend(rows)
        self._drop_past_bound()
        if len(buffer.rows) >= self._max_rows and self._error is None:
            self._wake.set()

    def _drop_past_bound(self) -> None:
        over = self._waiting() - _HELD * self._max_rows
        while over > 0:
            fullest = max(self._buffers.values(), key=lambda buffer: len(buffer.rows))
            fullest.rows.popleft()
            self._dropped[self._cause] += 1
            over -= 1

    def _waiting(self) -> int:
        return sum(len(buffer.rows) for buffer in self._buffers.values())

    # ------------------------------------------------------------------ writing

    def _run(self) -> None:
        while True:
            self._wake.wait(_TICK_S)
            self._wake.clear()
            if self._closed:
                return
            try:
                self.flush_due()
            except Exception as error:  # noqa: BLE001 - an error must not end the thread
                self._fail(error)

    def _due(self, *, everything: bool) -> list[str]:
        now_s = self._clock.monotonic()
        with self._lock:
            return [
                camera_id
                for camera_id, buffer in self._buffers.items()
                if everything
                or len(buffer.rows) >= self._max_rows
                or now_s - buffer.since_s >= self._max_age_s
            ]

    def _flush(self, camera_id: str) -> None:
        with self._lock:
            chunks = _chunks(self._buffers.pop(camera_id).rows, self._max_rows)
        try:
            while chunks:
                day, rows = chunks[0]
                self._check_space()
                part = self._parts.write(_table(rows), day, camera_id)
                del chunks[0]
                with self._lock:
                    self._counts.update(rows=len(rows), bytes=part.size, parts=1)
        except (OSError, pa.ArrowException) as error:
            self._fail(error)
        else:
            self._succeed()
            return
        left = deque(row for _, rows in chunks for row in rows)
        with self._lock:  # the next attempt is due after max_age_s, or with max_rows rows
            newer = self._buffers.get(camera_id)
            self._buffers[camera_id] = _Buffer(self._clock.monotonic(), left)
            if newer is not None:
                self._buffers[camera_id].rows.extend(newer.rows)
            self._drop_past_bound()

    def _check_space(self) -> None:
        if self._min_free_bytes and (free := self._parts.free_bytes()) < self._min_free_bytes:
            reserved = self._min_free_bytes
            raise OSError(errno.ENOSPC, f"{free} bytes free, {reserved} are reserved for events")

    def _sweep(self) -> None:
        now_s = self._clock.monotonic()
        with self._lock:
            full = self._counts["bytes"] > self._max_bytes
        if not full and self._swept_s is not None and now_s - self._swept_s < _SWEEP_S:
            return
        self._swept_s = now_s
        now = self._clock.now()
        try:
            # Removing first makes room for merging.
            self._parts.prune(before=(now - self._retain).date(), max_bytes=self._max_bytes)
            self._parts.merge(before=now - timedelta(seconds=2 * self._max_age_s))
            parts = self._parts.parts()
        except (OSError, pa.ArrowException) as error:
            self._fail(error)
            return
        with self._lock:
            self._counts["bytes"] = sum(part.size for part in parts)
            self._counts["parts"] = len(parts)

    def _fail(self, error: Exception) -> None:
        no_space = isinstance(error, OSError) and error.errno in _NO_SPACE
        with self._lock:
            first = self._error is None
            self._error = str(error) or type(error).__name__
            self._cause = "no_space" if no_space else "write_failed"
        if first:
            _log.error("track log %s: cannot be written: %s", self._parts.folder, error)

    def _succeed(self) -> None:
        with self._lock:
            failed_before = self._error is not None
            self._error, self._cause = None, "backlog"
            dropped = dict(self._dropped)
        if failed_before:
            _log.warning(
                "track log %s: can be written again; rows dropped so far: %s",
                self._parts.folder,
                dropped or "none",
            )


def tracks_folder(config: StoreConfig) -> Path:
    """Where a store's track log is."""
    return config.data_dir / "tracks"


def track_log(config: StoreConfig, *, clock: Clock | None = None) -> TrackLog | None:
    """The store's track log, in its data folder; None when it is turned off. Not started."""
    settings = config.tracks
    if not settings.enabled:
        return None
    return TrackLog(
        tracks_folder(config),
        clock=clock,
        rate_hz=settings.rate_hz,
        max_age_s=settings.flush_s,
        retain_days=settings.retain_days,
        max_bytes=settings.max_bytes,
        min_free_bytes=config.storage.min_free_bytes,
    )


def _labels(observation: Observation, person_id: str) -> str | None:
    """A person's attributes as JSON with sorted keys; None without any."""
    attributes = observation.attributes.get(person_id)
    if not attributes:
        return None
    return json.dumps({one.name: one.label for one in attributes}, sort_keys=True)


def _chunks(rows: Sequence[_Row], max_rows: int) -> list[tuple[date, list[_Row]]]:
    """Rows of one day (UTC) each, no more than `max_rows`."""
    by_day: defaultdict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_day[row[0] // _DAY_MS].append(row)
    return [
        (_EPOCH + timedelta(days=day), of_day[start : start + max_rows])
        for day, of_day in sorted(by_day.items())
        for start in range(0, len(of_day), max_rows)
    ]


def _table(rows: Sequence[_Row]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(column, kind.type) for column, kind in zip(columns, TRACK_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=TRACK_SCHEMA)
