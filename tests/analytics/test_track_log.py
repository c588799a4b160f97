from __future__ import annotations

import errno
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.analytics.track_log import TrackLog, track_log
from storeguard.analytics.track_parts import TRACK_SCHEMA, TrackParts
from storeguard.config.store import StoreConfig, TrackLogSettings
from storeguard.rules.observation import Observation
from storeguard.testing import FakeClock
from tests.waiting import wait_for

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def seen(
    at: datetime, *people: str, camera: str = "table", box: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
) -> Observation:
    return Observation(
        camera_id=camera,
        epoch="e",
        seq=0,
        captured_at=at,
        person_id=people,
        xyxy=np.tile(np.array(box, np.float32), (len(people), 1)),
        score=np.full(len(people), 0.5, np.float32),
    )


def stream(start: datetime, seconds: float, *people: str, fps: float = 5.0, camera: str = "table"):
    for n in range(round(seconds * fps)):
        yield seen(start + timedelta(seconds=n / fps), *people, camera=camera)


def read(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(part.path, partitioning=None) for part in TrackParts(folder).parts()]
    return [row for table in tables for row in table.to_pylist()]


def log(folder: Path, clock: FakeClock, **more: Any) -> TrackLog:
    return TrackLog(folder, clock=clock, **more)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


def test_rows_as_they_were_seen(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock)
    tracks.take([seen(NOON, "a", "b"), seen(NOON, "c", camera="door")])
    tracks.take([seen(NOON + timedelta(seconds=1), "a", box=(0.25, 0.5, 0.75, 1.0))])
    tracks.close()
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    assert names == [
        f"date=2026-01-31/camera={camera}/part-20260131T120000000Z-0.parquet"
        for camera in ("door", "table")
    ]
    table = ds.dataset(tmp_path, partitioning="hive").to_table()
    assert table.schema.field("captured_at").type == pa.timestamp("ms", tz="UTC")
    assert pa.schema(list(table.schema)[: len(TRACK_SCHEMA)]).equals(TRACK_SCHEMA)
    found = [tuple(row.values())[:8] for row in read(tmp_path)]
    box = tuple(np.array([0.1, 0.2, 0.3, 0.5], np.float32).tolist())
    assert found == [
        (NOON, "door", "c", *box, 0.5),
        (NOON, "table", "a", *box, 0.5),
        (NOON, "table", "b", *box, 0.5),
        (NOON + timedelta(seconds=1), "table", "a", 0.25, 0.5, 0.75, 1.0, 0.5),
    ]
    stats = tracks.stats()
    assert (stats.rows, stats.parts, stats.waiting, dict(stats.dropped)) == (4, 2, 0, {})
    assert stats.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("fps", "rate_hz", "kept"),
    [
        (5.0, 1.0, 10),  # the first of five
        (0.5, 1.0, 5),  # slower than the rate: all
        (15.0, 1.0, 10),
        (30.0, 2.5, 25),
        (10.0, 60.0, 100),  # all of 10 fps
        (5.0, 0.1, 1),
    ],
)
def test_the_rate_bounds_the_rows_of_a_person(
    tmp_path: Path, clock: FakeClock, fps: float, rate_hz: float, kept: int
) -> None:
    tracks = log(tmp_path, clock, rate_hz=rate_hz)
    tracks.take(list(stream(NOON, 10, "a", "b", fps=fps)))
    tracks.close()
    assert Counter(row["person_id"] for row in read(tmp_path)) == {"a": kept, "b": kept}
    assert tracks.stats().passed_over == 2 * (round(10 * fps) - kept)


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 3000), st.sets(st.sampled_from("abc"))), max_size=40),
    rate_hz=st.sampled_from([0.3, 1.0, 3.0, 25.0]),
    repeat=st.integers(0, 40),
)
def test_one_row_a_slot_and_replays_change_nothing(
    steps: list[tuple[int, set[str]]], rate_hz: float, repeat: int
) -> None:
    at_ms, told = int(NOON.timestamp() * 1000), []
    for step_ms, people in steps:
        at_ms += step_ms
        told.append(seen(datetime.fromtimestamp(at_ms / 1000, UTC), *sorted(people)))
    expected = {
        (person, math.floor(round(one.captured_at.timestamp() * 1000) * rate_hz / 1000))
        for one in told
        for person in one.person_id
    }
    with tempfile.TemporaryDirectory() as folder:
        tracks = log(Path(folder), FakeClock(NOON), rate_hz=rate_hz, max_rows=40)
        tracks.take(told)
        tracks.flush_due()
        tracks.take(told[-repeat:])
        tracks.close()
        found = read(Path(folder))
    slots = [
        (
            row["person_id"],
            math.floor(round(row["captured_at"].timestamp() * 1000) * rate_hz / 1000),
        )
        for row in found
    ]
    assert len(slots) == len(set(slots))
    assert set(slots) == expected


