"""Attribute predictions made at once, in this process, for a file that is processed offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storeguard.camera.person_attributes import PersonAttributes
from storeguard.classification.attributes.classifier import AttributeClassifier
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.classification.attributes.service import CropAnswer
from storeguard.config.models import AttributeSettings
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame


class AttributePredictions:
    """Makes the predictions that are due as soon as they are.

    Args:
        camera_id: whose people.
        classifiers: each attribute with its classifier.
        forget_s: seconds out of view after which a person is forgotten.
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

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Make the predictions that are due for the people in a processed frame."""
        self._people.seen(frame, observation)
        for request in self._people.due():
            classifier = self._classifiers[request.attribute]
            labels = tuple(classifier.label(request.cut()))
            self._people.answered(request, CropAnswer(classifier.info, labels))

    def known(self) -> Mapping[str, tuple[AttributePrediction, ...]]:
        """The attributes of each person who may still be there."""
        return self._people.known()
