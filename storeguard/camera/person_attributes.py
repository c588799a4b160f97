"""Which people of one camera are due for attribute predictions, and what was predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.attributes.crop import Crop, person_crop
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.classification.attributes.service import CropAnswer
from storeguard.classification.attributes.votes import CropPrediction, Votes
from storeguard.config.models import AttributeSettings
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame

_ROUNDING_S: Final = 1e-3  # a prediction is due at every_s, not one frame later
_STALE_S: Final = 30.0  # an answer comes within seconds, or not at all


@dataclass(frozen=True, slots=True)
class AttributeRequest:
    """A request to predict one attribute of some of the people in one frame.

    Attributes:
        attribute: its name.
        person_ids: n people.
        frame: the frame.
        xyxy: (n, 4) float32, their boxes in it as fractions 0..1.
    """

    attribute: str
    person_ids: tuple[str, ...]
    frame: Frame
    xyxy: NDArray[np.float32]

    def cut(self) -> tuple[Crop, ...]:
        """Their crops, without any overlay: (height, width, 3) uint8 RGB each."""
        width, height = self.frame.wh
        scale = np.array([width, height, width, height], dtype=np.float32)
        rgb = self.frame.rgb()
        return tuple(person_crop(rgb, box * scale) for box in self.xyxy)


@dataclass(slots=True)
class _AttributeState:
    settings: AttributeSettings
    votes: Votes
    requested_s: dict[str, float]  # by person id, stream time of the last request


class PersonAttributes:
    """Keeps when each person's attributes were last requested, and the votes. Not thread-safe.

    Args:
        camera_id: whose people.
        attributes: all attributes; those that are for other cameras only are ignored.
        forget_s: seconds out of view after which a person is forgotten.
    """

    def __init__(
        self, camera_id: str, attributes: Iterable[AttributeSettings], *, forget_s: float
    ) -> None:
        self._attributes = {
            one.name: _AttributeState(one, Votes(one), {})
            for one in attributes
            if one.applies_to(camera_id)
        }
        self._forget_s = max(forget_s, _STALE_S)
        self._seen_s: dict[str, float] = {}
        self._last: tuple[Frame, Observation] | None = None
        self.num_predictions = 0
        """Predictions received so far."""

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Add the people in a processed frame."""
        if not self._attributes:
            return
        if frame.scene_cut:  # a person in the new scene is none of those before
            self._seen_s.clear()
            self._forget()
        self._last = (frame, observation)
        for person_id in observation.person_id:
            self._seen_s[person_id] = frame.time_s
        forgotten = [
            person_id
            for person_id, at_s in self._seen_s.items()
            if frame.time_s - at_s > self._forget_s
        ]
        for person_id in forgotten:
            del self._seen_s[person_id]
        if forgotten:
            self._forget()

    def due(self, busy: Sequence[str] = ()) -> list[AttributeRequest]:
        """The requests to make now, at most one for each attribute; each is returned once.

        Args:
            busy: attributes whose last request is not answered yet.
        """
        if self._last is None:
            return []
        frame, observation = self._last
        requests = []
        for name, one in self._attributes.items():
            if name in busy:
                continue
            chosen = self._due_of(one, frame, observation)
            if chosen:
                ids = tuple(observation.person_id[i] for i in chosen)
                one.requested_s.update(dict.fromkeys(ids, frame.time_s))
                requests.append(AttributeRequest(name, ids, frame, observation.xyxy[chosen]))
        return requests

    def answered(self, request: AttributeRequest, answer: CropAnswer) -> None:
        """Add a classifier's answer; predictions for people already forgotten are discarded."""
        one = self._attributes[request.attribute]
        predictions = [
            CropPrediction(person_id, label=label[0], probability=label[1], by=answer.by)
            for person_id, label in zip(request.person_ids, answer.labels, strict=True)
            if label is not None and person_id in self._seen_s
        ]
        one.votes.count(predictions)
        self.num_predictions += len(predictions)

    def known(self) -> Mapping[str, tuple[AttributePrediction, ...]]:
        """The attributes of people who may still be in view; people without any are left out."""
        by_attribute = [one.votes.labels() for one in self._attributes.values()]
        known = {
            person_id: tuple(labels[person_id] for labels in by_attribute if person_id in labels)
            for person_id in (self._seen_s if by_attribute else ())
        }
        return {person_id: attributes for person_id, attributes in known.items() if attributes}

    def _due_of(self, one: _AttributeState, frame: Frame, observation: Observation) -> list[int]:
        sizes = (observation.xyxy[:, 2:] - observation.xyxy[:, :2]) * frame.wh
        every_s = one.settings.every_s - _ROUNDING_S
        return [
            i
            for i, person_id in enumerate(observation.person_id)
            if sizes[i, 0] >= 1  # a box outside the picture has no pixels
            and sizes[i, 1] >= one.settings.min_height_px
            and frame.time_s - one.requested_s.get(person_id, -np.inf) >= every_s
        ]

    def _forget(self) -> None:
        for one in self._attributes.values():
            one.votes.forget_all_but(self._seen_s)
            one.requested_s = {
                name: at for name, at in one.requested_s.items() if name in self._seen_s
            }
