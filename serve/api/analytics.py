"""Analytics over HTTP: how many people came, in all and by an attribute's label."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from serve.api.events import FilterId, Time
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery
from storeguard.clock import Clock, SystemClock
from storeguard.errors import NotFoundError, QueryError
from storeguard.events.event import Moment

_DAY: Final = timedelta(days=1)
BASKET: Final = "basket"
"""The attribute of ``analytics/baskets`` unless the query names another."""


class VisitorSource(Protocol):
    """Where people are counted."""

    async def visitors(self, query: VisitorQuery) -> list[VisitorBucket]: ...


class Span(BaseModel):
    """Which people are counted, and in buckets of what length."""

    model_config = ConfigDict(extra="forbid")

    start: Time | None = Field(
        default=None, description="first seen at or after; default: a day before end"
    )
    end: Time | None = Field(default=None, description="first seen before; default: now")
    bucket_s: float = Field(default=3600.0, ge=1, le=31_536_000, allow_inf_nan=False)
    camera: FilterId | None = None


class AttributeSpan(Span):
    """The same with an attribute whose labels are counted."""

    attribute: FilterId = BASKET


class AttributesAnswer(BaseModel):
    """The attributes by which people can be counted."""

    attributes: list[str]


class VisitorCount(BaseModel):
    """People first seen in one bucket."""

    start: Moment
    visitors: int


class LabelCount(VisitorCount):
    """The same by label; `unknown` counts those for whom no label has a majority."""

    labels: dict[str, int]
    unknown: int


class VisitorsAnswer(BaseModel):
    """People counted once a camera: a person seen by two cameras counts twice."""

    start: Moment
    end: Moment
    bucket_s: float
    visitors: int
    buckets: list[VisitorCount]


class BasketsAnswer(VisitorsAnswer):
    """The same by the label of one attribute."""

    attribute: str
    labels: dict[str, int]
    unknown: int
    buckets: list[LabelCount]  # type: ignore[assignment]


def analytics_router(
    source: VisitorSource, *, attributes: Collection[str], clock: Clock | None = None
) -> APIRouter:
    """The routes under ``/analytics``.

    Args:
        source: where people are counted.
        attributes: names of the configured attributes.
        clock: what "now" is; None is the machine's.
    """
    router = APIRouter(prefix="/analytics", tags=["analytics"])
    now = (clock or SystemClock()).now

    @router.get("/attributes")
    async def list_attributes() -> AttributesAnswer:
        """What `baskets` can count people by: the names of the configured attributes."""
        return AttributesAnswer(attributes=sorted(attributes))

    @router.get("/visitors")
    async def count_visitors(span: Annotated[Span, Query()]) -> VisitorsAnswer:
        """How many people came. Those of the last `tracks.flush_s` seconds may be missing."""
        query = _visitor_query(span, now())
        buckets = await source.visitors(query)
        return VisitorsAnswer(
            start=query.start,
            end=query.end,
            bucket_s=query.bucket_s,
            visitors=sum(one.visitors for one in buckets),
            buckets=[VisitorCount(start=one.start, visitors=one.visitors) for one in buckets],
        )

    @router.get("/baskets")
    async def count_baskets(span: Annotated[AttributeSpan, Query()]) -> BasketsAnswer:
        """The same by the label of an attribute, such as with a basket and without one."""
        if span.attribute not in attributes:
            known = ", ".join(sorted(attributes)) or "none"
            raise NotFoundError(f"there is no attribute {span.attribute!r}; attributes: {known}")
        query = _visitor_query(span, now(), attribute=span.attribute)
        buckets = await source.visitors(query)
        return BasketsAnswer(
            start=query.start,
            end=query.end,
            bucket_s=query.bucket_s,
            attribute=span.attribute,
            visitors=sum(one.visitors for one in buckets),
            labels=_sum(buckets),
            unknown=sum(one.unknown for one in buckets),
            buckets=[
                LabelCount(
                    start=one.start, visitors=one.visitors, labels=one.labels, unknown=one.unknown
                )
                for one in buckets
            ],
        )

    return router


def _visitor_query(span: Span, now: datetime, *, attribute: str | None = None) -> VisitorQuery:
    end = span.end or now
    try:
        start = span.start or end - _DAY
    except OverflowError:
        raise QueryError(f"end: there is no day before {end.isoformat()}") from None
    return VisitorQuery(
        start=start.astimezone(UTC),
        end=end.astimezone(UTC),
        bucket_s=span.bucket_s,
        camera=span.camera,
        attribute=attribute,
    )


def _sum(buckets: list[VisitorBucket]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in buckets:
        for label, count in one.labels.items():
            total[label] = total.get(label, 0) + count
    return dict(sorted(total.items()))
