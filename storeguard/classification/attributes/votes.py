"""A majority vote for each person: their label by the latest predictions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storeguard.classification.attributes.classifier import AttributeInfo
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.config.models import AttributeSettings
from storeguard.events.event import ModelRef


@dataclass(frozen=True, slots=True)
class CropPrediction:
    """What an attribute's classifier predicts from one crop of one person.

    Attributes:
        person_id: the person.
        label: the most probable one; probability: its probability, 0..1.
        by: the classifier.
    """

    person_id: str
    label: str
    probability: float
    by: AttributeInfo


class Votes:
    """The votes of one attribute for the people of one camera.

    A prediction counts as a vote from `min_score` on. A person has a label from `min_votes` votes
    on: the label of most of the latest `max_votes`. At a tie the label before stays, if any.

    Args:
        settings: the attribute's.
    """

    def __init__(self, settings: AttributeSettings) -> None:
        self._settings = settings
        self._votes: dict[str, deque[str]] = {}
        self._labels: dict[str, AttributePrediction] = {}

    def count(self, predictions: Iterable[CropPrediction]) -> None:
        """Count predictions, in the order of their crops."""
        for prediction in predictions:
            if prediction.probability >= self._settings.min_score:
                self._vote(prediction)

    def labels(self) -> Mapping[str, AttributePrediction]:
        """The people's labels now, by person id."""
        return self._labels

    def forget_all_but(self, person_ids: Iterable[str]) -> None:
        """Drop the votes of all other people: they have left."""
        stay = set(person_ids)
        for person_id in [name for name in self._votes if name not in stay]:
            del self._votes[person_id]
            self._labels.pop(person_id, None)

    def _vote(self, prediction: CropPrediction) -> None:
        votes = self._votes.get(prediction.person_id)
        if votes is None:
            votes = self._votes[prediction.person_id] = deque(maxlen=self._settings.max_votes)
        votes.append(prediction.label)
        if len(votes) < self._settings.min_votes:
            return
        (first, most), *others = Counter(votes).most_common(2)
        before = self._labels.get(prediction.person_id)
        if others and others[0][1] == most:
            if before is None:
                return
            first = before.label
        self._labels[prediction.person_id] = AttributePrediction(
            name=self._settings.name,
            label=first,
            share=votes.count(first) / len(votes),
            num_votes=len(votes),
            model=ModelRef(name=prediction.by.name, sha256=prediction.by.sha256),
        )
