"""Cameras' pictures over HTTP: the newest one, the next one, and a stream that never lags."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from serve.api.newest import PACED_HEADER
from serve.api.protocols import CameraControl
from serve.api.stream_limit import ClosingStream, StreamLimit
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.clock import Clock, SystemClock
from storeguard.errors import OverloadedError

_MAX_VIEWERS: Final = 32
_FIRST_PICTURE_S: Final = 10.0
_NEXT_PICTURE_S: Final = 10.0
_UNPACED_S: Final = 60.0
_EARLY: Final = 0.75  # pictures of a camera at the viewers' rate are not exactly one step apart
_BOUNDARY: Final = "frame"
_JPEG: Final[dict[str, Any]] = {"content": {"image/jpeg": {}}}

After = Annotated[
    AwareDatetime | None, Query(description="X-Captured-At of the picture before this one")
]


def pictures_router(
    cameras: CameraControl,
    *,
    live_fps: float,
    clock: Clock | None = None,
    unpaced_s: float = _UNPACED_S,
) -> APIRouter:
    """The routes of pictures under ``/cameras``.

    Args:
        cameras: the running cameras.
        live_fps: pictures a second at most, in the live view.
        clock: for the age of pictures; None is the machine's.
        unpaced_s: how long a stream lasts that does not pass through `NewestOnly`, and whose
            viewer may be reading slowly without anything to show it.
    """
    clock = clock or SystemClock()
    router = APIRouter(prefix="/cameras", tags=["cameras"])
    viewers = StreamLimit(_MAX_VIEWERS, "watch")
    step_s = _EARLY / live_fps

    @router.get("/{camera_id}/snapshot", response_class=Response, responses={HTTPStatus.OK: _JPEG})
    async def get_snapshot(camera_id: str) -> Response:
        """The camera's newest picture, as the camera sent it."""
        picture = await cameras.picture(camera_id, PictureQuery(overlay=False))
        if picture is None:
            raise OverloadedError(f"camera {camera_id!r}: there is no picture yet")
        return _response(picture, clock)

    @router.get(
        "/{camera_id}/live/picture",
        response_class=Response,
        responses={
            HTTPStatus.OK: _JPEG,
            HTTPStatus.NO_CONTENT: {"description": "no newer picture within 10 s"},
        },
    )
    async def get_next_picture(camera_id: str, after: After = None) -> Response:
        """The newest live picture, with boxes and zones; waits for one after `after`.

        A viewer that requests one picture after the other never sees an old one, however slow it
        is. `X-Captured-At` is the capture time, `X-Age-Ms` the picture's age when it was sent.
        """
        viewers.check()
        query = PictureQuery(after=after, step_s=step_s, wait_s=_NEXT_PICTURE_S)
        with viewers.counted():
            picture = await cameras.picture(camera_id, query)
        if picture is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return _response(picture, clock)

    @router.get("/{camera_id}/live", response_class=StreamingResponse)
    async def watch_live(camera_id: str, request: Request) -> StreamingResponse:
        """The camera's pictures as they arrive (MJPEG), for an `<img>`.

        A viewer that reads slowly gets fewer pictures, each the newest; one that stops reading is
        disconnected after 10 s. Behind a Serve proxy that was started without Storeguard's
        middleware, which holds nothing back, a stream ends after a minute.
        """
        viewers.check()
        # Waiting for the first picture before responding lets a failure have its own status.
        first = await cameras.picture(camera_id, PictureQuery(wait_s=_FIRST_PICTURE_S))
        if first is None:
            raise OverloadedError(f"camera {camera_id!r}: no picture within {_FIRST_PICTURE_S:g} s")
        lasts_s = None if PACED_HEADER in request.headers else unpaced_s

        async def parts() -> AsyncIterator[bytes]:
            until_s = None if lasts_s is None else time.monotonic() + lasts_s
            after = first.captured_at
            with viewers.counted():
                yield _part(first, clock)
                while until_s is None or time.monotonic() < until_s:
                    query = PictureQuery(after=after, step_s=step_s, wait_s=_NEXT_PICTURE_S)
                    picture = await cameras.picture(camera_id, query)
                    if picture is not None:
                        after = picture.captured_at
                        yield _part(picture, clock)

        return ClosingStream(parts(), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    return router


def _headers(picture: LivePicture, clock: Clock) -> dict[str, str]:
    age_ms = (clock.now() - picture.captured_at) / timedelta(milliseconds=1)
    return {
        "X-Captured-At": picture.captured_at.isoformat().replace("+00:00", "Z"),
        "X-Age-Ms": f"{max(0.0, age_ms):.0f}",
    }


def _response(picture: LivePicture, clock: Clock) -> Response:
    headers = {**_headers(picture, clock), "Cache-Control": "no-store"}
    return Response(picture.jpeg, media_type="image/jpeg", headers=headers)


def _part(picture: LivePicture, clock: Clock) -> bytes:
    headers = {
        "Content-Type": "image/jpeg",
        "Content-Length": str(len(picture.jpeg)),
        **_headers(picture, clock),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"--{_BOUNDARY}\r\n{head}\r\n".encode() + picture.jpeg + b"\r\n"
