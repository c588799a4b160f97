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
from storeguard.testing import FakeClock
from tests.analytics.sightings import NOON, read, seen, stream
from tests.waiting import wait_for


def log(folder: Path, clock: FakeClock, **more: Any) -> TrackLog:
    return TrackLog(folder, clock=clock, **more)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


def test_rows_are_the_observations(tmp_path: Path, clock: FakeClock) -> None:
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
    at_ms, sightings = int(NOON.timestamp() * 1000), []
    for step_ms, people in steps:
        at_ms += step_ms
        sightings.append(seen(datetime.fromtimestamp(at_ms / 1000, UTC), *sorted(people)))
    expected = {
        (person, math.floor(round(one.captured_at.timestamp() * 1000) * rate_hz / 1000))
        for one in sightings
        for person in one.person_id
    }
    with tempfile.TemporaryDirectory() as folder:
        tracks = log(Path(folder), FakeClock(NOON), rate_hz=rate_hz, max_rows=40)
        tracks.take(sightings)
        tracks.flush_due()
        tracks.take(sightings[-repeat:])
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


def test_a_new_part_begins_at_midnight(tmp_path: Path, clock: FakeClock) -> None:
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


def test_the_logs_thread_writes_and_ends(tmp_path: Path, clock: FakeClock) -> None:
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


# ------------------------------------------------------------------ when the disk cannot be written


def full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fault", [(errno.ENOSPC, "no_space"), (errno.EIO, "write_failed")])
def test_a_disk_that_cannot_be_written_for_a_while(
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
    assert ours == [logging.ERROR, logging.WARNING]  # each once, whatever the number of attempts
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


def test_free_space_is_reserved_for_events(tmp_path: Path, clock: FakeClock) -> None:
    tracks = log(tmp_path / "not" / "there", clock, min_free_bytes=2**62)
    tracks.take([seen(NOON, "a")])
    tracks.close()
    assert tracks.stats().dropped == {"no_space": 1}
    assert list(tmp_path.iterdir()) == []


def test_no_observation_makes_it_raise(tmp_path: Path, clock: FakeClock) -> None:
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


def test_old_days_and_excess_bytes_are_removed_oldest_first(
    tmp_path: Path, clock: FakeClock
) -> None:
    tracks = log(tmp_path, clock, retain_days=2)
    for day in range(4):
        tracks.take(list(stream(NOON - timedelta(days=day), 5, f"p{day}")))
    tracks.flush_due(everything=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"date=2026-01-{day}" for day in (29, 30, 31)
    }
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


def test_past_hours_become_one_file(tmp_path: Path, clock: FakeClock) -> None:
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
    # Rows that arrive late are merged too.
    tracks.take([seen(NOON + timedelta(minutes=2), "late")])
    clock.advance(600)
    tracks.flush_due()
    assert sum(part.path.name[14:16] == "12" for part in TrackParts(tmp_path).parts()) == 1
    assert len(read(tmp_path)) == 4201
    tracks.close()


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_a_merge_that_was_cut_short_is_finished(
    tmp_path: Path, removed: int, clock: FakeClock
) -> None:
    parts = TrackParts(tmp_path)
    for n in range(3):
        table = pa.Table.from_pylist([{"captured_at": NOON + timedelta(seconds=n), "camera_id": "table", "person_id": "a", "x1": 0, "y1": 0, "x2": 1, "y2": 1, "score": 1}], schema=TRACK_SCHEMA)  # fmt: skip
        parts.write(table, NOON.date(), "table")
    inputs = {part.path: part.path.read_bytes() for part in parts.parts()}
    assert parts.merge(before=NOON + timedelta(hours=2)) == 1
    # As a process leaves it that is killed after it removed so many of the merge's inputs.
    (merged,) = [part.path for part in parts.parts()]
    merged.rename(merged.with_name(f".merged-{merged.name}"))
    for path, content in list(inputs.items())[removed:]:
        path.write_bytes(content)
    assert len(read(tmp_path)) == 3  # for a reader the merge is done
    restarted = log(tmp_path, clock)
    restarted.flush_due()
    assert [path.name for path in tmp_path.rglob("*part*")] == [
        "part-20260131T120000000Z-0.parquet"
    ]
    assert [row["captured_at"].second for row in read(tmp_path)] == [0, 1, 2]
    restarted.close()


def test_a_file_that_is_not_parquet_stays(
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
from tests.analytics.sightings import NOON, stream
from storeguard.analytics.track_log import TrackLog, track_log
from storeguard.testing import FakeClock

clock = FakeClock(NOON)
log = TrackLog(Path(sys.argv[1]), clock=clock, max_rows=40, max_age_s=1)
n = 0
while n < 400:  # so that no day is too old yet, and the pipe holds all output, if the kill is late
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


def test_a_kill_at_any_moment_leaves_only_whole_parts(tmp_path: Path) -> None:
    seed = np.random.default_rng(7)
    for turn in range(2):
        folder = tmp_path / str(turn)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parent.parent.parent, env={**os.environ, "PYTHONPATH": "."},
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            written = 0
            for _ in range(int(seed.integers(12, 30))):
                written = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
        written = max([written, *(int(number) for number in rest)])
        for path in folder.rglob("part-*.parquet"):
            pq.read_metadata(path)  # every visible file is whole
        for _ in range(2):  # before and after recovery
            rows = Counter((row["person_id"], row["captured_at"]) for row in read(folder))
            assert set(rows.values()) == {1}
            assert 40 * written <= len(rows) <= 40 * (written + 1)
            TrackParts(folder).recover()
        assert [path for path in folder.rglob(".*")] == []  # noqa: C416 - to be shown when not
