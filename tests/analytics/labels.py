"""Observations whose people have a label, as an attribute classifier gives it."""

from __future__ import annotations

from dataclasses import replace

from storeguard.events.event import ModelRef
from storeguard.rules.observation import Attribute, Observation

MODEL = ModelRef(name="m", sha256="1" * 64)


def labelled(observation: Observation, **labels: str) -> Observation:
    """The observation with a label of the attribute `basket` for each person named."""
    attributes = {
        person: (Attribute("basket", label, 1.0, 3, MODEL),) for person, label in labels.items()
    }
    return replace(observation, attributes=attributes)
