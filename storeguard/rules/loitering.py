"""Loitering: one person stays in a zone for too long."""

from __future__ import annotations

from datetime import timedelta

from storeguard.config.zones import LoiteringRule
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Visit
from storeguard.rules.visit import VisitRuleState, anchored_inside


class LoiteringState(VisitRuleState[LoiteringRule]):
    """Opens an event when a visit's dwell reaches `loiter_s`, and updates it while it grows.

    The event starts when the visit did, not when the threshold was reached. Updates come at most
    every `update_s` of capture time; the closing record has the final dwell.
    """

    shows_dwell = True

    def _inside(self, scene: Scene) -> list[Sighting]:
        return anchored_inside(scene, self.zone, self.settings)

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        if visit.reported_at is None:
            return visit.dwell >= timedelta(seconds=self.settings.loiter_s)
        return scene.at - visit.reported_at >= timedelta(seconds=self.settings.update_s)
