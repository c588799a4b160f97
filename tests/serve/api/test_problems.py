"""Errors over HTTP that every route has in common."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.serve.api.memory_system import (
    Client,
    MemorySystem,
    assert_problem,
)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/events/%00",
        "/api/v1/events/" + "x" * 5000,
        "/api/v1/events/%F0%9F%98%80/clip",
        "/api/v1/events/../../etc/passwd",
        "/api/v1/cameras/%00",
        "/api/v1/cameras/nobody",
        "/api/v1/cameras/nobody/live",
        "/api/v1/cameras/nobody/snapshot",
        "/api/v1/nothing",
        "/nothing",
    ],
)
def test_what_is_not_there(client: Client, path: str) -> None:
    assert_problem(client.get(path), 404)


def test_a_wrong_method_names_the_possible_ones(client: Client) -> None:
    response = client.delete("/api/v1/events")
    assert_problem(response, 405, "GET")
    assert "GET" in response.headers["allow"]


def test_a_store_that_is_down_is_a_503_without_its_password(
    system: MemorySystem, client: Client
) -> None:
    system.events.down = True
    for path in ("/api/v1/events", "/api/v1/events/event-1", "/api/v1/events/stream"):
        response = client.get(path)
        assert_problem(response, 503, "connection refused")
        assert response.headers["retry-after"]
        assert "pw" not in response.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\x00\xff", b"[" * 100_000, b'{"detect_fps": 1e999}', b"NaN"]
)
def test_bodies_that_are_no_settings(client: Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/api/v1/cameras"), ("PATCH", "/api/v1/cameras/table")):
        response = client.request(method, path, content=body, headers=headers)
        assert 400 <= response.status_code < 500, response.text
        assert response.headers["content-type"] == "application/problem+json"


def test_bodies_are_bounded(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:  # no Content-Length
        for _ in range(40):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    assert_problem(
        client.post("/api/v1/cameras", content=b" " * (2 << 20), headers=headers), 413, "1048576"
    )
    assert_problem(client.post("/api/v1/cameras", content=chunks(), headers=headers), 413)
