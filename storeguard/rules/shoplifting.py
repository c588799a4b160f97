"""Suspected shoplifting: the clip classifier's scores of one person, over one stay in a zone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from storeguard.classification.clips.clip import CLIP_S
from storeguard.config.zones import ShopliftingRule
from storeguard.events.event import EventStatus, ModelRef
from storeguard.rules.observation import ClipScore
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.visit import Change, Visit, VisitRuleState, anchored_inside

_SCORES: Final = "clip_scores"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the classifier's scores of a stay come to.

    Attributes:
        score: the highest that the mean of the top clips within `window_s` has been, 0..1.
        threshold: from which it counts as suspicious.
        suspected: whether it has reached it.
        num_clips: clips judged in this stay.
        model: the classifier.
    """

    score: float
    threshold: float
    suspected: bool
    num_clips: int
    model: ModelRef

    def document(self) -> dict[str, Any]:
        """As it stands in an event's attributes."""
        return {
            "score": round(self.score, 4),
            "threshold": self.threshold,
            "decision": "suspected" if self.suspected else "not suspected",
            "clips": self.num_clips,
            "model": self.model.model_dump(),
        }


class ShopliftingState(VisitRuleState[ShopliftingRule]):
    """Opens an event once the mean of a person's `top_clips` highest clips reaches the threshold.

    Only clips of the last `window_s` seconds count, so that a long stay is not suspected for being
    long. The event starts with the first of the clips that raised it. Scores belong to one person's
    stay in the zone and end with it.
    """

    def hear(self, scene: Scene) -> list[Change]:
        """Take in the scores that came with an observation; called before its `step`.

        Scores come a moment after their clip: they count also if the person is hidden by then, or
        has just left.
        """
        heard: dict[str, list[ClipScore]] = {}
        for score in scene.clip_scores:
            heard.setdefault(score.person_id, []).append(score)
        return [
            self.report(visit, scene.at)
            for visit in self.visits
            if self._judge(visit, heard.get(visit.person_id, ()), scene.at)
        ]

    def judgement(self, person_id: str) -> Judgement | None:
        """What the person's present stay comes to so far; None without a judged clip."""
        visit = self.visits.find(person_id)
        return None if visit is None else _judgement_of(visit)

    def _inside(self, scene: Scene) -> list[Sighting]:
        return anchored_inside(scene, self.zone, self.settings)

    def _is_due(self, visit: Visit, scene: Scene) -> bool:
        del visit, scene
        return False  # being seen says nothing here: only scores open and update events

    def _judge(self, visit: Visit, heard: Iterable[ClipScore], at: datetime) -> bool:
        """Add a visit's new scores; returns whether its event has to open or be updated."""
        # A clip that ended before this stay tells of another one.
        fresh = [one for one in heard if one.captured_at >= visit.started_at]
        if not fresh:
            return False
        for one in fresh:
            judged = self._take(visit, one)
        if visit.reported_at is None:
            if judged.suspected:
                visit.started_at = max(visit.started_at, self._beginning(visit))
            return judged.suspected
        return at - visit.reported_at >= timedelta(seconds=self.settings.update_s)

    def _take(self, visit: Visit, one: ClipScore) -> Judgement:
        since = one.captured_at - timedelta(seconds=self.settings.window_s)
        recent = [
            [at, score]
            for at, score in visit.attributes.get(_SCORES, ())
            if datetime.fromisoformat(at) > since
        ]
        recent.append([one.captured_at.isoformat(), round(one.score, 4)])
        threshold = one.threshold if self.settings.threshold is None else self.settings.threshold
        best = sorted((score for _, score in recent), reverse=True)[: self.settings.top_clips]
        enough = len(best) == self.settings.top_clips
        now = round(sum(best) / len(best), 6) if enough else 0.0  # 3 x 0.7 is less than 2.1
        before = _judgement_of(visit)
        score = max(now, before.score if before else 0.0)
        judged = Judgement(
            score=score,
            threshold=threshold,
            suspected=score >= threshold,
            num_clips=(before.num_clips if before else 0) + 1,
            model=one.model,
        )
        visit.attributes = {_SCORES: recent, **judged.document()}
        return judged

    def _beginning(self, visit: Visit) -> datetime:
        """When the first of the highest clips began."""
        recent = visit.attributes[_SCORES]
        best = sorted(recent, key=lambda one: -float(one[1]))[: self.settings.top_clips]
        return min(datetime.fromisoformat(at) for at, _ in best) - timedelta(seconds=CLIP_S)

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


def _judgement_of(visit: Visit) -> Judgement | None:
    kept = visit.attributes
    if "score" not in kept:
        return None
    return Judgement(
        score=kept["score"],
        threshold=kept["threshold"],
        suspected=kept["decision"] == "suspected",
        num_clips=kept["clips"],
        model=ModelRef.model_validate(kept["model"]),
    )
