"""Settings of zones and their rules: which events are raised, and where in the picture."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from storeguard.config.addresses import redact, shown
from storeguard.geometry import polygon_area, polygon_fault

_ID_BYTES = 80  # with each encoded as %XX, a folder named after it still fits a file system
_ID = re.compile(r"[^\W_][\w.-]{0,62}")


def _is_id(text: str) -> str:
    normal = unicodedata.normalize("NFC", text)
    if _ID.fullmatch(normal) is None:
        raise ValueError(
            "expected 1 to 63 letters or digits of any script, or _ . - after the first one"
        )
    if len(normal.encode()) > _ID_BYTES:
        raise ValueError(
            f"expected at most {_ID_BYTES} bytes in UTF-8, found {len(normal.encode())}"
        )
    return normal


def _number_as_text(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"expected text, found the number {value}; put it in quotes: '{value}'")  # noqa: TRY004 - pydantic collects only these
    return value


Id = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_is_id)]
"""The name of a camera, zone or store: letters and digits of any script, and `_ . -`."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Fraction, Fraction]

MAX_GAP_S: Final = 10.0
"""Seconds of a camera's silence that rules and tracker bridge where nothing else is set."""

MAX_STEP_OVER_S: Final = 1.0
"""A line crossing starts this many seconds before the person is clear of the line at the earliest,
however long the person stood on it."""

SMALLEST_PERSON: Final = 0.0001
"""Share of the frame that the smallest box of a person covers: 11 x 19 pixels of 1920 x 1080. No
detector finds smaller people."""
TYPICAL_PERSON: Final = 0.02
"""Share of the frame that a person some metres from a store's camera covers: 7 % of the width and
29 % of the height."""
PERSON_HIT_RATIO: Final = 0.10
"""Share of a person's box that must be in the zone of a `person` rule."""

CLIP_S: Final = 2.0
"""Seconds of one person that the clip classifier is given at a time."""


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error. `repr` shows no credentials."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            if name == "token" and value is not None:
                yield name, "***"
            elif isinstance(value, str):
                yield name, shown(value) if name == "source" else redact(value)
            else:
                yield name, value


class Anchor(StrEnum):
    """Which part of a person's box decides whether the person is in a zone."""

    HEAD = "head"
    FOOT = "foot"
    HIT_RATIO = "hit_ratio"


class RecordSettings(Settings):
    """How much video is kept before and after an event; `record: false` keeps none."""

    record: bool = True
    pre_roll_s: float = Field(default=10.0, ge=0, le=600)
    post_roll_s: float = Field(default=10.0, ge=0, le=600)


class RuleSettings(RecordSettings):
    """Base of all rules. A subclass is one rule; its `type` is the type of the rule's events."""

    zone_shape: ClassVar[Literal["polygon", "line"]] = "polygon"
    """Which shape a zone with this rule must have."""
    event_attributes: ClassVar[frozenset[str]] = frozenset()
    """Names that the rule itself writes into the attributes of events."""

    @property
    def longest_delay_s(self) -> float:
        """Seconds from an event's start to the moment when the rule opens it, at most."""
        return 0.0

    @property
    def needed_hit_ratio(self) -> float | None:
        """Share of a person's box that must be in the zone; None if a point of it decides."""
        return None


class VisitSettings(RuleSettings):
    """A rule about visits: when a visit ends."""

    max_gap_s: float = Field(default=MAX_GAP_S, ge=0, le=600)
    """The camera itself may show nothing for a while (frames dropped, detector stalled, stream
    reconnected). A person who is inside before and right after such a gap is taken to have stayed
    if the gap was at most this long; after a longer gap the visit ends where it was last seen.
    The camera's tracker follows people across gaps of the longest `max_gap_s` of its rules."""
    grace_s: float = Field(default=1.0, ge=0, le=600)
    """A visit continues when the person is out of the zone, or unseen, for at most this long."""


