"""Occupancy: too many people in a zone at once."""

from __future__ import annotations

from datetime import timedelta

from storeguard.config.zones import OccupancyRule
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Visit
from storeguard.rules.visit import VisitRuleState, anchored_inside


class OccupancyState(VisitRuleState[OccupancyRule]):
    """Opens an event when more than `max_people` have been inside for `for_s`.

    The zone itself is the visitor: its visit begins with the first observation of too many people
    and ends with the last one, gaps of `grace_s` bridged, just as a person's visit. The event has
    no person, box or dwell. Its attributes are `people` (at the last update) and `peak_people`; its
    score is the highest confidence of the people inside.
    """

    _num_people = 0
    """Inside, in the present observation."""

    def _inside(self, scene: Scene) -> list[Sighting]:
        people = anchored_inside(scene, self.zone, self.settings)
        self._num_people = len(people)
        if self._num_people <= self.settings.max_people:
            return []
        score = max(person.score for person in people)
        return [Sighting(person_id="", score=score, box_xyxy=None, since=scene.at - scene.edge)]

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        peak = max(self._num_people, visit.attributes.get("peak_people", 0))
        visit.attributes = {"people": self._num_people, "peak_people": peak}
        if visit.reported_at is None:
            return visit.dwell >= timedelta(seconds=self.settings.for_s)
        return scene.at - visit.reported_at >= timedelta(seconds=self.settings.update_s)

    def _dwell_s(self, visit: Visit) -> float | None:
        del visit
        return None
