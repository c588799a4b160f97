"""The clip classifier as a service: batches many cameras' clips, free of serving frameworks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.classifier import ClassifierInfo, ClipClassifier
from storeguard.classification.clip import CLIP_FRAMES, SIDE_PX, Clip
from storeguard.detection.batcher import Batcher, BatcherStats
from storeguard.errors import OverloadedError
from storeguard.model_config import ClassifierSettings


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
        wanted = (CLIP_FRAMES, SIDE_PX, SIDE_PX, 3)
        if self.clips.shape[1:] != wanted or self.clips.dtype != np.uint8:
            raise ValueError(
                f"camera {self.camera_id!r}: expected clips (n, {', '.join(map(str, wanted))}) "
                f"uint8, got {self.clips.shape} {self.clips.dtype}"
            )


@dataclass(frozen=True, slots=True)
class ClipAnswer:
    """What was said about a `ClipBatch`, and by whom.

    Attributes:
        by: the classifier, which may be another one tomorrow.
        probability: 0..1, one a clip, in order; None for one refused because too many were waiting.
    """

    by: ClassifierInfo
    probability: tuple[float | None, ...]


class ClassifierService:
    """One clip classifier behind a batcher. Lives in one event loop; the model runs in a thread."""

    def __init__(self, settings: ClassifierSettings) -> None:
        self._classifier = ClipClassifier(settings)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="classify")
        self._batcher: Batcher[Clip, float] = Batcher(
            lambda clips: [float(score) for score in self._classifier.score(clips)],
            self._executor,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_ms / 1e3,
            max_queue=settings.max_queue,
        )

    @property
    def info(self) -> ClassifierInfo:
        """What the classifier is."""
        return self._classifier.info

    async def classify(self, batch: ClipBatch) -> ClipAnswer:
        """Judge clips together with those of other cameras."""
        judging = (self._judge(batch.camera_id, clip) for clip in batch.clips)
        return ClipAnswer(self.info, tuple(await asyncio.gather(*judging)))

    async def check(self, deadline_s: float = 20.0) -> None:
        """Judge a blank clip.

        Raises:
            TimeoutError: no answer within the deadline.
        """
        blank = np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
        answer = asyncio.get_running_loop().run_in_executor(
            self._executor, self._classifier.score, [blank]
        )
        await asyncio.wait_for(answer, deadline_s)

    def stats(self) -> BatcherStats:
        """The batcher's counts."""
        return self._batcher.stats()

    async def close(self) -> None:
        """Refuse what waits and stop."""
        await self._batcher.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _judge(self, lane: str, clip: Clip) -> float | None:
        try:
            return (await self._batcher.submit(lane, clip)).value
        except OverloadedError:
            return None
