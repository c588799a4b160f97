"""An attribute's classifier as a service: batches many cameras' crops, without a framework."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storeguard.classification.attributes.classifier import (
    AttributeClassifier,
    AttributeInfo,
    LabelledCrop,
)
from storeguard.classification.attributes.crop import FILL_RGB, Crop
from storeguard.config.models import AttributeSettings
from storeguard.inference.batched import BatchedModel, QueueLimits
from storeguard.inference.batcher import BatcherStats


@dataclass(frozen=True, slots=True)
class CropBatch:
    """Crops of one camera's people, sent in one call.

    Attributes:
        camera_id: whose.
        crops: one a person (see `attributes.crop.Crop`), of any sizes.
    """

    camera_id: str
    crops: tuple[Crop, ...]

    def __post_init__(self) -> None:
        for crop in self.crops:
            if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or not crop.size:
                raise ValueError(
                    f"camera {self.camera_id!r}: expected crops (height, width, 3) uint8, got "
                    f"{crop.shape} {crop.dtype}"
                )


@dataclass(frozen=True, slots=True)
class CropAnswer:
    """The predictions for a `CropBatch`.

    Attributes:
        by: the classifier that made them.
        labels: one a crop, in order; None for a crop refused because the queue was full.
    """

    by: AttributeInfo
    labels: tuple[LabelledCrop | None, ...]


class AttributeService:
    """One attribute's classifier behind a batcher. Lives in one event loop.

    Args:
        classifier: called in a thread of its own.
        settings: the queue's bounds.
    """

    def __init__(self, classifier: AttributeClassifier, settings: AttributeSettings) -> None:
        self._classifier = classifier
        self._model: BatchedModel[Crop, LabelledCrop] = BatchedModel(
            self._classifier.label,
            limits=QueueLimits(settings.max_batch, settings.max_wait_ms, settings.max_queue),
            name=f"attribute-{settings.name}",
        )

    @property
    def info(self) -> AttributeInfo:
        """The classifier's model, labels and backend."""
        return self._classifier.info

    async def label(self, batch: CropBatch) -> CropAnswer:
        """Label crops together with those of other cameras."""
        return CropAnswer(self.info, await self._model.predict(batch.camera_id, batch.crops))

    async def check(self, deadline_s: float = 20.0) -> None:
        """Label a blank crop.

        Raises:
            TimeoutError: no result within the deadline.
        """
        await self._model.check(np.full((8, 4, 3), FILL_RGB, np.uint8), deadline_s=deadline_s)

    def stats(self) -> BatcherStats:
        """The batcher's counts."""
        return self._model.stats()

    async def close(self, deadline_s: float = 5.0) -> None:
        """Refuse the waiting crops and stop, at the latest after the deadline."""
        await self._model.close(deadline_s)
