from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from storeguard.analytics.dataset import Destination
from storeguard.analytics.track_log import TrackLog
from storeguard.analytics.track_parts import TRACK_SCHEMA, TrackParts
from storeguard.analytics.tracks_table import TrackQuery, export_tracks
from storeguard.errors import NotFoundError, QueryError, StorageError
from storeguard.rules.observation import Observation
from storeguard.testing import FakeClock

START = datetime(2026, 1, 31, 22, 30, tzinfo=UTC)


def seen(second: float, camera: str, *people: str) -> Observation:
    return Observation(
        camera_id=camera,
        epoch="e",
        seq=0,
        captured_at=START + timedelta(seconds=second),
        person_id=people,
        xyxy=np.full((len(people), 4), 0.25, np.float32),
        score=np.full(len(people), 0.5, np.float32),
    )


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hours over midnight, two cameras, a person a minute; parts that straddle hours."""
    folder = tmp_path_factory.mktemp("log") / "tracks"
    log = TrackLog(folder, clock=FakeClock(START), max_rows=47)
    for minute in range(180):
        log.take([seen(60 * minute, "door", "b", "a"), seen(60 * minute, "table", "c")])
        log.flush_due()
    log.close()
    return folder


def exported(tracks: Path, out: Path, query: TrackQuery) -> list[dict[str, Any]]:
    done = export_tracks(tracks, query, Destination(str(out)))
    if not done.rows:
        assert not out.exists()
        return []
    dataset = ds.dataset(out, partitioning="hive")
    assert pa.schema(list(dataset.schema)[: len(TRACK_SCHEMA)]).equals(TRACK_SCHEMA)
    files = sorted(out.rglob("*.parquet"))
    assert len(files) == done.files == len({file.parent for file in files})
    rows = [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
    assert len(rows) == done.rows
    for row, day in zip(rows, dataset.to_table()["date"].to_pylist(), strict=True):
        assert f"{row['captured_at']:%Y-%m-%d}" == day
    return rows


def test_all_rows_in_order(tracks: Path, tmp_path: Path) -> None:
    rows = exported(tracks, tmp_path / "out", TrackQuery())
    found = [(row["captured_at"], row["camera_id"], row["person_id"]) for row in rows]
    assert found == [
        (START + timedelta(minutes=minute), camera, person)
        for minute in range(180)
        for camera, person in (("door", "a"), ("door", "b"), ("table", "c"))
    ]


@pytest.mark.parametrize(
    ("query", "minutes", "people"),
    [
        (TrackQuery(camera="table"), range(180), "c"),
        (TrackQuery(person="b"), range(180), "b"),
        (TrackQuery(start=START + timedelta(minutes=100)), range(100, 180), "abc"),
        # before the end, not at it; and inside the first hour
        (TrackQuery(end=START + timedelta(minutes=2)), range(2), "abc"),
        # to the microsecond: one later leaves out the minute
        (TrackQuery(start=START + timedelta(minutes=178, microseconds=1)), range(179, 180), "abc"),
        (
            TrackQuery(camera="door", start=START + timedelta(minutes=89), end=START + timedelta(minutes=92)),
            range(89, 92),  # over midnight
            "ab",
        ),
        (TrackQuery(camera="cellar"), range(0), ""),
        (TrackQuery(start=START + timedelta(days=1)), range(0), ""),
    ],
)  # fmt: skip
def test_filters(
    tracks: Path, tmp_path: Path, query: TrackQuery, minutes: range, people: str
) -> None:
    rows = exported(tracks, tmp_path / "out", query)
    assert [(row["captured_at"], row["person_id"]) for row in rows] == [
        (START + timedelta(minutes=minute), person) for minute in minutes for person in people
    ]


def test_while_it_is_written_and_merged(tmp_path: Path) -> None:
    folder, ended = tmp_path / "tracks", threading.Event()
    clock = FakeClock(START)
    log = TrackLog(folder, clock=clock, max_rows=20)
    # So many parts are written during each export, whichever of the two is faster.
    requests, written = threading.Semaphore(0), threading.Semaphore(0)
    per_turn = 30

    def write() -> None:
        minute = 0
        while requests.acquire() and not ended.is_set():
            clock.step_wall_clock(600)
            log.take([seen(600 * minute + n, "table", "a") for n in range(20)])
            minute += 1
            if minute % 12 == 0:
                clock.advance(300)
            log.flush_due()
            written.release()

    writer = threading.Thread(target=write)
    log.take([seen(n - 3600, "table", "first") for n in range(20)])
    log.flush_due()
    writer.start()
    try:
        counts = []
        for turn in range(8):
            requests.release(per_turn)
            rows = exported(folder, tmp_path / f"out-{turn}", TrackQuery())
            times = [row["captured_at"] for row in rows]
            assert times == sorted(set(times))  # nothing twice
            assert len(times) % 20 == 0  # every row on disk
            counts.append(len(times))
            assert all(written.acquire(timeout=180) for _ in range(per_turn))
    finally:
        ended.set()
        requests.release()
        writer.join()
        log.close()
    assert counts[-1] > counts[0] > 0


def test_what_cannot_be_exported(tracks: Path, tmp_path: Path) -> None:
    to = Destination(str(tmp_path / "out"))
    with pytest.raises(NotFoundError, match="expected the folder of a track log"):
        export_tracks(tmp_path / "nowhere", TrackQuery(), to)
    naive = datetime(2026, 1, 31)  # noqa: DTZ001 - that is the point
    with pytest.raises(QueryError, match="start: expected a time with its zone"):
        TrackQuery(start=naive)
    with pytest.raises(QueryError, match="start: expected a time not after end"):
        TrackQuery(start=START, end=START - timedelta(seconds=1))
    with pytest.raises(StorageError, match="found 'date="):  # never into the log itself
        export_tracks(tracks, TrackQuery(), Destination(str(tracks), overwrite=True))
    bad = tmp_path / "log" / "date=2026-01-31" / "camera=x" / "part-20260131T223000000Z-0.parquet"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"PAR1 no PAR1")
    with pytest.raises(StorageError, match="cannot be read"):
        export_tracks(tmp_path / "log", TrackQuery(), to)
    assert TrackParts(tmp_path / "log").parts()[0].path == bad
    assert not (tmp_path / "out").exists()
