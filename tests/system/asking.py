"""What a running store's API says, asked so that a test can wait for it."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx

from serve.runner import free_port
from tests.waiting import wait_for

START_S = 400.0
"""For what comes first: a dozen processes start on a busy machine before there is a picture."""

PATIENT_TRACKER = {"max_lost_s": 60.0, "gate": 10.0}
"""Nobody in view is lost sight of, however long a busy machine takes from frame to frame."""

_PATIENCE_S = 120.0


class _Patient(httpx.HTTPTransport):
    """Asks again while Serve's proxy does not listen or knows no route yet, and where the store
    has no answer right now (503 with Retry-After) to what may be asked twice.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                answer = super().handle_request(request)
            except httpx.ConnectError:
                if time.monotonic() >= until_s:
                    raise
            else:
                if not _is_for_later(request, answer) or time.monotonic() >= until_s:
                    return answer
                answer.close()
            time.sleep(0.5)


def _is_for_later(request: httpx.Request, answer: httpx.Response) -> bool:
    if "json" not in answer.headers.get("content-type", ""):  # not the store's, but the proxy's
        return answer.status_code == 404
    return (
        answer.status_code == 503
        and "retry-after" in answer.headers
        and request.method in {"GET", "HEAD", "PATCH"}
    )


def client(url: str) -> httpx.Client:
    """Asks the store at an address, and waits where a busy machine needs time."""
    return httpx.Client(base_url=url, timeout=120, transport=_Patient())


def port() -> int:
    """A port for a store that binds it seconds later: below those that the kernel hands out."""
    return free_port("127.0.0.1", random.randint(20_000, 30_000))


def events(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """All events that a query finds, newest first."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = api.get("/api/v1/events", params={"limit": 1000, **query, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["events"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def camera(api: httpx.Client, camera_id: str) -> dict[str, Any]:
    """How a camera is doing."""
    answer = api.get("/api/v1/cameras")
    assert answer.status_code == 200, answer.text
    return next(one for one in answer.json()["cameras"] if one["id"] == camera_id)


def add_camera(api: httpx.Client, settings: dict[str, Any]) -> None:
    """Add a camera. One that was not answered in time may be there when it is asked again."""
    answer = api.post("/api/v1/cameras", json=settings)
    done = {201}
    if answer.status_code == 503:
        answer, done = _answered(api, "POST", "/api/v1/cameras", settings), {201, 409}
    assert answer.status_code in done, answer.text


def remove_camera(api: httpx.Client, camera_id: str) -> None:
    """Remove a camera. One that was not answered in time may be gone when it is asked again."""
    path = f"/api/v1/cameras/{camera_id}"
    answer = api.delete(path)
    done = {204}
    if answer.status_code == 503:
        answer, done = _answered(api, "DELETE", path), {204, 404}
    assert answer.status_code in done, answer.text


def _answered(api: httpx.Client, method: str, path: str, content: Any = None) -> httpx.Response:
    def answer() -> httpx.Response | None:
        given = api.request(method, path, json=content)
        return None if given.status_code == 503 else given

    found: httpx.Response = wait_for(answer)
    return found


def metric(api: httpx.Client, wanted: str) -> float:
    """A metric's value; -1 while nobody tells it.

    Args:
        api: the store's.
        wanted: how the metric's line begins: its name, and its labels if it has any.
    """
    lines = api.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), -1.0)


def health(api: httpx.Client, part: str) -> str | None:
    """A part's status in /healthz; None while it is not told."""
    told: dict[str, str] = api.get("/healthz").json()["parts"].get(part, {})
    return told.get("status")
