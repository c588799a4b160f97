"""Building a rule's state from its settings: the one place that knows every rule."""

from __future__ import annotations

from storeguard.config.zones import (
    IntrusionRule,
    LineCrossingRule,
    LoiteringRule,
    OccupancyRule,
    PersonRule,
    Rule,
    ShopliftingRule,
)
from storeguard.rules.intrusion import IntrusionState
from storeguard.rules.line import LineCrossingState
from storeguard.rules.loitering import LoiteringState
from storeguard.rules.occupancy import OccupancyState
from storeguard.rules.person import PersonState
from storeguard.rules.shoplifting import ShopliftingState
from storeguard.rules.state import RuleCheckpoint, RuleState, Shape


def build(settings: Rule, shape: Shape, checkpoint: RuleCheckpoint) -> RuleState:
    """The state of a rule, with what an earlier state of the same rule had saved.

    A new rule, a restart and a change of settings or shape all come here. mypy reports a missing
    return here when a rule of `Rule` has no case.

    Args:
        settings: the rule.
        shape: where it applies.
        checkpoint: of the earlier state; `RuleCheckpoint()` for a new rule.

    Raises:
        TypeError: the rule cannot apply to this kind of shape.
    """
    match settings:
        case IntrusionRule():
            return IntrusionState(settings, shape, checkpoint)
        case LoiteringRule():
            return LoiteringState(settings, shape, checkpoint)
        case LineCrossingRule():
            return LineCrossingState(settings, shape, checkpoint)
        case OccupancyRule():
            return OccupancyState(settings, shape, checkpoint)
        case PersonRule():
            return PersonState(settings, shape, checkpoint)
        case ShopliftingRule():
            return ShopliftingState(settings, shape, checkpoint)