def test_a_part_is_written_by_age_by_number_and_at_the_end(
    tmp_path: Path, clock: FakeClock
) -> None:
    tracks = log(tmp_path, clock, max_rows=5, max_age_s=60)

    def parts() -> int:
        tracks.flush_due()
        return len(TrackParts(tmp_path).parts())

    tracks.take(list(stream(NOON, 4, "a")))
    clock.advance(59)
    assert parts() == 0
    clock.advance(1)
    assert parts() == 1  # by age
    tracks.take(list(stream(NOON + timedelta(seconds=10), 5, "a")))
    assert parts() == 2  # by number
    tracks.take([seen(NOON + timedelta(seconds=60), "a")])
    assert parts() == 2
    tracks.close()
    assert len(read(tmp_path)) == 10
    tracks.take([seen(NOON + timedelta(seconds=70), "a", "b")])
    assert tracks.stats().dropped == {"closed": 2}


def test_midnight_parts_the_days(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock)
    midnight = NOON.replace(hour=0) + timedelta(days=1)
    tracks.take(list(stream(midnight - timedelta(seconds=3), 7, "a")))
    tracks.close()
    found = [
        pq.read_table(part.path, partitioning=None).num_rows
        for part in TrackParts(tmp_path).parts()
    ]
    assert found == [3, 4]
    days = [part.path.parent.parent.name for part in TrackParts(tmp_path).parts()]
    assert days == ["date=2026-01-31", "date=2026-02-01"]


def test_its_own_thread_writes_and_ends(tmp_path: Path, clock: FakeClock) -> None:
    tracks = TrackLog(tmp_path, clock=clock, max_rows=3)
    tracks.start()
    try:
        tracks.take(list(stream(NOON, 3, "a")))
        wait_for(lambda: tracks.stats().rows == 3)
        tracks.take([seen(NOON + timedelta(seconds=5), "a")])
    finally:
        tracks.close(timeout_s=180)
    assert len(read(tmp_path)) == 4
    assert tracks.stats().error is None


# ------------------------------------------------------------------ when the disk does not take it


