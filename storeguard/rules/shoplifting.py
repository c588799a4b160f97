"""Suspected shoplifting: the clip classifier's scores of one person, over one visit to a zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from storeguard.config.zones import CLIP_S, ShopliftingRule
from storeguard.events.event import EventStatus, ModelRef
from storeguard.rules.observation import ClipScore
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import Change, Visit
from storeguard.rules.visit import VisitRuleState, anchored_inside

_SCORES: Final = "clip_scores"


@dataclass(frozen=True, slots=True)
class VisitPrediction:
    """What the clip classifier predicts for a visit as a whole.

    Attributes:
        score: the highest that the mean of the top clips within `window_s` has been, 0..1.
        threshold: the score from which the person is suspected.
        suspected: whether the score has reached the threshold.
        num_clips: clips classified in this visit.
        model: the classifier.
    """

    score: float
    threshold: float
    suspected: bool
    num_clips: int
    model: ModelRef

    def document(self) -> dict[str, Any]:
        """As JSON, for an event's attributes."""
        return {
            "score": round(self.score, 4),
            "threshold": self.threshold,
            "decision": "suspected" if self.suspected else "not suspected",
            "clips": self.num_clips,
            "model": self.model.model_dump(),
        }


class ShopliftingState(VisitRuleState[ShopliftingRule]):
    """Opens an event once the mean of a person's `top_clips` highest clips reaches the threshold.

    Only clips of the last `window_s` seconds count, so that a long visit is not suspected for being
    long. The event starts with the first of the clips that raised it. Scores belong to one person's
    visit to the zone and end with it.
    """

    def step_scores(self, scene: Scene) -> list[Change]:
        """Process the clip scores of an observation; called before its `step`.

        A score comes a moment after its clip: it counts also if the person is hidden by then, or
        has just left.
        """
        scores: dict[str, list[ClipScore]] = {}
        for score in scene.clip_scores:
            scores.setdefault(score.person_id, []).append(score)
        return [
            self.report(visit, scene.at)
            for visit in self.visits
            if self._add_scores(visit, scores.get(visit.person_id, ()), scene.at)
        ]

    def prediction(self, person_id: str) -> VisitPrediction | None:
        """The prediction for the person's present visit; None before its first clip score."""
        visit = self.visits.find(person_id)
        return None if visit is None else _prediction_of(visit)

    def _inside(self, scene: Scene) -> list[Sighting]:
        return anchored_inside(scene, self.zone, self.settings)

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        del visit, scene
        return False  # only scores open and update events

    def _add_scores(self, visit: Visit, scores: Iterable[ClipScore], at: datetime) -> bool:
        """Add scores to a visit; returns whether its event has to open or be updated."""
        # A clip that ended before this visit belongs to an earlier one.
        new = [score for score in scores if score.captured_at >= visit.started_at]
        if not new:
            return False
        for score in new:
            prediction = self._add_score(visit, score)
        if visit.reported_at is None:
            if prediction.suspected:
                visit.started_at = max(visit.started_at, self._beginning(visit))
            return prediction.suspected
        return at - visit.reported_at >= timedelta(seconds=self.settings.update_s)

    def _add_score(self, visit: Visit, new: ClipScore) -> VisitPrediction:
        since = new.captured_at - timedelta(seconds=self.settings.window_s)
        recent = [
            [at, score]
            for at, score in visit.attributes.get(_SCORES, ())
            if datetime.fromisoformat(at) > since
        ]
        recent.append([new.captured_at.isoformat(), round(new.score, 4)])
        threshold = new.threshold if self.settings.threshold is None else self.settings.threshold
        highest = sorted((score for _, score in recent), reverse=True)[: self.settings.top_clips]
        enough = len(highest) == self.settings.top_clips
        now = round(sum(highest) / len(highest), 6) if enough else 0.0  # 3 x 0.7 is less than 2.1
        before = _prediction_of(visit)
        score = max(now, before.score if before else 0.0)
        prediction = VisitPrediction(
            score=score,
            threshold=threshold,
            suspected=score >= threshold,
            num_clips=(before.num_clips if before else 0) + 1,
            model=new.model,
        )
        visit.attributes = {_SCORES: recent, **prediction.document()}
        return prediction

    def _beginning(self, visit: Visit) -> datetime:
        """When the earliest of the highest-scored clips began."""
        recent = visit.attributes[_SCORES]
        highest = sorted(recent, key=lambda entry: -float(entry[1]))[: self.settings.top_clips]
        return min(datetime.fromisoformat(at) for at, _ in highest) - timedelta(seconds=CLIP_S)

    def _dwell_s(self, visit: Visit) -> float | None:
        del visit
        return None

    def _change(self, visit: Visit, status: EventStatus) -> Change:
        change = super()._change(visit, status)
        attributes = dict(visit.attributes)
        score = attributes.pop("score", change.score)
        model = attributes.pop("model", None)
        return replace(
            change,
            score=score,
            attributes=attributes,
            model=None if model is None else ModelRef.model_validate(model),
        )


def _prediction_of(visit: Visit) -> VisitPrediction | None:
    attributes = visit.attributes
    if "score" not in attributes:
        return None
    return VisitPrediction(
        score=attributes["score"],
        threshold=attributes["threshold"],
        suspected=attributes["decision"] == "suspected",
        num_clips=attributes["clips"],
        model=ModelRef.model_validate(attributes["model"]),
    )
