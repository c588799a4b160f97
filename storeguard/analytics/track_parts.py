"""The track log on disk: a folder of immutable Parquet files by day and camera."""

from __future__ import annotations

import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from storeguard.analytics.events_table import MOMENT
from storeguard.files import TEMPORARY_PREFIX, sync_folder, write_atomically

_log = logging.getLogger(__name__)

TRACK_SCHEMA: Final = pa.schema(
    [
        pa.field("captured_at", MOMENT, nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        ("attributes", pa.string()),
    ]
)
"""One person in one frame. Corners are fractions 0..1 of the frame; score is the detection's.

`attributes` is a JSON object of the labels predicted so far, by attribute; null without any.
"""

TRACK_ORDER: Final = [
    ("captured_at", "ascending"),
    ("camera_id", "ascending"),
    ("person_id", "ascending"),
]

_NAME: Final = re.compile(r"part-(\d{8}T\d{6})\d{3}Z-(\d+)\.parquet")
_MERGED: Final = ".merged-"
_INPUTS: Final = b"storeguard.inputs"
_ROOM: Final = 0.9  # pruning down to this share of the bound leaves room for the next writes


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the log.

    Attributes:
        path: ``date=YYYY-MM-DD/camera=ID/part-<first row's time>-<n>.parquet`` below the folder.
        started_at: the first row's time, to the second, aware UTC.
        size: in bytes.
    """

    path: Path
    started_at: datetime
    size: int


class TrackParts:
    """Writes, merges and removes the files of one log; for one writer at a time.

    A file with a name as in `Part` is whole: it was written under a hidden name, fsynced and
    renamed. The parts of a past hour are merged into one, so that there are about 24 files a camera
    and day. `recover` takes back or finishes a merge that was cut short at any point, so no row is
    lost or doubled.

    Args:
        folder: made by the first write.

    Methods raise OSError (or ArrowException, from an unreadable file).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unreadable: set[Path] = set()

    def write(self, table: pa.Table, day: date, camera_id: str) -> Part:
        """Write rows of one day (UTC) and camera as a new part. At least one row."""
        folder = self.folder / f"date={day.isoformat()}" / f"camera={quote(camera_id, safe='')}"
        table = table.sort_by(TRACK_ORDER)
        target = _free_name(folder, table["captured_at"][0].as_py())
        size = _write_whole(table, target)
        return Part(target, _started_at(target), size)

    def parts(self, day: date | None = None) -> list[Part]:
        """All parts, or those of one day, oldest first.

        A merge that is in progress (or was cut short) counts as done: its file replaces its inputs.
        """
        where = f"date={day.isoformat() if day else '*'}/camera=*"
        paths = [
            *self.folder.glob(f"{where}/{_MERGED}part-*"),
            *self.folder.glob(f"{where}/part-*"),
        ]
        merged = [path for path in paths if path.name.startswith(_MERGED)]
        done = {path.with_name(name) for path in merged for name in _inputs(path)}
        found = [
            Part(path, _started_at(path), path.stat().st_size)
            for path in paths
            if path not in done and _NAME.fullmatch(path.name.removeprefix(_MERGED))
        ]
        return sorted(found, key=lambda part: (part.started_at, part.path))

    def free_bytes(self) -> int:
        """Free bytes of the disk that the folder is on, or will be."""
        folder = self.folder.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def recover(self) -> None:
        """Clean up after a writer that was killed. Call before the first write."""
        for path in self.folder.glob(f"date=*/camera=*/{TEMPORARY_PREFIX}*"):
            path.unlink()
        for path in self.folder.glob(f"date=*/camera=*/{_MERGED}*"):
            self._finish_merge(path)

    def merge(self, *, before: datetime) -> int:
        """Merge the parts of each hour that ended before a moment; returns the number of merges."""
        hours: defaultdict[tuple[Path, datetime], list[Part]] = defaultdict(list)
        for part in self.parts():
            hour = part.started_at.replace(minute=0, second=0)
            if hour + timedelta(hours=1) <= before and part.path not in self._unreadable:
                hours[part.path.parent, hour].append(part)
        done = 0
        for parts in hours.values():
            if len(parts) > 1:
                done += self._merge([part.path for part in parts])
        return done

    def prune(self, *, before: date, max_bytes: int) -> None:
        """Remove the days before one, and the oldest parts above a total size."""
        parts = self.parts()
        held = sum(part.size for part in parts)
        room = max_bytes if held <= max_bytes else int(max_bytes * _ROOM)
        folders = set()
        for part in parts:
            if _day(part) >= before and held <= room:
                continue
            part.path.unlink(missing_ok=True)
            held -= part.size
            folders.add(part.path.parent)
        for folder in folders:
            _remove_if_empty(folder)
            _remove_if_empty(folder.parent)

    def _merge(self, paths: Sequence[Path]) -> int:
        tables = []
        for path in paths:
            try:
                tables.append(pq.read_table(path, schema=TRACK_SCHEMA, partitioning=None))
            except (pa.ArrowException, OSError) as error:
                _log.error("track log: %s cannot be read and stays as it is: %s", path, error)
                self._unreadable.add(path)
                return 0
        names = "\n".join(path.name for path in paths).encode()
        table = pa.concat_tables(tables).sort_by(TRACK_ORDER)
        merged = paths[0].with_name(f"{_MERGED}{paths[0].name}")
        _write_whole(table.replace_schema_metadata({_INPUTS: names}), merged)
        self._finish_merge(merged)
        return 1

    @staticmethod
    def _finish_merge(merged: Path) -> None:
        """Remove the inputs of a merged file, which has all their rows, and give it its name."""
        for name in _inputs(merged):
            merged.with_name(name).unlink(missing_ok=True)
        merged.rename(merged.with_name(merged.name.removeprefix(_MERGED)))
        sync_folder(merged.parent)


def _write_whole(table: pa.Table, target: Path) -> int:
    sink = pa.BufferOutputStream()
    # Floats of neighbouring rows share their upper bytes; splitting them compresses much better.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=["camera_id", "person_id", "attributes"],
        use_byte_stream_split=["x1", "y1", "x2", "y2", "score"],
    )
    content = sink.getvalue()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content.to_pybytes())
    return int(content.size)


def _free_name(folder: Path, moment: datetime) -> Path:
    stamp = f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z"
    number = 0
    while True:
        name = f"part-{stamp}-{number}.parquet"
        if not (folder / name).exists() and not (folder / f"{_MERGED}{name}").exists():
            return folder / name
        number += 1


def _inputs(merged: Path) -> list[str]:
    names: bytes = pq.read_schema(merged).metadata[_INPUTS]
    return names.decode().split("\n")


def _started_at(path: Path) -> datetime:
    match = _NAME.fullmatch(path.name.removeprefix(_MERGED))
    if match is None:
        raise ValueError(f"{path}: expected a part of the track log")
    return datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _day(part: Part) -> date:
    return part.started_at.date()


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
