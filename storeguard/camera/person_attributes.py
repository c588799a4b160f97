"""Which people of one camera are due for a look by attribute classifiers, and what was said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.attributes.crop import Crop, person_crop
from storeguard.classification.attributes.service import CropAnswer
from storeguard.classification.attributes.votes import CropPrediction, Votes
from storeguard.config.models import AttributeSettings
from storeguard.rules.observation import Attribute, Observation
from storeguard.video.frame import Frame

_ROUNDING_S: Final = 1e-3  # a person's look is due at every_s, not one frame later
_STALE_S: Final = 30.0  # an answer comes within seconds, or not at all


@dataclass(frozen=True, slots=True)
class LookRequest:
    """A look at some of the people in one frame.

    Attributes:
        attribute: whose classifier.
        person_ids: who, n of them.
        frame: the frame.
        xyxy: (n, 4) float32, their boxes in it as fractions 0..1.
    """

    attribute: str
    person_ids: tuple[str, ...]
    frame: Frame
    xyxy: NDArray[np.float32]

    def cut(self) -> tuple[Crop, ...]:
        """Their crops, out of the clean picture."""
        width, height = self.frame.wh
        scale = np.array([width, height, width, height], dtype=np.float32)
        rgb = self.frame.rgb()
        return tuple(person_crop(rgb, box * scale) for box in self.xyxy)


@dataclass(slots=True)
class _Attribute:
    settings: AttributeSettings
    votes: Votes
    asked_s: dict[str, float]


class PersonAttributes:
    """Keeps when each person was last looked at, and the votes. Not thread-safe.

    Args:
        camera_id: whose people.
        attributes: all attributes; those that look at other cameras only are passed over.
        forget_s: seconds after which somebody out of view has gone for good.
    """

    def __init__(
        self, camera_id: str, attributes: Iterable[AttributeSettings], *, forget_s: float
    ) -> None:
        self._attributes = {
            one.name: _Attribute(one, Votes(one), {})
            for one in attributes
            if one.looks_at(camera_id)
        }
        self._forget_s = max(forget_s, _STALE_S)
        self._seen_s: dict[str, float] = {}
        self._last: tuple[Frame, Observation] | None = None
        self.num_looks = 0
        """Looks that were answered."""

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Take in who was where in a processed frame."""
        if not self._attributes:
            return
        if frame.scene_cut:  # whoever was seen before cannot be who is seen now
            self._seen_s.clear()
            self._forget()
        self._last = (frame, observation)
        for person_id in observation.person_id:
            self._seen_s[person_id] = frame.time_s
        gone = [
            person_id
            for person_id, at_s in self._seen_s.items()
            if frame.time_s - at_s > self._forget_s
        ]
        for person_id in gone:
            del self._seen_s[person_id]
        if gone:
            self._forget()

    def due(self, busy: Sequence[str] = ()) -> list[LookRequest]:
        """The looks to be taken now, at most one an attribute; each is given out once.

        Args:
            busy: attributes whose last look is not answered yet.
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
                one.asked_s.update(dict.fromkeys(ids, frame.time_s))
                requests.append(LookRequest(name, ids, frame, observation.xyxy[chosen]))
        return requests

    def looked(self, request: LookRequest, answer: CropAnswer) -> None:
        """Take in what a classifier said; of people who have gone for good nothing is kept."""
        one = self._attributes[request.attribute]
        looks = [
            CropPrediction(person_id, label=said[0], probability=said[1], by=answer.by)
            for person_id, said in zip(request.person_ids, answer.labels, strict=True)
            if said is not None and person_id in self._seen_s
        ]
        one.votes.count(looks)
        self.num_looks += len(looks)

    def said(self, person_ids: Iterable[str]) -> Mapping[str, tuple[Attribute, ...]]:
        """What is said of these people so far; without those of whom nothing is."""
        if not self._attributes:
            return {}
        found = {}
        for person_id in person_ids:
            known = tuple(
                said
                for one in self._attributes.values()
                if (said := one.votes.labels().get(person_id)) is not None
            )
            if known:
                found[person_id] = known
        return found

    def known(self) -> Mapping[str, tuple[Attribute, ...]]:
        """What is said of everybody who may still be there."""
        return self.said(self._seen_s)

    def _due_of(self, one: _Attribute, frame: Frame, observation: Observation) -> list[int]:
        sizes = (observation.xyxy[:, 2:] - observation.xyxy[:, :2]) * frame.wh
        every_s = one.settings.every_s - _ROUNDING_S
        return [
            i
            for i, person_id in enumerate(observation.person_id)
            if sizes[i, 0] >= 1  # who has all but left the picture has nothing to cut out
            and sizes[i, 1] >= one.settings.min_height_px
            and frame.time_s - one.asked_s.get(person_id, -np.inf) >= every_s
        ]

    def _forget(self) -> None:
        for one in self._attributes.values():
            one.votes.forget_all_but(self._seen_s)
            one.asked_s = {name: at for name, at in one.asked_s.items() if name in self._seen_s}
