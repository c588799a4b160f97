"""Changes to events over HTTP: whether retention keeps their files."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from serve.api.protocols import EventMarks
from storeguard.errors import NotFoundError
from storeguard.events.event import Event
from storeguard.events.query import MAX_ID


class Marks(BaseModel):
    """What may be changed about an event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: bool
    """Retention never deletes the clip and the picture of an event that is kept."""


def marks_router(events: EventMarks) -> APIRouter:
    """The route that changes ``/events/{id}``."""
    router = APIRouter(prefix="/events", tags=["events"])

    @router.patch("/{event_id}")
    async def mark_event(event_id: str, marks: Marks) -> Event:
        """Keep an event's clip and picture whatever their age, or leave them to retention again."""
        if len(event_id) > MAX_ID:
            raise NotFoundError(f"there is no event {event_id[:64]!r}")
        return await events.keep(event_id, keep=marks.keep)

    return router