def full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", [(errno.ENOSPC, "no_space"), (errno.EIO, "write_failed")])
def test_a_disk_that_takes_nothing_for_a_while(
    tmp_path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: tuple[int, str],
) -> None:
    code, cause = fault

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    tracks = log(tmp_path, clock, max_rows=10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for second in range(0, 100, 10):
            tracks.take(list(stream(NOON + timedelta(seconds=second), 10, "a")))
            clock.advance(60)
            tracks.flush_due()
        stats = tracks.stats()
        assert stats.error is not None
        assert (stats.waiting, dict(stats.dropped)) == (40, {cause: 60})
        assert read(tmp_path) == []
        assert [path.name for path in tmp_path.rglob("*part*")] == []
    clock.advance(60)
    tracks.flush_due()
    assert tracks.stats().error is None
    # What was kept is the newest, once, in order.
    assert [row["captured_at"] for row in read(tmp_path)] == [
        NOON + timedelta(seconds=second) for second in range(60, 100)
    ]
    ours = [record.levelno for record in caplog.records if "track log" in record.message]
    assert ours == [logging.ERROR, logging.WARNING]  # each once, whatever the number of tries
    tracks.close()


def test_a_camera_that_fills_the_memory_costs_no_other_one_its_rows(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = log(tmp_path, clock, max_rows=10)
    tracks.take([seen(NOON, "z", camera="quiet")])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        tracks.flush_due(everything=True)
        tracks.take(list(stream(NOON, 100, "a")))
    assert tracks.stats().dropped == {"no_space": 61}
    tracks.close()
    assert Counter(row["camera_id"] for row in read(tmp_path)) == {"table": 39, "quiet": 1}


def test_free_space_is_left_to_the_events(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path / "not" / "there", clock, min_free_bytes=2**62)
    tracks.take([seen(NOON, "a")])
    tracks.close()
    assert tracks.stats().dropped == {"no_space": 1}
    assert list(tmp_path.iterdir()) == []


def test_nothing_it_is_told_makes_it_raise(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock)
    odd = seen(NOON, "a")
    object.__setattr__(odd, "person_id", ("a", "b"))  # contradicts its arrays
    tracks.take([odd, seen(NOON, "c", camera="../../etc")])
    assert tracks.stats().dropped == {"fault": 2}
    tracks.close()
    written = list(tmp_path.rglob("*.parquet"))
    assert [path.parent.name for path in written] == ["camera=..%2F..%2Fetc"]


def test_the_stores_log_is_as_configured(tmp_path: Path, clock: FakeClock) -> None:
    config = StoreConfig(data_dir=tmp_path, tracks=TrackLogSettings(rate_hz=0.5))
    tracks = track_log(config, clock=clock)
    assert tracks is not None
    tracks.take(list(stream(NOON, 10, "a")))
    tracks.close()
    assert len(read(tmp_path / "tracks")) == 5
    off = TrackLogSettings(enabled=False)
    assert track_log(config.model_copy(update={"tracks": off})) is None


def test_impossible_settings(tmp_path: Path) -> None:
    for fault in ({"rate_hz": 0}, {"rate_hz": 61}, {"max_rows": 0}):
        with pytest.raises(ValueError, match="expected 0 < rate_hz"):
            TrackLog(tmp_path, **fault)


# ------------------------------------------------------------------ retention and merging


def test_old_days_and_too_many_bytes_go_the_oldest_first(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock, retain_days=2)
    for day in range(4):
        tracks.take(list(stream(NOON - timedelta(days=day), 5, f"p{day}")))
    tracks.flush_due(everything=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"date=2026-01-{day}" for day in (29, 30, 31)
    }
    assert tracks.stats().removed_parts == 1
    tracks.close()
    size = max(part.size for part in TrackParts(tmp_path).parts())
    bounded = log(tmp_path, clock, max_bytes=int(2.5 * size))
    bounded.flush_due()
    assert {path.name for path in tmp_path.iterdir()} == {"date=2026-01-30", "date=2026-01-31"}
    assert bounded.stats().bytes <= 2.5 * size
    bounded.close()


def test_the_bound_holds_while_it_is_written(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock, max_rows=10, max_bytes=30_000)
    for n in range(40):
        tracks.take(list(stream(NOON + timedelta(seconds=10 * n), 10, "a")))
        tracks.flush_due()
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")) <= 30_000
    newest = max(row["captured_at"] for row in read(tmp_path))
    assert newest == NOON + timedelta(seconds=399)
    tracks.close()


def test_hours_that_are_over_become_one_file(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path, clock, max_rows=60, max_age_s=60)
    for minute in range(70):  # 12:00 to 13:10
        tracks.take(list(stream(NOON + timedelta(minutes=minute), 60, "a", fps=1)))
        clock.advance(60)
        tracks.flush_due()
    starts = [part.path.name[14:18] for part in TrackParts(tmp_path).parts()]
    assert starts == ["1200", *(f"13{minute:02d}" for minute in range(10))]
    rows = read(tmp_path)
    assert [row["captured_at"] for row in rows] == [
        NOON + timedelta(seconds=n) for n in range(4200)
    ]
    assert tracks.stats().bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.parquet"))
    # Rows that come late are merged in, too.
    tracks.take([seen(NOON + timedelta(minutes=2), "late")])
    clock.advance(600)
    tracks.flush_due()
    assert sum(part.path.name[14:16] == "12" for part in TrackParts(tmp_path).parts()) == 1
    assert len(read(tmp_path)) == 4201
    tracks.close()


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_merge_that_was_cut_short_is_finished(
    tmp_path: Path, removed: int, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = TrackParts(tmp_path)
    for n in range(3):
        table = pa.Table.from_pylist([{"captured_at": NOON + timedelta(seconds=n), "camera_id": "table", "person_id": "a", "x1": 0, "y1": 0, "x2": 1, "y2": 1, "score": 1}], schema=TRACK_SCHEMA)  # fmt: skip
        parts.write(table, NOON.date(), "table")
    left = removed
    unlink = Path.unlink

    def dying(self: Path, *, missing_ok: bool = False) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        unlink(self, missing_ok=missing_ok)

    def dying_rename(self: Path, target: Path) -> Path:
        if not self.name.startswith(".part-"):
            raise KeyboardInterrupt
        return self.replace(target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        patch.setattr(Path, "rename", dying_rename)
        with pytest.raises(KeyboardInterrupt):
            parts.merge(before=NOON + timedelta(hours=2))
    assert len(read(tmp_path)) == 3  # for a reader the merge is done
    again = log(tmp_path, clock)
    again.flush_due()
    assert [path.name for path in tmp_path.rglob("*part*")] == [
        "part-20260131T120000000Z-0.parquet"
    ]
    assert [row["captured_at"].second for row in read(tmp_path)] == [0, 1, 2]
    again.close()


def test_a_file_that_is_none_is_left_alone(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    tracks = log(tmp_path, clock)
    tracks.take([seen(NOON, "a")])
    tracks.flush_due(everything=True)
    bad = TrackParts(tmp_path).parts()[0].path.with_name("part-20260131T120001000Z-0.parquet")
    bad.write_bytes(b"not Parquet")
    clock.advance(7200)
    for _ in range(3):
        clock.advance(300)
        tracks.flush_due()
    assert bad.read_bytes() == b"not Parquet"
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    tracks.close()


WRITER = """
import sys, time
from datetime import timedelta
from pathlib import Path
from tests.analytics.test_track_log import NOON, stream
from storeguard.analytics.track_log import TrackLog, track_log
from storeguard.testing import FakeClock

clock = FakeClock(NOON)
log = TrackLog(Path(sys.argv[1]), clock=clock, max_rows=40, max_age_s=1)
n = 0
while n < 400:  # whoever kills it may be late: no day is too old yet, and the pipe takes all
    at = NOON + timedelta(minutes=10 * n)
    clock.step_wall_clock(600)
    log.take(list(stream(at, 20, f"a{n}", f"b{n}", fps=1)))
    n += 1
    if n % 6 == 0:
        clock.advance(300)  # time for a sweep, which merges
    log.flush_due()
    print(n, flush=True)
time.sleep(600)
"""


def test_killed_at_any_moment_only_whole_parts_are_left(tmp_path: Path) -> None:
    seed = np.random.default_rng(7)
    for turn in range(2):
        folder = tmp_path / str(turn)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parent.parent.parent, env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
        assert writer.stdout is not None
        said = 0
        for _ in range(int(seed.integers(12, 30))):
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        said = max([said, *(int(number) for number in rest)])
        for path in folder.rglob("part-*.parquet"):
            pq.read_metadata(path)  # every visible file is whole
        for _ in range(2):  # before and after recovery
            rows = Counter((row["person_id"], row["captured_at"]) for row in read(folder))
            assert set(rows.values()) == {1}
            assert 40 * said <= len(rows) <= 40 * (said + 1)
            TrackParts(folder).recover()
        assert [path for path in folder.rglob(".*")] == []  # noqa: C416 - to be shown when not
