"""Events for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from storeguard.errors import StoreError
from storeguard.events.changes import Change, EventChanges
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.journal import Journal
from storeguard.events.shipper import ShipperSettings

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUICK = ShipperSettings(backoff_s=0.01, max_backoff_s=0.05, identity_s=0.05, retain_days=None)


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


def visit(number: int) -> list[Event]:
    """The versions of one event from opening to closing."""
    return [
        event(number),
        event(number, 2, dwell_s=1.0),
        event(number, 3, dwell_s=2.0, status=EventStatus.CLOSED),
    ]


class EmptyStore:
    """An event store that holds no event; while `down` it does not answer."""

    def __init__(self) -> None:
        self.down = False

    def get(self, event_id: str) -> Event | None:  # noqa: ARG002 - it has none
        if self.down:
            raise StoreError("connection refused")
        return None


def changed(journal: Journal, *changes: Change) -> Event:
    """Applies changes of one event in a journal; the event as it is then."""
    EventChanges(journal, EmptyStore()).apply(changes)
    latest = journal.latest(changes[0].event_id)
    assert latest is not None
    return latest
