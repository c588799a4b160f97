"""Analytics over HTTP, from a real track log."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from serve.api import problems
from serve.api.analytics import analytics_router
from storeguard.analytics.track_log import TrackLog
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery, count_visitors
from storeguard.testing import FakeClock
from tests.analytics.sightings import NOON, labelled, seen


class Log:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def visitors(self, query: VisitorQuery) -> list[VisitorBucket]:
        return count_visitors(self._folder, query)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    tracks = TrackLog(tmp_path, clock=FakeClock(NOON))
    minute = timedelta(minutes=1)
    tracks.take(
        [
            labelled(seen(NOON - 30 * minute, "a", "b"), a="basket"),
            labelled(seen(NOON - 90 * minute, "c", camera="door"), c="none"),
            seen(NOON - 1000 * minute, "d"),
        ]
    )
    tracks.close()
    app = FastAPI()
    problems.install(app)
    app.include_router(
        analytics_router(Log(tmp_path), attributes=["basket", "hat"], clock=FakeClock(NOON))
    )
    return app


def get(app: FastAPI, path: str, **query: Any) -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(f"/analytics/{path}", params=query)

    return asyncio.run(request())


def test_visitors_of_the_last_day(app: FastAPI) -> None:
    answer = get(app, "visitors")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["start"], found["end"]) == (
        "2026-01-30T12:00:00.000Z",
        "2026-01-31T12:00:00.000Z",
    )
    assert (found["visitors"], found["bucket_s"], len(found["buckets"])) == (4, 3600.0, 24)
    assert found["buckets"][-1] == {"start": "2026-01-31T11:00:00.000Z", "visitors": 2}
    assert sum(one["visitors"] for one in found["buckets"]) == 4


def test_baskets_of_one_camera(app: FastAPI) -> None:
    span = {"start": "2026-01-31T10:00:00Z", "end": "2026-01-31T12:00:00Z"}
    found = get(app, "baskets", **span).json()
    assert found["attribute"] == "basket"
    assert (found["visitors"], found["labels"], found["unknown"]) == (
        3,
        {"basket": 1, "none": 1},
        1,
    )
    assert [(one["labels"], one["unknown"]) for one in found["buckets"]] == [
        ({"none": 1}, 0),
        ({"basket": 1}, 1),
    ]
    found = get(app, "baskets", camera="door", **span).json()
    assert (found["visitors"], found["labels"]) == (1, {"none": 1})
    found = get(app, "baskets", attribute="hat", **span).json()
    assert (found["labels"], found["unknown"]) == ({}, 3)


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("baskets", {"attribute": "shoes"}, 404, "there is no attribute 'shoes'; attributes: bask"),
        ("visitors", {"attribute": "basket"}, 422, "attribute"),
        ("visitors", {"bucket_s": 0}, 422, "bucket_s"),
        ("visitors", {"bucket_s": 1}, 422, "at most 2000 buckets"),
        ("visitors", {"start": "yesterday"}, 422, "RFC 3339"),
        ("visitors", {"start": "2026-02-01T00:00:00Z"}, 422, "not after end"),
        ("visitors", {"end": "0001-01-01T00:00:00Z"}, 422, "end"),
    ],
)
def test_invalid_queries_are_refused(
    app: FastAPI, path: str, query: dict[str, Any], status: int, words: str
) -> None:
    answer = get(app, path, **query)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text
