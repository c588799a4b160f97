"""Settings of zones and their rules: what is watched for, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from storeguard.geometry import polygon_fault

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Fraction, Fraction]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Anchor(StrEnum):
    """Which part of a person's box decides whether they are in a zone."""

    HEAD = "head"
    FOOT = "foot"
    HIT_RATIO = "hit_ratio"


class RecordSettings(Settings):
    """How much video a rule keeps around its event; `record: false` keeps none."""

    record: bool = True
    pre_roll_s: float = Field(default=10.0, ge=0, le=600)
    post_roll_s: float = Field(default=10.0, ge=0, le=600)


class ZoneAnchorSettings(RecordSettings):
    """How a rule decides that somebody is inside its zone."""

    anchor: Anchor = Anchor.HIT_RATIO
    min_hit_ratio: float = Field(default=0.10, gt=0, le=1)
    min_score: Fraction = 0.0
    """People detected with less confidence than this do not count for the rule."""
    max_gap_s: float = Field(default=10.0, ge=0, le=600)
    """When the camera itself shows nothing for a while (frames dropped, detector stalled, stream
    reconnected), who is inside before and right after is taken to have stayed, if that gap was at
    most this long; past it the visit ends where it was last seen."""


class IntrusionRule(ZoneAnchorSettings):
    """Somebody enters the zone.

    Another event for the same person waits until `cooldown_s` after the end of the last one; who
    is still inside then gets it, with the start of the visit.
    """

    type: Literal["intrusion"] = "intrusion"
    anchor: Anchor = Anchor.HEAD
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    """A visit goes on when the person is out of the zone, or unseen, for at most this long."""


class LoiteringRule(ZoneAnchorSettings):
    """One person's dwell in the zone reaches `loiter_s` seconds of capture time."""

    type: Literal["loitering"] = "loitering"
    loiter_s: float = Field(default=3.0, gt=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)
    """A growing dwell is reported this often, in capture time."""


class Direction(StrEnum):
    """Which way across a line, looking from its first point to its second.

    `in` goes from the left-hand side to the right-hand side, as seen in the picture.
    """

    IN = "in"
    OUT = "out"
    BOTH = "both"


class LineCrossingRule(RecordSettings):
    """Somebody's anchor point crosses the zone's line."""

    type: Literal["line_crossing"] = "line_crossing"
    anchor: Literal[Anchor.HEAD, Anchor.FOOT] = Anchor.FOOT
    direction: Direction = Direction.BOTH
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)
    min_score: Fraction = 0.0


class OccupancyRule(ZoneAnchorSettings):
    """More than `max_people` people are in the zone for `for_s` seconds of capture time."""

    type: Literal["occupancy"] = "occupancy"
    max_people: int = Field(ge=0, le=10_000)
    for_s: float = Field(default=3.0, ge=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)


class PersonRule(RecordSettings):
    """A person is first seen. Needs no zone; inside a zone it means first seen in the zone.

    In the zone is who has at least a tenth of their box in it (the hit ratio's default).
    """

    type: Literal["person"] = "person"
    min_score: Fraction = 0.35
    cooldown_s: float = Field(default=30.0, ge=0, le=86_400)
    """After an event of this rule, no further one for this long, whoever it is. A zone's rule and
    the camera's count apart."""
    grace_s: float = Field(default=2.0, ge=0, le=600)
    """The person is gone, and the event closes, when unseen for longer than this."""
    max_gap_s: float = Field(default=10.0, ge=0, le=600)
    """As in the rules about zones: the longest silence of the camera that a stay bridges."""


class ShopliftingRule(ZoneAnchorSettings):
    """The clip classifier suspects one person of concealing goods, during an event of theirs.

    Who has an open event of a rule in `during` in the same zone is looked at every `cls_every_s`.
    The score is the mean of the `top_clips` highest clips among those of the last `window_s`.
    """

    type: Literal["shoplifting_suspected"] = "shoplifting_suspected"
    during: tuple[Literal["intrusion", "loitering"], ...] = Field(
        default=("intrusion", "loitering"), min_length=1
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability from which it is suspected; None takes what the model's training recommends."""
    cls_every_s: float = Field(default=1.0, ge=0.1, le=60)
    top_clips: int = Field(default=3, ge=1, le=60)
    window_s: float = Field(default=10.0, gt=0, le=600)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)


ZoneRule = Annotated[
    IntrusionRule | LoiteringRule | LineCrossingRule | OccupancyRule | PersonRule | ShopliftingRule,
    Field(discriminator="type"),
]


class ZoneConfig(Settings):
    """A part of the picture, and the rules that hold there.

    Coordinates are fractions 0..1 of the frame's width and height. A zone is either a `polygon`
    of three or more corners or a `line` of two points (for `line_crossing`).
    """

    id: Id
    polygon: tuple[Point, ...] | None = None
    line: tuple[Point, Point] | None = None
    rules: tuple[ZoneRule, ...] = ()

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.polygon is None) == (self.line is None):
            raise ValueError(f"zone {self.id!r}: expected exactly one of 'polygon' and 'line'")
        if self.polygon is not None and (fault := polygon_fault(self.polygon)):
            raise ValueError(f"zone {self.id!r}: polygon {fault}")
        if self.line is not None and self.line[0] == self.line[1]:
            raise ValueError(
                f"zone {self.id!r}: line has no length, both points are {self.line[0]}"
            )
        for rule in self.rules:
            if (rule.type == "line_crossing") != (self.line is not None):
                need = "a 'line'" if rule.type == "line_crossing" else "a 'polygon'"
                raise ValueError(f"zone {self.id!r}: rule {rule.type!r} needs {need}")
        for kind, times in Counter(rule.type for rule in self.rules).items():
            if times > 1:
                raise ValueError(f"zone {self.id!r}: rule {kind!r} is given {times} times")
        kinds = {rule.type for rule in self.rules}
        for rule in self.rules:
            if isinstance(rule, ShopliftingRule) and not kinds & set(rule.during):
                raise ValueError(
                    f"zone {self.id!r}: rule {rule.type!r} needs a rule beside it whose events it "
                    f"goes by: {' or '.join(rule.during)}"
                )
        return self

    @property
    def shoplifting(self) -> ShopliftingRule | None:
        """Its rule for the clip classifier, if it has one."""
        return next((rule for rule in self.rules if isinstance(rule, ShopliftingRule)), None)


class ZoneList(Settings):
    """The `zones:` list alone, as `--zones FILE` gives it."""

    zones: tuple[ZoneConfig, ...]

    @field_validator("zones")
    @classmethod
    def _unique_zones(cls, zones: tuple[ZoneConfig, ...]) -> tuple[ZoneConfig, ...]:
        require_unique("zone", (zone.id for zone in zones))
        return zones


def require_unique(what: str, ids: Iterable[str]) -> None:
    """Refuse an id that is given twice."""
    for name, times in Counter(ids).items():
        if times > 1:
            raise ValueError(f"{what} id {name!r} is used {times} times; ids must be unique")
