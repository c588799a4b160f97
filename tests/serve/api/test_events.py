"""Events over HTTP: pages, filters, single events."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serve.api.memory_system import (
    Client,
    assert_problem,
)


def test_events_are_listed_by_the_schema(client: Client) -> None:
    answer = client.get("/api/v1/events?camera=table&limit=1").json()
    assert set(answer) == {"events", "next_cursor"}
    (found,) = answer["events"]
    assert found["event_id"] == "event-3"
    assert found["started_at"] == "2026-01-31T09:30:03.000Z"
    assert found["latency_ms"] == {"capture_to_store": None}


def test_one_event(client: Client) -> None:
    assert client.get("/api/v1/events/event-2").json()["camera_id"] == "door"
    assert_problem(client.get("/api/v1/events/nobody"), 404, "nobody")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=-1", ["limit", "greater than or equal to 1", "-1"]),
        ("limit=0", ["limit"]),
        ("limit=1001", ["limit", "1000"]),
        ("limit=abc", ["limit", "abc", "integer"]),
        ("limit=" + "9" * 5000, ["limit"]),
        ("start=notadate", ["start", "RFC 3339", "notadate"]),
        ("start=2026-01-31T09:30:00", ["start", "zone"]),  # naive
        ("start=1700000000", ["start", "RFC 3339"]),  # seconds since 1970 are no date
        ("start=2026-13-31T09:30:00Z", ["start"]),
        ("start=2026-01-31T25:30:00Z", ["start"]),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", ["start", "end"]),
        ("cursor=abc", ["cursor", "next_cursor", "abc"]),
        ("cursor=" + "A" * 5000, ["cursor"]),
        ("cursor=%00", ["cursor"]),
        ("camera=", ["camera"]),
        ("camera=%00", ["camera", "printable"]),
        ("person=" + "x" * 300, ["person", "256"]),
        ("type=theft", ["type", "theft", "loitering"]),
        ("status=ajar", ["status", "open"]),
        ("min_dwell_s=-1", ["min_dwell_s"]),
        ("min_dwell_s=nan", ["min_dwell_s"]),
        ("min_dwell_s=1e999", ["min_dwell_s"]),
        ("camra=table", ["camra", "not permitted"]),  # a misspelt filter must not filter nothing
    ],
)
def test_bad_parameters_name_parameter_value_and_expectation(
    client: Client, query: str, words: list[str]
) -> None:
    assert_problem(client.get(f"/api/v1/events?{query}"), 422, *words)


@pytest.mark.parametrize(
    "query",
    [
        "start=2026-01-31T09:30:00Z",
        "start=2026-01-31T09:30:00.123456%2B09:00",
        "start=2026-01-31T09:30:00+09:00",  # the plus arrives as a space
        "start=0001-01-01T00:00:00Z&end=9999-12-31T23:59:59-12:00",
        "zone=%E5%85%A5%E5%8F%A3&type=loitering&status=open&limit=1000",
    ],
)
def test_good_parameters(client: Client, query: str) -> None:
    assert client.get(f"/api/v1/events?{query}").status_code == 200


odd = st.one_of(
    st.text(max_size=300),
    st.text(st.characters(max_codepoint=31), min_size=1),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(str),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "store",
                "camera",
                "zone",
                "person",
                "type",
                "status",
                "start",
                "end",
                "limit",
                "cursor",
                "min_dwell_s",
                "x",
            ]
        ),
        odd,
        max_size=4,
    )
)
def test_odd_parameters_never_break_it(client: Client, parameters: dict[str, str]) -> None:
    response = client.get("/api/v1/events", params=parameters)
    if response.status_code != 200:
        assert_problem(response, 422)
