"""Person: a person is first seen, in the picture or in a zone."""

from __future__ import annotations

from storeguard.config.zones import PERSON_HIT_RATIO, Anchor, PersonRule
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Visit
from storeguard.rules.visit import VisitRuleState


class PersonState(VisitRuleState[PersonRule]):
    """Opens an event at a person's first sighting and closes it when the person has left.

    One event starts a cooldown for all people. A person who is first seen during the cooldown gets
    no event later either, since a later sighting is not the first; a person who left and comes back
    counts as new.
    """

    def _inside(self, scene: Scene) -> list[Sighting]:
        self.cooldown.forget(scene.at, cooldown_s=self.settings.cooldown_s)
        min_score = self.settings.min_score
        if self.zone is None:
            return scene.seen(min_score=min_score)
        return scene.inside(
            self.zone,
            anchor=Anchor.HIT_RATIO,
            min_hit_ratio=PERSON_HIT_RATIO,
            min_score=min_score,
        )

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        first = visit.first_inside_at == scene.at and not visit.version
        if not first or not self.cooldown.is_over(
            "", scene.at, cooldown_s=self.settings.cooldown_s
        ):
            return False
        self.cooldown.start("", scene.at)
        return True

    def _dwell_s(self, visit: Visit) -> float | None:
        del visit
        return None
