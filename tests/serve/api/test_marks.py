"""Marking events over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve.api import problems
from serve.api.marks import marks_router
from storeguard.errors import NotFoundError
from storeguard.events.event import Event
from tests.events.factories import event


class Marks:
    def __init__(self) -> None:
        self.event = event("a")

    async def keep(self, event_id: str, *, keep: bool) -> Event:
        if event_id != self.event.event_id:
            raise NotFoundError(f"no event {event_id!r}")
        self.event = self.event.model_copy(update={"keep": keep})
        return self.event


def patch(marks: Marks, event_id: str, body: Any) -> httpx.Response:
    app = FastAPI()
    problems.install(app)
    app.include_router(marks_router(marks))

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.patch(f"/events/{event_id}", json=body)

    return asyncio.run(request())


def test_an_event_is_kept_and_released():
    marks = Marks()
    for keep in (True, False):
        answer = patch(marks, "event-a", {"keep": keep})
        assert answer.status_code == 200
        assert answer.json()["keep"] is marks.event.keep is keep


@pytest.mark.parametrize(
    ("event_id", "body", "status"),
    [
        ("event-b", {"keep": True}, 404),
        ("x" * 300, {"keep": True}, 404),
        ("event-a", {}, 422),
        ("event-a", {"keep": "perhaps"}, 422),
        ("event-a", {"keep": True, "score": 1}, 422),  # no other field can be changed
    ],
)
def test_invalid_marks_are_refused(event_id: str, body: Any, status: int):
    marks = Marks()
    answer = patch(marks, event_id, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert not marks.event.keep
