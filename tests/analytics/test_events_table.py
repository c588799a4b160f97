from __future__ import annotations

import json
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.analytics.dataset import Destination
from storeguard.analytics.events_table import EVENT_SCHEMA, events_table, export_events
from storeguard.errors import StoreError
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, EventType, ModelRef

START = datetime(2026, 1, 31, 23, 59, 59, 250_000, tzinfo=UTC)

TIMES = st.datetimes(datetime(2026, 1, 29), datetime(2026, 2, 2), timezones=st.just(UTC)).map(  # noqa: DTZ001 - strategies take naive bounds
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FRACTIONS = st.floats(0, 1, width=32)
PARTS = st.builds(ClipPart, uri=TEXTS, start=TIMES, end=TIMES, sha256=st.none() | TEXTS)
CLIPS = st.builds(
    ClipRef,
    uri=st.none() | TEXTS,
    start=st.none() | TIMES,
    requested_end=st.none() | TIMES,
    error=st.none() | TEXTS,
    parts=st.lists(PARTS, max_size=2).map(tuple),
)
EVENTS = st.builds(
    Event,
    event_id=st.uuids().map(str),
    version=st.integers(1, 2**31 - 1),
    type=st.sampled_from(EventType),
    status=st.sampled_from(EventStatus),
    store_id=TEXTS,
    camera_id=TEXTS,
    zone_id=st.none() | TEXTS,
    person_id=st.none() | TEXTS,
    started_at=TIMES,
    ended_at=st.none() | TIMES,
    updated_at=TIMES,
    dwell_s=st.none() | st.floats(0, 1e6),
    score=st.none() | st.floats(0, 1),
    box_xyxy=st.none() | st.tuples(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS),
    model=st.none() | st.builds(ModelRef, name=TEXTS, sha256=TEXTS),
    rule=st.dictionaries(TEXTS, JSON, max_size=3),
    attributes=st.dictionaries(TEXTS, JSON, max_size=3),
    clip=st.none() | CLIPS,
    keep=st.booleans(),
)


def event(number: int, started_at: datetime = START, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": f"event-{number}",
        "version": 1,
        "type": EventType.LOITERING,
        "status": EventStatus.OPEN,
        "store_id": "shop",
        "camera_id": "table",
        "started_at": started_at,
        "updated_at": started_at,
    }
    return Event(**fields | more)


def pages_of(events: list[Event], size: int = 1000) -> list[list[dict[str, Any]]]:
    """As the API returns them."""
    newest = sorted(events, key=lambda one: (one.started_at, one.event_id), reverse=True)
    documents = [one.model_dump(mode="json") for one in newest]
    return [documents[at : at + size] for at in range(0, len(documents), size)]


def read_back(folder: Path) -> list[Event]:
    rows = ds.dataset(folder, partitioning="hive").to_table().to_pylist()
    for row in rows:
        assert row.pop("date") == f"{row['started_at']:%Y-%m-%d}"
        row |= {name: json.loads(row[name]) for name in ("rule", "attributes")}
    return [Event(**row) for row in rows]


@settings(max_examples=25, deadline=None)
@given(
    events=st.lists(EVENTS, max_size=6, unique_by=lambda one: one.event_id), size=st.integers(1, 4)
)
def test_what_is_read_back_is_what_was_exported(events: list[Event], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        done = export_events(pages_of(events, size), Destination(str(out)))
        assert done.rows == len(events)
        assert done.files == len({one.started_at.date() for one in events})
        found = read_back(out) if events else []
    assert found == sorted(events, key=lambda one: (one.started_at, one.event_id))


def test_the_day_is_of_utc_and_columns_are_typed(tmp_path: Path) -> None:
    tokyo = START.astimezone().replace(tzinfo=None)  # a moment written with another zone
    events = [event(1), event(2, START + timedelta(seconds=1)), event(3, tokyo.astimezone())]
    export_events(pages_of(events), Destination(str(tmp_path / "out")))
    dataset = ds.dataset(tmp_path / "out", partitioning="hive")
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("*.parquet")) == [
        f"date={day}" for day in (date(2026, 1, 31), date(2026, 2, 1))
    ]
    found = pa.schema([field for field in dataset.schema if field.name != "date"])
    assert found.equals(EVENT_SCHEMA)
    assert found.field("box_xyxy").type == pa.list_(pa.float32(), 4)
    assert found.field("clip").type.field("start").type == pa.timestamp("ms", tz="UTC")


def test_the_same_events_make_the_same_bytes_however_they_are_paged(tmp_path: Path) -> None:
    events = [event(n, START + timedelta(hours=n % 5), rule={"b": 1, "a": n}) for n in range(40)]
    contents = []
    for size in (1, 7, 1000):
        pages = pages_of(events, size)
        pages.insert(1, [])  # a page may be empty although more follow
        export_events(pages, Destination(str(tmp_path / str(size))))
        files = sorted((tmp_path / str(size)).rglob("*.parquet"))
        ids = [pa.parquet.read_table(file)["event_id"].to_pylist() for file in files]
        assert sum(len(found) for found in ids) == 40
        contents.append(ids)
    assert contents[0] == contents[1] == contents[2]
    for size in (7, 1000):
        export_events(pages_of(events, size), Destination(str(tmp_path / f"again-{size}")))
    one, other = (sorted((tmp_path / f"again-{size}").rglob("*.parquet")) for size in (7, 1000))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_times_are_cut_to_milliseconds_as_in_json() -> None:
    table = events_table([event(1, START.replace(microsecond=999_999))])
    assert table["started_at"][0].as_py().microsecond == 999_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mood": "sad"}, "mood: Extra"),  # a newer server
        ({"type": "earthquake"}, "type: Input should be"),
        ({"started_at": "yesterday"}, "started_at"),
    ],
)
def test_an_item_that_is_not_an_event_ends_the_export(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    document = event(1).model_dump(mode="json") | change
    with pytest.raises(StoreError, match=f"'event-1': {message}"):
        export_events([[document]], Destination(str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []
