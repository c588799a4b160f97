"""How many people came, and with which labels, over time: counted from the track log."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from storeguard.analytics.tracks_table import TrackQuery, rows_by_hour
from storeguard.errors import QueryError

MAX_BUCKETS: Final = 2000


@dataclass(frozen=True, slots=True)
class VisitorQuery:
    """Which people to count, and in which buckets.

    Attributes:
        start, end: aware; people seen from start on and before end.
        bucket_s: length of a bucket, seconds; the first begins at start, the last may be shorter.
        camera: id; None takes all cameras.
        attribute: whose labels are counted; None counts none.

    Raises:
        QueryError: a time has no zone, the span is empty, or it has too many buckets.
    """

    start: datetime
    end: datetime
    bucket_s: float = 3600.0
    camera: str | None = None
    attribute: str | None = None

    def __post_init__(self) -> None:
        self.rows()  # checks the times
        if self.start >= self.end:
            raise QueryError(
                f"start: expected a time before end ({self.end.isoformat()}), "
                f"found {self.start.isoformat()!r}"
            )
        buckets = (self.end - self.start).total_seconds() / self.bucket_s
        if buckets > MAX_BUCKETS:
            raise QueryError(
                f"bucket_s: expected at most {MAX_BUCKETS} buckets from start to end, "
                f"{self.bucket_s:g} makes {buckets:.0f}"
            )

    def rows(self) -> TrackQuery:
        """The rows to count."""
        return TrackQuery(camera=self.camera, start=self.start, end=self.end)


@dataclass(frozen=True, slots=True)
class VisitorBucket:
    """The visitors of one bucket.

    Attributes:
        start: its first moment, aware UTC.
        visitors: people first seen in it.
        labels: how many of them have each label of the attribute, as of their last sighting in
            the whole span.
    """

    start: datetime
    visitors: int
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def unknown(self) -> int:
        """Visitors without a label."""
        return self.visitors - sum(self.labels.values())


@dataclass(slots=True)
class _Visitor:
    first_at: datetime
    label: str | None = None


def count_visitors(folder: Path, query: VisitorQuery) -> list[VisitorBucket]:
    """Count the people of a track log.

    A visitor is a person as one camera tracks them. A person seen by two cameras counts twice, and
    so does one who was out of sight for longer than the tracker waits. Rows of the last
    `tracks.flush_s` seconds may not be on disk yet.

    Args:
        folder: of the log; one that does not exist yet has no visitors.
        query: the span, the buckets and the filters.

    Raises:
        StorageError: a file of the log cannot be read.
    """
    people: dict[str, _Visitor] = {}
    if folder.is_dir():
        for _, rows in rows_by_hour(folder, query.rows()):
            _take(people, rows, query.attribute)
    step = timedelta(seconds=query.bucket_s)
    visitors: Counter[int] = Counter()
    labels: dict[int, Counter[str]] = {}
    for one in people.values():
        number = (one.first_at - query.start) // step
        visitors[number] += 1
        if one.label is not None:
            labels.setdefault(number, Counter())[one.label] += 1
    return [
        VisitorBucket(
            (query.start + number * step).astimezone(UTC),
            visitors[number],
            dict(sorted(labels.get(number, {}).items())),
        )
        for number in range(-((query.start - query.end) // step))
    ]


def _take(people: dict[str, _Visitor], rows: pa.Table, attribute: str | None) -> None:
    """Add an hour's rows, which are sorted by time."""
    firsts = rows.group_by("person_id").aggregate([("captured_at", "min")])
    for person_id, first_at in zip(
        firsts["person_id"].to_pylist(), firsts["captured_at_min"].to_pylist(), strict=True
    ):
        people.setdefault(person_id, _Visitor(first_at))
    if attribute is None:
        return
    labelled = rows.filter(pc.is_valid(rows["attributes"]))
    lasts = labelled.group_by("person_id", use_threads=False).aggregate([("attributes", "last")])
    for person_id, text in zip(
        lasts["person_id"].to_pylist(), lasts["attributes_last"].to_pylist(), strict=True
    ):
        label = json.loads(text).get(attribute)
        if label is not None:
            people[person_id].label = label
