"""A majority vote for each person: what their label is, going by their latest looks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storeguard.classification.attributes.classifier import AttributeInfo
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.config.models import AttributeSettings
from storeguard.events.event import ModelRef


@dataclass(frozen=True, slots=True)
class Look:
    """What an attribute's classifier said about one crop of one person.

    Attributes:
        person_id: who.
        label: the most probable one; probability: its probability, 0..1.
        by: the classifier.
    """

    person_id: str
    label: str
    probability: float
    by: AttributeInfo


class Votes:
    """The votes of one attribute for the people of one camera.

    A look counts as a vote from `min_score` on. A person has a label from `min_votes` votes on:
    the one that most of the latest `max_votes` are for; while two have as many, what was said
    before stays, or nothing is said yet.

    Args:
        settings: the attribute's.
    """

    def __init__(self, settings: AttributeSettings) -> None:
        self._settings = settings
        self._votes: dict[str, deque[str]] = {}
        self._said: dict[str, AttributePrediction] = {}

    def take(self, looks: Iterable[Look]) -> None:
        """Take in looks, in the order in which they were taken."""
        for look in looks:
            if look.probability >= self._settings.min_score:
                self._vote(look)

    def said(self) -> Mapping[str, AttributePrediction]:
        """What is said of people now, by person id."""
        return self._said

    def forget_all_but(self, person_ids: Iterable[str]) -> None:
        """Drop the votes of everybody else: they have gone for good."""
        stay = set(person_ids)
        for person_id in [name for name in self._votes if name not in stay]:
            del self._votes[person_id]
            self._said.pop(person_id, None)

    def _vote(self, look: Look) -> None:
        votes = self._votes.get(look.person_id)
        if votes is None:
            votes = self._votes[look.person_id] = deque(maxlen=self._settings.max_votes)
        votes.append(look.label)
        if len(votes) < self._settings.min_votes:
            return
        (first, most), *others = Counter(votes).most_common(2)
        before = self._said.get(look.person_id)
        if others and others[0][1] == most:
            if before is None:
                return
            first = before.label
        self._said[look.person_id] = AttributePrediction(
            name=self._settings.name,
            label=first,
            share=votes.count(first) / len(votes),
            num_votes=len(votes),
            model=ModelRef(name=look.by.name, sha256=look.by.sha256),
        )
