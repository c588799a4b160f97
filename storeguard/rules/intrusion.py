"""Intrusion: a person enters a zone."""

from __future__ import annotations

from storeguard.config.zones import IntrusionRule
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Visit
from storeguard.rules.visit import VisitRuleState, anchored_inside


class IntrusionState(VisitRuleState[IntrusionRule]):
    """Opens an event when a visit begins and closes it when the visit ends.

    After the end of one event the same person's next event waits for `cooldown_s`, so that walking
    to and fro over the border raises few. A person who came back and is still inside when the
    cooldown is over gets an event then, with the start of the visit: every long visit is reported.
    """

    shows_dwell = True

    def _inside(self, scene: Scene) -> list[Sighting]:
        self.cooldown.forget(scene.at, cooldown_s=self.settings.cooldown_s)
        return anchored_inside(scene, self.zone, self.settings)

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        return not visit.version and self.cooldown.is_over(
            visit.person_id, scene.at, cooldown_s=self.settings.cooldown_s
        )

    def _left(self, visit: Visit) -> None:
        self.cooldown.start(visit.person_id, visit.last_inside_at)
