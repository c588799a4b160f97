"""The clip classifier as a service: batches many cameras' clips, free of serving frameworks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.clips.classifier import ClassifierInfo, ClipClassifier
from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX, Clip
from storeguard.config.models import ClassifierSettings
from storeguard.inference.batched import BatchedModel, QueueLimits
from storeguard.inference.batcher import BatcherStats


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """Clips of one camera, sent in one call.

    Attributes:
        camera_id: whose.
        clips: (n, CLIP_FRAMES, SIDE_PX, SIDE_PX, 3) uint8 RGB, each of one person.
    """

    camera_id: str
    clips: NDArray[np.uint8]

    def __post_init__(self) -> None:
        expected = (CLIP_FRAMES, SIDE_PX, SIDE_PX, 3)
        if self.clips.shape[1:] != expected or self.clips.dtype != np.uint8:
            raise ValueError(
                f"camera {self.camera_id!r}: expected clips (n, {', '.join(map(str, expected))}) "
                f"uint8, got {self.clips.shape} {self.clips.dtype}"
            )


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """The predictions for a `ClipBatch`.

    Attributes:
        by: the classifier that made them.
        probability: 0..1, one a clip, in order; None for a clip refused because the queue was full.
    """

    by: ClassifierInfo
    probability: tuple[float | None, ...]


class ClassifierService:
    """One clip classifier behind a batcher. Lives in one event loop; the model runs in a thread.

    Args:
        classifier: called in that thread alone.
        settings: the queue's bounds.
    """

    def __init__(self, classifier: ClipClassifier, settings: ClassifierSettings) -> None:
        self._classifier = classifier
        self._model: BatchedModel[Clip, float] = BatchedModel(
            lambda clips: [float(score) for score in self._classifier.score(clips)],
            limits=QueueLimits(settings.max_batch, settings.max_wait_ms, settings.max_queue),
            name="classify",
        )

    @property
    def info(self) -> ClassifierInfo:
        """The classifier's model and backend."""
        return self._classifier.info

    async def classify(self, batch: ClipBatch) -> ClipAnswer:
        """Classify clips together with those of other cameras."""
        return ClipAnswer(self.info, await self._model.predict(batch.camera_id, list(batch.clips)))

    async def check(self, deadline_s: float = 20.0) -> None:
        """Classify a blank clip.

        Raises:
            TimeoutError: no result within the deadline.
        """
        blank = np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
        await self._model.check(blank, deadline_s=deadline_s)

    def stats(self) -> BatcherStats:
        """The batcher's counts."""
        return self._model.stats()

    async def close(self, deadline_s: float = 5.0) -> None:
        """Refuse the waiting clips and stop, at the latest after the deadline."""
        await self._model.close(deadline_s)
