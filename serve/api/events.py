"""Events over HTTP: pages, single events, their clip and snapshot, and the stream of changes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from serve.api.converted import ConvertedClips
from serve.api.media import LocalFiles, serve_object
from serve.api.protocols import EventSource, Objects
from serve.api.stream_limit import ClosingStream, StreamLimit
from storeguard.errors import NotFoundError, QueryError, RecordingError, StoreError
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.keyspace import StoredChange
from storeguard.events.query import MAX_ID, MAX_LIMIT, EventQuery

_MAX_STREAMS: Final = 128
_HEARTBEAT_S: Final = 15.0
_CHANGE_ID: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII
)


def _rfc3339_text(value: Any) -> Any:
    """Only RFC 3339 with a zone; an unescaped `+` of a query arrives as a space."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("expected a time as RFC 3339 with its zone, such as 2026-01-31T09:30:00Z")
    return f"{value[:-6]}+{value[-5:]}" if value[-6] == " " else value


FilterId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
PartNumber = Annotated[int, Query(ge=0, description="which file of the clip, from 0 for the first")]
ClipCodec = Annotated[
    Literal["h264"], Query(description="the video's codec; without it, as the camera sent it")
]
Time = Annotated[AwareDatetime, BeforeValidator(_rfc3339_text)]


class ChangeFilter(BaseModel):
    """Which events; an event has to match every filter that is set."""

    model_config = ConfigDict(extra="forbid")

    store: FilterId | None = None
    camera: FilterId | None = None
    zone: FilterId | None = None
    person: FilterId | None = None
    type: EventType | None = None
    status: EventStatus | None = None
    min_dwell_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class StreamFilter(ChangeFilter):
    """Which changes; `last_event_id` is for clients that cannot send the header."""

    last_event_id: str | None = Field(default=None, max_length=64)


class EventFilter(ChangeFilter):
    """Which events, and which page of them."""

    start: Time | None = Field(default=None, description="started_at >= start")
    end: Time | None = Field(default=None, description="started_at < end")
    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, description="next_cursor of the page before")


class EventsPage(BaseModel):
    """Events, newest first by started_at.

    A page may hold fewer events than `limit` although more follow: only a null
    `next_cursor` means the end.
    """

    events: list[Event]
    next_cursor: str | None


def events_router(events: EventSource, objects: Objects, converted: ConvertedClips) -> APIRouter:
    """The routes under ``/events``.

    Args:
        events: where events are found.
        objects: where clips and snapshots are.
        converted: clips in a codec that was requested.
    """
    router = APIRouter(prefix="/events", tags=["events"])
    _add_pages(router, events)
    _add_stream(router, events)  # before {event_id}, which would match "stream"
    _add_media(router, events, objects, converted)

    @router.get("/{event_id}")
    async def get_event(event_id: str) -> Event:
        """One event."""
        return await _existing(events, event_id)

    return router


def _add_pages(router: APIRouter, events: EventSource) -> None:
    @router.get("")
    async def list_events(filters: Annotated[EventFilter, Query()]) -> EventsPage:
        """A page of events, newest first. Paging neither skips nor repeats as events arrive."""
        page = await events.query(EventQuery(**dict(filters)))
        return EventsPage(events=list(page.events), next_cursor=page.next_cursor)


