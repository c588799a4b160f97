from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from storeguard.analytics.dataset import DayTable, Destination, export_by_day
from storeguard.errors import QueryError, StorageError
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Process, running_s3

FIRST, SECOND = date(2026, 1, 30), date(2026, 1, 31)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with running_s3(tmp_path_factory.mktemp("s3")) as server:
            yield server


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int32())})


def rows(folder: Path) -> list[tuple[int, str]]:
    table = ds.dataset(folder, partitioning="hive").to_table()
    return list(zip(table["n"].to_pylist(), table["date"].to_pylist(), strict=True))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("as_uri", [False, True], ids=["path", "file uri"])
@pytest.mark.parametrize("state", ["nothing", "an empty folder"])
def test_a_file_a_day(tmp_path: Path, as_uri: bool, state: str) -> None:
    out = tmp_path / "with space" / "out"
    if state == "an empty folder":
        out.mkdir(parents=True)
    tables = [
        (FIRST, numbers(1, 2)),
        (FIRST, numbers(3)),
        (SECOND, numbers()),
        (SECOND, numbers(4)),
    ]
    done = export_by_day(tables, Destination(out.as_uri() if as_uri else str(out)))
    assert (done.uri, done.rows, done.files) == (out.as_uri(), 4, 2)
    assert rows(out) == [(1, "2026-01-30"), (2, "2026-01-30"), (3, "2026-01-30"), (4, "2026-01-31")]
    assert names(out.parent) == [
        "out",
        *(f"out/date={day}{file}" for day in (FIRST, SECOND) for file in ("", "/part-0.parquet")),
    ]


def test_a_day_that_returns_gets_another_file(tmp_path: Path) -> None:
    tables = [(FIRST, numbers(1)), (SECOND, numbers(2)), (FIRST, numbers(3))]
    assert export_by_day(tables, Destination(str(tmp_path / "out"))).files == 3
    assert sorted(n for n, _ in rows(tmp_path / "out")) == [1, 2, 3]


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    done = export_by_day([(FIRST, numbers())], Destination(str(tmp_path / "out")))
    assert (done.rows, done.files) == (0, 0)
    assert names(tmp_path) == []


def test_an_earlier_export_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_by_day([(FIRST, numbers(1)), (SECOND, numbers(2))], Destination(str(out)))
    with pytest.raises(StorageError, match="2 files already; --overwrite"):
        export_by_day([(FIRST, numbers(9))], Destination(str(out)))
    assert [n for n, _ in rows(out)] == [1, 2]
    export_by_day([(SECOND, numbers(9))], Destination(str(out), overwrite=True))
    assert rows(out) == [(9, "2026-01-31")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_by_day([(FIRST, numbers(1))], Destination(str(out)))
    (out / "thesis.odt").write_text("years of work")
    before = names(tmp_path)
    with pytest.raises(StorageError, match=r"found 'thesis\.odt'"):
        export_by_day([(FIRST, numbers(2))], Destination(str(out), overwrite=True))
    assert names(tmp_path) == before
    with pytest.raises(StorageError, match="found a file"):
        export_by_day([(FIRST, numbers(2))], Destination(str(out / "thesis.odt"), overwrite=True))


def test_a_failure_halfway_leaves_the_earlier_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_by_day([(FIRST, numbers(1))], Destination(str(out)))

    def broken() -> Iterator[DayTable]:
        yield FIRST, numbers(2)
        yield SECOND, numbers(3)
        raise QueryError("no more")

    with pytest.raises(QueryError):
        export_by_day(broken(), Destination(str(out), overwrite=True))
    assert rows(out) == [(1, "2026-01-30")]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        export_by_day([(FIRST, numbers(1))], Destination("/proc/storeguard/out"))


def test_into_object_storage(s3: S3Process) -> None:
    def read() -> list[int]:
        found = ds.dataset(f"{BUCKET}/export", filesystem=s3.filesystem(), partitioning="hive")
        return sorted(found.to_table()["n"].to_pylist())

    def to(**more: bool) -> Destination:
        return Destination(f"s3://{BUCKET}/export", s3_endpoint=s3.endpoint, **more)

    done = export_by_day([(FIRST, numbers(1)), (SECOND, numbers(2))], to())
    assert (done.uri, done.rows) == (f"s3://{BUCKET}/export", 2)
    assert read() == [1, 2]
    with pytest.raises(StorageError, match="--overwrite"):
        export_by_day([(FIRST, numbers(3))], to())
    export_by_day([(FIRST, numbers(3))], to(overwrite=True))
    assert read() == [3]
    removed = s3.filesystem().get_file_info(f"{BUCKET}/export/date=2026-01-31/part-0.parquet")
    assert removed.type is fs.FileType.NotFound
