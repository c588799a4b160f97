"""Reads the track log, also while it is written, and exports it as a dataset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storeguard.analytics.dataset import DayTable, Destination, Exported, export_by_day
from storeguard.analytics.events_table import MOMENT
from storeguard.analytics.track_parts import TRACK_ORDER, TRACK_SCHEMA, Part, TrackParts
from storeguard.backoff import Backoff, BackoffSettings
from storeguard.errors import NotFoundError, QueryError, StorageError

_HOUR: Final = timedelta(hours=1)
_MICROSECONDS: Final = pa.timestamp("us", tz="UTC")
_RETRIES: Final = 14
_BACKOFF: Final = BackoffSettings(initial_s=0.005, max_s=0.1, jitter=0.0)
"""Waits while the writer merges or removes files: about 1 s in all."""


@dataclass(frozen=True, slots=True)
class TrackQuery:
    """Which rows of a track log. None leaves a filter out.

    Attributes:
        camera, person: ids.
        start, end: aware; rows with start <= captured_at < end.

    Raises:
        QueryError: a time has no zone, or start is after end.
    """

    camera: str | None = None
    person: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment is not None and moment.tzinfo is None:
                raise QueryError(
                    f"{name}: expected a time with its zone (such as 2026-01-31T09:30:00Z), "
                    f"found {moment.isoformat()!r}"
                )
        if self.start is not None and self.end is not None and self.start > self.end:
            raise QueryError(
                f"start: expected a time not after end ({self.end.isoformat()}), "
                f"found {self.start.isoformat()!r}"
            )


def export_tracks(folder: Path, query: TrackQuery, to: Destination) -> Exported:
    """Copy rows of a track log into a dataset of one file a day, of `TRACK_SCHEMA`.

    Rows are sorted by capture time, camera and person. The log may be written at the same time; the
    rows on disk at the start are copied. One hour of all cameras is held in memory.

    Raises:
        NotFoundError: there is no such folder.
        StorageError: a file of the log cannot be read; and as in `export_by_day`.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: expected the folder of a track log, found none")
    return export_by_day(rows_by_hour(folder, query), to)


def rows_by_hour(folder: Path, query: TrackQuery) -> Iterator[DayTable]:
    """Sorted rows of a track log in tables of at most an hour, each with its day (UTC).

    Raises:
        StorageError: a file of the log cannot be read.
    """
    # A part begins in its hour and may end after it.
    log = TrackParts(folder)
    later: list[pa.Table] = []
    for hour in sorted({_hour(part) for part in _listed(log)}):
        while later and (first := _first_hour(later)) < hour:
            now, later = _split(later, first + _HOUR)
            yield first.date(), now
        if query.end is not None and hour >= query.end:
            break
        if tables := [*later, *_read_hour(log, hour, query)]:
            now, later = _split(tables, hour + _HOUR)
            yield hour.date(), now
    while later:
        first = _first_hour(later)
        now, later = _split(later, first + _HOUR)
        yield first.date(), now


def _read_hour(log: TrackParts, hour: datetime, query: TrackQuery) -> list[pa.Table]:
    """Tables of the parts that begin in an hour, also while they are being merged."""
    for _ in _attempts():
        before = _parts_of(log, hour)
        try:
            tables = [_read(path, query) for path in before]
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(log, error) from error
        if before == _parts_of(log, hour):
            return [table for table in tables if table.num_rows]
    raise _busy(log)


def _parts_of(log: TrackParts, hour: datetime) -> list[Path]:
    return [part.path for part in _listed(log, hour.date()) if _hour(part) == hour]


def _listed(log: TrackParts, day: date | None = None) -> list[Part]:
    for _ in _attempts():
        try:
            return log.parts(day)
        except FileNotFoundError:  # merged or removed meanwhile
            continue
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(log, error) from error
    raise _busy(log)


def _attempts() -> Iterator[None]:
    """One item an attempt to read files that the log's writer may replace, with waits between."""
    backoff = Backoff(_BACKOFF)
    yield
    for _ in range(_RETRIES):
        time.sleep(backoff.next_s())
        yield


def _busy(log: TrackParts) -> StorageError:
    return StorageError(
        f"track log {log.folder}: its files changed during each of {_RETRIES + 1} attempts to read"
    )


def _unreadable(log: TrackParts, error: Exception) -> StorageError:
    return StorageError(f"track log {log.folder}: cannot be read: {error}")


def _hour(part: Part) -> datetime:
    return part.started_at.replace(minute=0, second=0)


def _first_hour(tables: list[pa.Table]) -> datetime:
    earliest: datetime = min(pc.min(table["captured_at"]).as_py() for table in tables)
    return earliest.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _split(tables: list[pa.Table], at: datetime) -> tuple[pa.Table, list[pa.Table]]:
    """Sorted rows before a moment, and the tables of later rows."""
    table = pa.concat_tables(tables).sort_by(TRACK_ORDER)
    later = pc.greater_equal(table["captured_at"], pa.scalar(at, MOMENT))
    rest = table.filter(later)
    return table.filter(pc.invert(later)), [rest] if rest.num_rows else []


def _read(path: Path, query: TrackQuery) -> pa.Table:
    condition = pc.scalar(True)
    if query.camera is not None:
        condition &= pc.field("camera_id") == query.camera
    if query.person is not None:
        condition &= pc.field("person_id") == query.person
    if query.start is not None:
        condition &= pc.field("captured_at") >= pa.scalar(query.start, _MICROSECONDS)
    if query.end is not None:
        condition &= pc.field("captured_at") < pa.scalar(query.end, _MICROSECONDS)
    # An open file, as pyarrow leaves out paths with hidden names.
    with path.open("rb") as file:
        table = pq.read_table(file, schema=TRACK_SCHEMA, filters=condition)
    return table.replace_schema_metadata(None)