def _add_stream(router: APIRouter, events: EventSource) -> None:
    followers = StreamLimit(_MAX_STREAMS, "follow the events")

    @router.get("/stream", response_class=StreamingResponse)
    async def stream_events(
        filters: Annotated[StreamFilter, Query()],
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> StreamingResponse:
        """Changes to events as they are stored (server-sent events; data is the event as JSON).

        A reconnecting client names the last change it saw in `Last-Event-ID` and misses none. If
        that change is too long ago, an event named `reset` requests it to load a page instead.
        """
        after = last_event_id or filters.last_event_id
        if after is not None and not _CHANGE_ID.fullmatch(after):
            raise QueryError(f"Last-Event-ID: expected an id of this stream, found {after!r}")
        query = EventQuery(**filters.model_dump(exclude={"last_event_id"}))
        followers.check()
        # Subscribed before the response begins: every change stored after it is sent.
        changes = events.changes(after, idle_s=_HEARTBEAT_S)
        await anext(changes)
        missed = after is not None and await events.missed_changes(after)

        async def lines() -> AsyncIterator[str]:
            with followers.counted():
                yield "retry: 2000\n\n"
                if missed:
                    yield "event: reset\ndata: {}\n\n"
                async for line in _lines(changes, query):
                    yield line

        return ClosingStream(
            lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )


async def _lines(
    changes: AsyncIterator[StoredChange | None], query: EventQuery
) -> AsyncIterator[str]:
    try:
        async for change in changes:
            if change is None:
                yield ": still here\n\n"
            elif query.admits(change.event):
                yield f"id: {change.id}\ndata: {change.event.model_dump_json()}\n\n"
    except StoreError:  # the client comes back with its Last-Event-ID
        yield ": the event store does not answer\n\n"


def _add_media(
    router: APIRouter, events: EventSource, objects: Objects, converted: ConvertedClips
) -> None:
    @router.head("/{event_id}/clip", include_in_schema=False)
    @router.get(
        "/{event_id}/clip",
        response_class=Response,
        responses={
            HTTPStatus.OK: {"content": {"video/mp4": {}}},
            HTTPStatus.PARTIAL_CONTENT: {"description": "the bytes requested"},
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {"description": "no such bytes"},
            HTTPStatus.UNPROCESSABLE_ENTITY: {"description": "it cannot be converted"},
        },
    )
    async def get_clip(
        event_id: str, request: Request, part: PartNumber = 0, codec: ClipCodec | None = None
    ) -> Response:
        """The video kept for an event; answers Range requests and HEAD.

        A long clip, or one that was interrupted, consists of several files, in order of time: the
        clip itself is part 0, those of its `parts` follow.

        The video is as the camera sent it, in a codec that a browser may not play: HEAD names it in
        `X-Video-Codec`. `codec=h264` converts it, with its sound as AAC; the response begins when
        that is done.
        """
        uri, sha256 = _file_of(await _existing(events, event_id), part)
        if codec is None:
            answer = await serve_object(request, objects, uri, sha256=sha256)
            name = await converted.codec_of(uri) if request.method == "HEAD" else None
            if name is not None:
                answer.headers["X-Video-Codec"] = name
            return answer
        try:
            path = await converted.file_of(uri, sha256)
        except RecordingError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return await serve_object(request, LocalFiles(), str(path), sha256=path.stem)

    @router.head("/{event_id}/snapshot", include_in_schema=False)
    @router.get(
        "/{event_id}/snapshot",
        response_class=Response,
        responses={HTTPStatus.OK: {"content": {"image/jpeg": {}}}},
    )
    async def get_snapshot(event_id: str, request: Request) -> Response:
        """The still picture of an event."""
        snapshot = (await _existing(events, event_id)).snapshot
        if snapshot is None:
            raise NotFoundError(f"event {event_id!r} has no snapshot")
        return await serve_object(request, objects, snapshot.uri)


def _file_of(event: Event, part: int) -> tuple[str, str | None]:
    """URI and checksum of one file of an event's clip; raises NotFoundError."""
    clip = event.clip
    if clip is None or clip.uri is None:
        reason = "no video was requested" if clip is None else clip.error or "not stored yet"
        raise NotFoundError(f"event {event.event_id!r} has no clip: {reason}")
    files = [(clip.uri, clip.sha256), *((more.uri, more.sha256) for more in clip.parts)]
    if part >= len(files):
        last = len(files) - 1
        consists = f"{len(files)} files, parts 0 to {last}" if last else "1 file, part 0"
        raise NotFoundError(
            f"event {event.event_id!r} has no part {part} of its clip, which consists of {consists}"
        )
    return files[part]


async def _existing(events: EventSource, event_id: str) -> Event:
    event = await events.get(event_id) if len(event_id) <= MAX_ID else None
    if event is None:
        raise NotFoundError(f"there is no event {event_id[:64]!r}")
    return event
