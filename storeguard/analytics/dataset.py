"""A Parquet dataset of one file a day, written whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from storeguard.errors import StorageError, StoreguardError
from storeguard.storage.objects import ObjectStore

_OURS: Final = re.compile(r"date=\d{4}-\d\d-\d\d/part-\d+\.parquet")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to write a dataset.

    Attributes:
        uri: a local path, ``file:///folder`` or ``s3://bucket/prefix``.
        overwrite: replace an earlier export at this place. Other files are never replaced.
        s3_endpoint, s3_region: as in `ObjectStore`.
    """

    uri: str
    overwrite: bool = False
    s3_endpoint: str | None = None
    s3_region: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        uri: the dataset, as a URI.
        rows, files: how many; both 0 if there were no rows, and then nothing was written.
    """

    uri: str
    rows: int
    files: int


DayTable = tuple[date, pa.Table]
"""A day (UTC) and some of its rows."""


def export_by_day(tables: Iterable[DayTable], to: Destination) -> Exported:
    """Write tables as ``date=YYYY-MM-DD/part-0.parquet`` (hive partitions, zstd).

    Consecutive tables of one day become the row groups of one file. The same tables make the same
    bytes. All files are first written to a temporary folder. A local dataset is then put in place
    by renaming that folder; into object storage the finished files are uploaded one by one.

    Args:
        tables: the rows to write; all tables have one schema.
        to: the destination.

    Raises:
        StorageError: the destination is not empty (and `overwrite` is not set, or it holds other
            files than an earlier export), or it cannot be written. Errors of `tables` pass
            through. In all these cases the destination is as it was before.
    """
    store = ObjectStore(to.uri, s3_endpoint=to.s3_endpoint, region=to.s3_region)
    local = Path(unquote(urlsplit(store.uri).path)) if store.uri.startswith("file:") else None
    before = _keys_in(local, store.uri) if local else {key for key, _ in store.list()}
    _check_replaceable(before, to, store.uri)
    with _staging(local, store.uri) as stage:
        rows, keys = _write(tables, stage)
        if not rows:
            return Exported(store.uri, 0, 0)
        if local is not None:
            _put_in_place(stage, local)
        else:
            _upload(stage, keys, store, before)
    return Exported(store.uri, rows, len(keys))


def _check_replaceable(before: set[str], to: Destination, uri: str) -> None:
    if not before:
        return
    foreign = sorted(key for key in before if not _OURS.fullmatch(key))
    if foreign:
        raise StorageError(
            f"{uri}: expected no files, or those of an earlier export, found {foreign[0]!r}"
        )
    if not to.overwrite:
        raise StorageError(
            f"{uri}: expected no files, found {len(before)} files already; "
            "--overwrite replaces them"
        )


def _keys_in(folder: Path, uri: str) -> set[str]:
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise StorageError(f"{uri}: expected a folder, found a file")
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in files}


@contextmanager
def _staging(local: Path | None, uri: str) -> Iterator[Path]:
    """A temporary folder to write in: next to a local dataset, so that it can be renamed."""
    try:
        if local is None:
            stage = Path(tempfile.mkdtemp(prefix="storeguard-export-"))
        else:
            stage = local.with_name(f".part-{uuid.uuid4().hex}")
            stage.mkdir(parents=True)  # not mkdtemp: others may read a dataset
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except StoreguardError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{uri}: cannot be written: {error}") from error


def _write(tables: Iterable[DayTable], stage: Path) -> tuple[int, list[str]]:
    """Write the tables; returns the number of rows, and the files in order of writing."""
    rows, keys = 0, list[str]()
    day: date | None = None
    file: IO[bytes] | None = None
    writer: Any = None

    def finish() -> None:
        if file is not None:
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            file.close()

    try:
        for new_day, table in tables:
            if not table.num_rows:
                continue
            if new_day != day:
                finish()
                day, file = new_day, None
                key = _free_key(stage, new_day)
                file = (stage / key).open("xb")
                writer = pq.ParquetWriter(file, table.schema, compression="zstd")
                keys.append(key)
            writer.write_table(table)
            rows += table.num_rows
        finish()
    finally:
        if file is not None and not file.closed:
            with suppress(OSError, pa.ArrowException):  # the error that led here matters more
                writer.close()
            file.close()
    return rows, keys


def _free_key(stage: Path, day: date) -> str:
    folder = stage / f"date={day.isoformat()}"
    folder.mkdir(exist_ok=True)
    return f"{folder.name}/part-{len(list(folder.iterdir()))}.parquet"


def _put_in_place(stage: Path, target: Path) -> None:
    old = target.with_name(f".old-{uuid.uuid4().hex}")
    if target.exists():
        target.rename(old)
    try:
        stage.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _upload(stage: Path, keys: list[str], store: ObjectStore, before: set[str]) -> None:
    added: list[str] = []
    try:
        for key in keys:
            if key not in before:
                added.append(key)
            store.put_file(stage / key, key)
    except StorageError:
        for key in added:
            store.delete(key)
        raise
    for key in before.difference(keys):
        store.delete(key)
