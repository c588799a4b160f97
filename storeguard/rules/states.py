"""Which rules a camera has, and what is at work for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol

from storeguard.config.store import CameraConfig
from storeguard.config.zones import (
    IntrusionRule,
    LineCrossingRule,
    LoiteringRule,
    OccupancyRule,
    PersonRule,
    ShopliftingRule,
    ZoneConfig,
)
from storeguard.geometry import Line, Zone
from storeguard.rules.intrusion import IntrusionState
from storeguard.rules.line import LineCrossingState
from storeguard.rules.loitering import LoiteringState
from storeguard.rules.occupancy import OccupancyState
from storeguard.rules.person import PersonState
from storeguard.rules.scene import Scene
from storeguard.rules.shoplifting import ShopliftingState
from storeguard.rules.visit import Change, Memory, Visit

Rule = (
    IntrusionRule | LoiteringRule | LineCrossingRule | OccupancyRule | PersonRule | ShopliftingRule
)
Key = tuple[str | None, str]
"""Zone id (None: the whole picture) and rule type: what tells a camera's rules apart."""


class RuleState(Protocol):
    """A rule at work in one zone."""

    def step(self, scene: Scene) -> list[Change]: ...
    def expire(self, silence: timedelta) -> list[Change]: ...
    def close(self) -> list[Change]: ...
    def forget(self) -> None: ...
    def ongoing(self) -> Iterable[Visit]: ...
    def checkpoint(self) -> Memory: ...
    def restore(self, memory: Memory) -> None: ...


def rules_of(camera: CameraConfig) -> Iterator[tuple[ZoneConfig | None, Rule]]:
    """Every rule of a camera, with its zone."""
    if camera.person is not None:
        yield None, camera.person
    for zone in camera.zones:
        for rule in zone.rules:
            yield zone, rule


def key_of(zone: ZoneConfig | None, rule: Rule) -> Key:
    """The key of a rule in a zone."""
    return None if zone is None else zone.id, rule.type


def shape_of(zone: ZoneConfig | None) -> Sequence[tuple[float, float]] | None:
    """A zone's line or polygon; None for the whole picture."""
    return None if zone is None else zone.line or zone.polygon


def _line(zone: ZoneConfig | None) -> Line:
    if zone is None or zone.line is None:  # the configuration sees to that
        raise ValueError("a line_crossing rule needs a zone with a line")
    return Line(*zone.line)


def begin(rule: Rule, zone: ZoneConfig | None, area: Zone | None) -> RuleState:
    """Put a rule to work."""
    match rule:
        case IntrusionRule():
            return IntrusionState(rule, area)
        case LoiteringRule():
            return LoiteringState(rule, area)
        case OccupancyRule():
            return OccupancyState(rule, area)
        case PersonRule():
            return PersonState(rule, area)
        case LineCrossingRule():
            return LineCrossingState(rule, _line(zone))
        case ShopliftingRule():
            return ShopliftingState(rule, area)


def reconfigure(state: RuleState, rule: Rule, zone: ZoneConfig | None, area: Zone | None) -> None:
    """Have a rule at work go on under other settings or another shape."""
    match state, rule:
        case IntrusionState(), IntrusionRule():
            state.reconfigure(rule, area)
        case LoiteringState(), LoiteringRule():
            state.reconfigure(rule, area)
        case OccupancyState(), OccupancyRule():
            state.reconfigure(rule, area)
        case PersonState(), PersonRule():
            state.reconfigure(rule, area)
        case ShopliftingState(), ShopliftingRule():
            state.reconfigure(rule, area)
        case LineCrossingState(), LineCrossingRule():
            state.reconfigure(rule, _line(zone))