class ZoneVisitSettings(VisitSettings):
    """A rule about visits to a zone: which people are inside."""

    anchor: Anchor = Anchor.HIT_RATIO
    min_hit_ratio: float = Field(default=0.10, gt=0, le=1)
    min_score: Fraction = 0.0
    """People detected with less confidence than this do not count for the rule."""

    @property
    def needed_hit_ratio(self) -> float | None:
        """`min_hit_ratio`, where that is what decides."""
        return self.min_hit_ratio if self.anchor is Anchor.HIT_RATIO else None


class IntrusionRule(ZoneVisitSettings):
    """A person enters the zone.

    The same person's next event opens `cooldown_s` after the end of the last one at the earliest. A
    person who is still inside then gets an event that starts when the visit started.
    """

    type: Literal["intrusion"] = "intrusion"
    anchor: Anchor = Anchor.HEAD
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)


class LoiteringRule(ZoneVisitSettings):
    """One person's dwell in the zone reaches `loiter_s` seconds of capture time."""

    type: Literal["loitering"] = "loitering"
    loiter_s: float = Field(default=3.0, gt=0, le=86_400)
    update_s: float = Field(default=1.0, gt=0, le=600)
    """A growing dwell is reported this often, in capture time."""

    @property
    def longest_delay_s(self) -> float:
        """The dwell from which the rule opens an event."""
        return self.loiter_s


class Direction(StrEnum):
    """Which way across a line, as seen from its first point towards its second.

    `in` goes from the left-hand side to the right-hand side in the picture.
    """

    IN = "in"
    OUT = "out"
    BOTH = "both"


class LineCrossingRule(RuleSettings):
    """A person's anchor point crosses the zone's line and stays on the far side.

    A person has crossed once the anchor has been clear of the line, on the far side, for
    `settle_s`. A person who comes back sooner has not crossed, and one who has crossed in can only
    cross out next: to and fro adds up to nothing.
    """

    zone_shape = "line"
    event_attributes = frozenset({"direction"})

    type: Literal["line_crossing"] = "line_crossing"
    anchor: Literal[Anchor.HEAD, Anchor.FOOT] = Anchor.FOOT
    direction: Direction = Direction.BOTH
    margin: float = Field(default=0.1, ge=0, le=1)
    """How far behind the line is clear of it: as a fraction of the person's box, of its width for
    an upright line and of its height for a level one."""
    settle_s: float = Field(default=0.5, ge=0, le=60)
    """Seconds of capture time for which the anchor must be clear of the line on the far side."""
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)
    """A person's next crossing in the same direction is reported this many seconds after the last
    one at the earliest. If the person has returned by then, neither crossing is reported."""
    min_score: Fraction = 0.0
    """People detected with less confidence than this do not count for the rule."""

    @property
    def longest_delay_s(self) -> float:
        """How long stepping over the line and settling take."""
        return MAX_STEP_OVER_S + self.settle_s


class OccupancyRule(ZoneVisitSettings):
    """More than `max_people` people are in the zone for `for_s` seconds of capture time."""

    event_attributes = frozenset({"people", "peak_people"})

    type: Literal["occupancy"] = "occupancy"
    max_people: int = Field(ge=0, le=10_000)
    for_s: float = Field(default=3.0, ge=0, le=86_400)
    update_s: float = Field(default=1.0, gt=0, le=600)

    @property
    def longest_delay_s(self) -> float:
        """How long there must be too many people before the rule opens an event."""
        return self.for_s


class PersonRule(VisitSettings):
    """A person is first seen. Needs no zone; inside a zone it means first seen in the zone.

    A person is in the zone when at least a tenth of the box is (the hit ratio's default).
    """

    type: Literal["person"] = "person"
    min_score: Fraction = 0.35
    cooldown_s: float = Field(default=30.0, ge=0, le=86_400)
    """After an event of this rule, no further one for this long, for any person. A zone's rule and
    the camera's rule count separately."""
    grace_s: float = Field(default=2.0, ge=0, le=600)
    """The event closes when the person has been unseen for longer than this."""

    @property
    def needed_hit_ratio(self) -> float | None:
        """In a zone: the default of the other rules' `min_hit_ratio`."""
        return PERSON_HIT_RATIO


