"""People counted from a real track log."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from storeguard.analytics.track_log import TrackLog
from storeguard.analytics.visitors import MAX_BUCKETS, VisitorBucket, VisitorQuery, count_visitors
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.errors import QueryError
from storeguard.events.event import ModelRef
from storeguard.rules.observation import Observation
from storeguard.testing import FakeClock
from tests.analytics.test_track_log import NOON, read, seen

BY = ModelRef(name="m", sha256="1" * 64)
HOUR = timedelta(hours=1)


def told(observation: Observation, **labels: str) -> Observation:
    attributes = {
        person: (AttributePrediction("basket", label, 1.0, 3, BY),)
        for person, label in labels.items()
    }
    return replace(observation, attributes=attributes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noon: a and b; a takes a basket. One o'clock: a still, c at the door; d at half past two."""
    tracks = TrackLog(tmp_path / "tracks", clock=FakeClock(NOON))
    minute = timedelta(minutes=1)
    tracks.take(
        [
            seen(NOON, "a", "b"),
            told(seen(NOON + 2 * minute, "a", "b"), a="none"),
            told(seen(NOON + 4 * minute, "a", "b"), a="basket", b="none"),
            seen(NOON + 61 * minute, "a"),
            told(seen(NOON + 70 * minute, "c", camera="door"), c="basket"),
            seen(NOON + 150 * minute, "d"),
        ]
    )
    tracks.close()
    return tmp_path / "tracks"


def test_labels_are_on_the_rows(folder: Path) -> None:
    rows = [(row["person_id"], row["attributes"]) for row in read(folder)]
    assert ("a", '{"basket": "none"}') in rows
    assert ("a", '{"basket": "basket"}') in rows
    assert ("d", None) in rows


def test_each_counts_once_where_first_seen(folder: Path) -> None:
    wanted = VisitorQuery(NOON, NOON + 3 * HOUR, attribute="basket")
    assert count_visitors(folder, wanted) == [
        VisitorBucket(NOON, 2, {"basket": 1, "none": 1}),
        VisitorBucket(NOON + HOUR, 1, {"basket": 1}),
        VisitorBucket(NOON + 2 * HOUR, 1, {}),
    ]
    assert [one.unknown for one in count_visitors(folder, wanted)] == [0, 0, 1]


def test_without_an_attribute_no_labels_are_counted(folder: Path) -> None:
    buckets = count_visitors(folder, VisitorQuery(NOON, NOON + HOUR))
    assert buckets == [VisitorBucket(NOON, 2)]


@pytest.mark.parametrize(
    ("minutes", "bucket_s", "camera", "visitors"),
    [
        ((0, 180), 3600, "table", [2, 0, 1]),
        ((0, 180), 3600, "door", [0, 1, 0]),
        ((0, 180), 3600, "attic", [0, 0, 0]),
        ((0, 180), 7200, None, [3, 1]),  # the last bucket is shorter
        ((3, 180), 86400, None, [4]),
        (
            (60, 90),
            600,
            None,
            [1, 1, 0],
        ),  # a was there before: counted where first seen from then on
        ((200, 260), 3600, None, [0]),
    ],
)
def test_spans_and_cameras(
    folder: Path,
    minutes: tuple[int, int],
    bucket_s: float,
    camera: str | None,
    visitors: list[int],
) -> None:
    start, end = (NOON + timedelta(minutes=one) for one in minutes)
    found = count_visitors(folder, VisitorQuery(start, end, bucket_s=bucket_s, camera=camera))
    assert [one.visitors for one in found] == visitors
    assert [one.start for one in found] == [
        start + n * timedelta(seconds=bucket_s) for n in range(len(visitors))
    ]


def test_a_log_that_is_not_there_yet_holds_nobody(tmp_path: Path) -> None:
    (bucket,) = count_visitors(tmp_path / "none", VisitorQuery(NOON, NOON + HOUR))
    assert bucket.visitors == 0


def test_parts_of_before_there_were_attributes_are_read(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.drop_columns(["attributes"]), path)
    (bucket,) = count_visitors(folder, VisitorQuery(NOON, NOON + HOUR, attribute="basket"))
    assert (bucket.visitors, bucket.labels) == (2, {})


@pytest.mark.parametrize(
    ("start", "end", "bucket_s", "says"),
    [
        (NOON, NOON, 60, "before end"),
        (NOON + HOUR, NOON, 60, "not after end"),
        (NOON.replace(tzinfo=None), NOON, 60, "with its zone"),
        (NOON, NOON + timedelta(seconds=MAX_BUCKETS + 1), 1, "at most 2000 buckets"),
    ],
)
def test_impossible_spans(start: datetime, end: datetime, bucket_s: float, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        VisitorQuery(start, end, bucket_s=bucket_s)


def test_other_zones_of_time_mean_the_same(folder: Path) -> None:
    start = NOON.astimezone(timezone(timedelta(hours=9)))
    (bucket,) = count_visitors(folder, VisitorQuery(start, start + HOUR))
    assert (bucket.start, bucket.start.tzinfo, bucket.visitors) == (NOON, UTC, 2)
