"""Handles of the model deployments that a store's cameras call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.serve.handle import DeploymentHandle


@dataclass(frozen=True, slots=True)
class Models:
    """Handles of the deployments.

    Attributes:
        detector: finds people.
        classifier: classifies clips; None where no rule needs it.
        attributes: each attribute's classifier, by the attribute's name.
    """

    detector: DeploymentHandle[Any]
    classifier: DeploymentHandle[Any] | None = None
    attributes: Mapping[str, DeploymentHandle[Any]] = field(default_factory=dict)
