"""Events for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from storeguard.events.event import Event, EventStatus, EventType

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(name: str | int, version: int = 1, **more: Any) -> Event:
    """An open loitering event; its start follows from its name if that is a number."""
    offset = timedelta(seconds=name if isinstance(name, int) else 0)
    fields: dict[str, Any] = {
        "event_id": f"event-{name}",
        "version": version,
        "type": EventType.LOITERING,
        "status": EventStatus.OPEN,
        "store_id": "shop",
        "camera_id": "table",
        "zone_id": "zone",
        "person_id": "person",
        "started_at": START + offset,
        "updated_at": START + offset,
        **more,
    }
    return Event(**fields)
