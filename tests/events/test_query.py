from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.errors import QueryError
from storeguard.events.event import EventType
from storeguard.events.query import EventQuery, cursor_of, milliseconds, position_from, position_of
from tests.events.factories import START, event

moments = st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=60)


@settings(deadline=None)
@given(moments, names, moments, names)
def test_positions_order_by_start_then_id(
    start: datetime, name: str, other_start: datetime, other_name: str
) -> None:
    ours, theirs = (milliseconds(start), name), (milliseconds(other_start), other_name)
    one, other = position_of(start, name).encode(), position_of(other_start, other_name).encode()
    # bytes of UTF-8 order as code points do, which is how Redis compares
    assert (one < other) == (ours < theirs)


@settings(deadline=None)
@given(moments, names)
def test_cursors_come_back(start: datetime, name: str) -> None:
    position = position_of(start, name)
    assert position_from(cursor_of(position)) == position


@settings(deadline=None)
@given(st.text(max_size=80))
def test_other_texts_are_no_cursors(text: str) -> None:
    with pytest.raises(QueryError, match="next_cursor"):
        position_from(text)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC), 1000),
        (datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC), 1999),  # cut off as rfc3339 does
        (datetime(1970, 1, 1, 9, 0, 1, tzinfo=timezone(timedelta(hours=9))), 1000),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=12))), 0),
        (
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=12))),
            253402343999000,
        ),
    ],
)
def test_milliseconds(moment: datetime, expected: int) -> None:
    assert milliseconds(moment) == expected


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"limit": 0}, "limit: expected 1 to 1000, found 0"),
        ({"limit": 1001}, "limit"),
        ({"start": datetime(2026, 1, 1)}, "start: expected a time with its zone"),  # noqa: DTZ001
        ({"start": START + timedelta(1), "end": START}, "start: expected a time not after end"),
        ({"camera": ""}, "camera"),
        ({"camera": "a\x00"}, "camera: expected 1 to 256 printable"),
        ({"zone": "x" * 257}, "zone"),
        ({"min_dwell_s": -1.0}, "min_dwell_s"),
        ({"min_dwell_s": float("nan")}, "min_dwell_s"),
        ({"cursor": "?"}, "cursor"),
    ],
)
def test_out_of_range(parameters: dict[str, object], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        EventQuery(**parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "admitted"),
    [
        ({}, True),
        ({"camera": "table", "zone": "zone", "person": "person", "store": "shop"}, True),
        ({"camera": "table", "zone": "other"}, False),
        ({"type": EventType.INTRUSION}, False),
        ({"min_dwell_s": 3.0}, True),
        ({"min_dwell_s": 3.1}, False),
    ],
)
def test_admits(parameters: dict[str, object], admitted: bool) -> None:
    assert EventQuery(**parameters).admits(event(1, dwell_s=3.0)) is admitted  # type: ignore[arg-type]


def test_no_dwell_is_less_than_any() -> None:
    assert not EventQuery(min_dwell_s=0.0).admits(event(1))
