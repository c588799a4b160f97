"""Attribute classifiers that look at people at once, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storeguard.camera.person_attributes import PersonAttributes
from storeguard.classification.attributes.classifier import AttributeClassifier
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.classification.attributes.service import CropAnswer
from storeguard.config.models import AttributeSettings
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame


class Looks:
    """Takes the looks that are due as soon as they are.

    Args:
        camera_id: whose people.
        classifiers: each attribute with its classifier.
        forget_s: seconds after which somebody out of view has gone for good.
    """

    def __init__(
        self,
        camera_id: str,
        classifiers: Sequence[tuple[AttributeSettings, AttributeClassifier]],
        *,
        forget_s: float,
    ) -> None:
        self._classifiers = {one.name: classifier for one, classifier in classifiers}
        self._people = PersonAttributes(
            camera_id, [one for one, _ in classifiers], forget_s=forget_s
        )

    def take(self, frame: Frame, observation: Observation) -> None:
        """Look at those in a processed frame who are due."""
        self._people.seen(frame, observation)
        for request in self._people.due():
            classifier = self._classifiers[request.attribute]
            labels = tuple(classifier.label(request.cut()))
            self._people.looked(request, CropAnswer(classifier.info, labels))

    def known(self) -> Mapping[str, tuple[AttributePrediction, ...]]:
        """What is said of everybody who may still be there."""
        return self._people.known()
