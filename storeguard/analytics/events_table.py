"""Events as Arrow tables, and their export to Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from storeguard.analytics.dataset import DayTable, Destination, Exported, export_by_day
from storeguard.errors import StoreError
from storeguard.events.event import Event

MOMENT: Final = pa.timestamp("ms", tz="UTC")
"""Times in exported tables: milliseconds, UTC, truncated as in an event's JSON."""

_SPAN: Final = [("uri", pa.string()), ("start", MOMENT), ("end", MOMENT)]

EVENT_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("store_id", pa.string(), nullable=False),
        pa.field("camera_id", pa.string(), nullable=False),
        ("zone_id", pa.string()),
        ("person_id", pa.string()),
        pa.field("started_at", MOMENT, nullable=False),
        ("ended_at", MOMENT),
        pa.field("updated_at", MOMENT, nullable=False),
        ("dwell_s", pa.float64()),
        ("score", pa.float64()),
        ("box_xyxy", pa.list_(pa.float32(), 4)),
        ("model", pa.struct([("name", pa.string()), ("sha256", pa.string())])),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),
        (
            "clip",
            pa.struct(
                [
                    *_SPAN,
                    ("requested_start", MOMENT),
                    ("requested_end", MOMENT),
                    ("sha256", pa.string()),
                    ("error", pa.string()),
                    ("parts", pa.list_(pa.struct([*_SPAN, ("sha256", pa.string())]))),
                ]
            ),
        ),
        ("snapshot", pa.struct([("uri", pa.string())])),
        ("latency_ms", pa.struct([("capture_to_store", pa.float64())])),
        pa.field("keep", pa.bool_(), nullable=False),
    ]
)
"""An event's fields under their own names (see `Event`); None becomes null.

`rule` and `attributes` are JSON text with sorted keys: their fields differ from rule to rule.
`box_xyxy` is four float32 fractions 0..1 of the frame.
"""


def events_table(events: Sequence[Event]) -> pa.Table:
    """Events as a table of `EVENT_SCHEMA`, one a row, in the order given."""
    return pa.Table.from_pylist([_row(event) for event in events], schema=EVENT_SCHEMA)


def export_events(pages: Iterable[Sequence[dict[str, Any]]], to: Destination) -> Exported:
    """Write events of the HTTP API as a dataset of one file a day.

    The day is that of `started_at`, UTC. Within a file events are sorted by start and id, so that
    the same events make the same bytes. One day is held in memory at a time.

    Args:
        pages: events newest first, as from `ApiClient.events_pages`.
        to: the destination.

    Raises:
        StorageError: as in `export_by_day`.
        StoreError: an item of a page is not an event.
    """
    return export_by_day(_by_day(pages), to)


def _by_day(pages: Iterable[Sequence[dict[str, Any]]]) -> Iterator[DayTable]:
    day: date | None = None
    tables: list[pa.Table] = []
    for page in pages:
        for new_day, events in groupby(map(_event, page), key=_day):
            if new_day != day and day is not None:
                yield day, _in_order(tables)
                tables = []
            day = new_day
            tables.append(events_table(list(events)))  # far smaller than the events themselves
    if day is not None:
        yield day, _in_order(tables)


def _in_order(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables).combine_chunks()
    return table.sort_by([("started_at", "ascending"), ("event_id", "ascending")])


def _event(document: dict[str, Any]) -> Event:
    try:
        return Event.model_validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise StoreError(
            f"event {document.get('event_id')!r}: {where}: {fault['msg']}; the running store may "
            "have another version"
        ) from None


def _day(event: Event) -> date:
    return event.started_at.astimezone(UTC).date()


def _row(event: Event) -> dict[str, Any]:
    # JSON mode for fields of free form; typed columns take datetimes as they are.
    free = event.model_dump(mode="json", include={"rule", "attributes"})
    row = event.model_dump(exclude={"rule", "attributes"})
    return row | {name: json.dumps(value, sort_keys=True) for name, value in free.items()}