class ShopliftingRule(ZoneVisitSettings):
    """The clip classifier suspects one person of concealing goods, during an event of theirs.

    A person with an open event of a rule in `during` in the same zone is classified every
    `cls_every_s`. The score is the mean of the `top_clips` highest clip scores of the last
    `window_s`.
    """

    event_attributes = frozenset(
        {"clip_scores", "clips", "decision", "score", "shoplifting", "threshold"}
    )

    type: Literal["shoplifting_suspected"] = "shoplifting_suspected"
    during: tuple[Literal["intrusion", "loitering"], ...] = Field(
        default=("intrusion", "loitering"), min_length=1
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability from which it is suspected; None takes what the model's training recommends."""
    cls_every_s: float = Field(default=1.0, ge=0.1, le=60)
    top_clips: int = Field(default=3, ge=1, le=60)
    window_s: float = Field(default=10.0, gt=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)

    @property
    def longest_delay_s(self) -> float:
        """The event starts with the oldest clip that counts."""
        return self.window_s + CLIP_S


Rule = (
    IntrusionRule | LoiteringRule | LineCrossingRule | OccupancyRule | PersonRule | ShopliftingRule
)
"""Every rule there is. `storeguard.rules.rule.build` has one case for each."""
RULE_TYPES: Final[tuple[type[RuleSettings], ...]] = get_args(Rule)

ZoneRule = Annotated[Rule, Field(discriminator="type")]


class ZoneConfig(Settings):
    """A part of the picture, and the rules that apply there.

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
            if rule.zone_shape != ("polygon" if self.line is None else "line"):
                raise ValueError(
                    f"zone {self.id!r}: rule {rule.type!r} needs a {rule.zone_shape!r}"
                )
        for kind, times in Counter(rule.type for rule in self.rules).items():
            if times > 1:
                raise ValueError(f"zone {self.id!r}: rule {kind!r} is given {times} times")
        kinds = {rule.type for rule in self.rules}
        for rule in self.rules:
            if isinstance(rule, ShopliftingRule) and not kinds & set(rule.during):
                raise ValueError(
                    f"zone {self.id!r}: rule {rule.type!r} needs one of these rules in the "
                    f"same zone: {' or '.join(rule.during)}"
                )
        return self

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        for fault in self._too_small_for(SMALLEST_PERSON, "the smallest that is detected"):
            raise ValueError(fault)
        return self

    def doubts(self) -> list[str]:
        """What is allowed and yet probably a mistake: a sentence for each rule."""
        return self._too_small_for(TYPICAL_PERSON, "a typical one")

    def _too_small_for(self, person: float, which: str) -> list[str]:
        """The rules that no person of this size can fire, because the zone is too small.

        Args:
            person: share of the frame that the person's box covers.
            which: its size in words.
        """
        if self.polygon is None:
            return []
        area = polygon_area(self.polygon)
        return [
            f"zone {self.id!r}: rule {rule.type!r} needs {rule.needed_hit_ratio:.3g} of a person's "
            f"box in the zone, but the zone covers {area:.2g} of the frame and a box covers "
            f"{person:.2g} ({which}), so at most {area / person:.2g} of it is in the zone: draw "
            "the zone larger, or let a point of the box decide (anchor: foot or head)"
            for rule in self.rules
            if rule.needed_hit_ratio is not None and area < rule.needed_hit_ratio * person
        ]

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


def longest_gap_s(rules: Iterable[RuleSettings]) -> float:
    """Seconds of a camera's silence that some of its rules bridge; `MAX_GAP_S` without such a rule.

    A `grace_s` longer than `max_gap_s` bridges silence too.
    """
    return max(
        (max(rule.max_gap_s, rule.grace_s) for rule in rules if isinstance(rule, VisitSettings)),
        default=MAX_GAP_S,
    )


def require_unique(what: str, ids: Iterable[str]) -> None:
    """Refuse an id that is given twice."""
    for name, times in Counter(ids).items():
        if times > 1:
            raise ValueError(f"{what} id {name!r} is used {times} times; ids must be unique")
