"""Pictures over HTTP: the newest one, the next one, and the stream."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from fastapi import FastAPI

from serve.api.newest import PACED_HEADER
from serve.api.pictures import pictures_router
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.testing import FakeClock
from tests.serve.api.memory_system import START, Client, MemoryCameras, MemorySystem, assert_problem


class MovingCameras(MemoryCameras):
    """Cameras that have a newer picture at each request."""

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        self.pictures += 1
        return await super().picture(camera_id, query)


def test_a_snapshot_is_the_newest_picture_as_the_camera_sent_it(client: Client) -> None:
    answer = client.get("/api/v1/cameras/table/snapshot")
    assert answer.content == b"\xff\xd80"
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-captured-at"] == "2026-01-31T09:30:00Z"
    assert_problem(client.get("/api/v1/cameras/none/snapshot"), 404, "none")


def test_the_next_picture_is_newer_than_the_one_before(
    system: MemorySystem, client: Client
) -> None:
    path = "/api/v1/cameras/table/live/picture"
    first = client.get(path)
    assert first.content == b"\xff\xd8painted-0"
    assert first.headers["cache-control"] == "no-store"
    after = {"after": first.headers["x-captured-at"]}
    assert client.get(path, params=after).status_code == 204  # none is newer
    system.cameras.pictures = 7
    assert client.get(path, params=after).content == b"\xff\xd8painted-7"  # and none between
    assert_problem(client.get(path, params={"after": "yesterday"}), 422, "after")
    assert_problem(client.get("/api/v1/cameras/none/live/picture"), 404, "none")


def test_a_picture_is_due_one_step_after_the_viewers() -> None:
    query = PictureQuery(after=START, step_s=0.2)
    due = {
        seconds: query.admits(START + timedelta(seconds=seconds))
        for seconds in (-60.0, 0.0, 0.1, 0.2, 5.0)
    }
    # the clock was set back; the same picture; too early; due; overdue
    assert list(due.values()) == [True, False, False, True, True]
    assert PictureQuery().admits(START)


def test_a_picture_has_its_age() -> None:
    app = FastAPI()
    clock = FakeClock(START + timedelta(seconds=2.5))
    app.include_router(pictures_router(MemoryCameras(), live_fps=5, clock=clock))
    with Client(app, "http://127.0.0.1") as client:
        assert client.get("/cameras/table/live/picture").headers["x-age-ms"] == "2500"


def test_a_stream_that_nothing_paces_ends() -> None:
    app = FastAPI()
    app.include_router(pictures_router(MovingCameras(), live_fps=5, unpaced_s=0.0))
    with Client(app, "http://127.0.0.1") as client:
        answer = client.get("/cameras/table/live")
    assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    assert answer.content.startswith(
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 11\r\n"
    )
    assert b"X-Captured-At: 2026-01-31T09:30:01Z\r\n" in answer.content
    assert answer.content.endswith(b"\r\n\r\n\xff\xd8painted-1\r\n")


def test_a_paced_stream_goes_on() -> None:
    app = FastAPI()
    cameras = MovingCameras()
    app.include_router(pictures_router(cameras, live_fps=5, unpaced_s=0.0))
    sent: list[bytes] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/cameras/table/live",
        "query_string": b"",
        "headers": [(PACED_HEADER.encode(), b"1")],
    }

    async def scenario() -> None:
        enough = asyncio.Event()

        async def send(message: dict[str, object]) -> None:
            sent.append(bytes(message.get("body", b"")))  # type: ignore[call-overload]
            if len(sent) > 20:
                enough.set()

        async def receive() -> dict[str, str]:
            await enough.wait()
            return {"type": "http.disconnect"}

        await app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert len(sent) > 20
