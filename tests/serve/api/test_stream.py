"""The stream of changes over HTTP."""

from __future__ import annotations

import pytest

from tests.serve.api.memory_system import (
    Client,
    MemorySystem,
    assert_problem,
)


def test_stream_sends_filtered_changes_with_ids(system: MemorySystem, client: Client) -> None:
    response = client.get("/api/v1/events/stream?camera=table", headers={"Last-Event-ID": "0-7"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert system.events.followed == ["0-7"]
    blocks = response.text.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "retry: 2000",
        "id: 1-0",
        "id: 3-0",  # 2-0 is of another camera
        ": still here",
    ]
    assert '"event_id":"event-1"' in blocks[1]


def test_the_stream_reports_missed_changes(system: MemorySystem, client: Client) -> None:
    system.events.missed = True
    text = client.get("/api/v1/events/stream", headers={"Last-Event-ID": "1-1"}).text
    assert "event: reset" in text


@pytest.mark.parametrize("last", ["abc", "1", "1-", "9" * 40 + "-1", "1-0\x00"])
def test_stream_refuses_odd_ids(client: Client, last: str) -> None:
    assert_problem(
        client.get("/api/v1/events/stream", params={"last_event_id": last}), 422, "Last-Event-ID"
    )
