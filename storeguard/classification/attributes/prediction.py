"""What an attribute's classifier predicts for one person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from storeguard.events.event import ModelRef


@dataclass(frozen=True, slots=True)
class AttributePrediction:
    """The label that most of a person's votes are for.

    Attributes:
        name: the attribute, as configured.
        label: the label.
        share: of the votes, 0..1.
        num_votes: how many votes there are.
        model: the attribute's classifier.
    """

    name: str
    label: str
    share: float
    num_votes: int
    model: ModelRef

    def document(self) -> dict[str, Any]:
        """As JSON, for an event's attributes."""
        return {
            "label": self.label,
            "share": round(self.share, 4),
            "votes": self.num_votes,
            "model": self.model.model_dump(),
        }
