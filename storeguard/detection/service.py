"""The detector as a service: batches frames of many cameras, free of any serving framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import DetectorSettings
from storeguard.detection.detections import Detections
from storeguard.detection.detector import DetectFunction, Detector, DetectorInfo, DetectTiming
from storeguard.detection.letterbox import PAD_VALUE
from storeguard.errors import OverloadedError
from storeguard.inference.batcher import Batched, Batcher, BatcherStats

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames of one or several cameras, sent in one call.

    Attributes:
        camera_id: (n,) whose frame each is.
        images: (n, height, width, 3) uint8 RGB of the model's input size.
    """

    camera_id: tuple[str, ...]
    images: Image

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.camera_id):
            raise ValueError(
                f"expected ({len(self.camera_id)}, height, width, 3) images, got "
                f"{self.images.shape}"
            )


@dataclass(frozen=True, slots=True)
class Found:
    """The people found in one frame of a `FrameBatch`.

    Attributes:
        detections: people, in pixels of the model's input; None if the frame was refused because
            the queue was full.
        queue_ms: time it waited for its batch.
        timing: of its batch; None if refused.
        batch_size: frames in its batch; 0 if refused.
    """

    detections: Detections | None
    queue_ms: float
    timing: DetectTiming | None
    batch_size: int


class DetectorService:
    """One detector behind a batcher. Lives in one event loop; the model runs in a thread.

    Args:
        detector: called in that thread alone.
        settings: the queue's bounds.
    """

    def __init__(self, detector: Detector, settings: DetectorSettings) -> None:
        self._detector = detector
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="infer")
        self._batcher: Batcher[Image, tuple[Detections, DetectTiming]] = Batcher(
            _per_image(self._detector.detect),
            self._executor,
            max_batch=settings.max_batch,
            max_wait_s=settings.max_wait_ms / 1e3,
            max_queue=settings.max_queue,
        )

    @property
    def info(self) -> DetectorInfo:
        """The detector's model, backend and input."""
        return self._detector.info

    async def detect(self, batch: FrameBatch) -> tuple[Found, ...]:
        """Find people in each frame of a batch; one `Found` a frame, in order.

        Raises:
            ValueError: the images are not of the model's input size. Batched with others they
                would make the others' batch fail too.
        """
        expected = (*self.info.input_wh[::-1], 3)
        if batch.images.shape[1:] != expected or batch.images.dtype != np.uint8:
            raise ValueError(
                f"cameras {', '.join(sorted(set(batch.camera_id)))}: expected images (n, "
                f"{', '.join(map(str, expected))}) uint8, got {batch.images.shape} "
                f"{batch.images.dtype}"
            )
        return tuple(
            await asyncio.gather(
                *(
                    self._find(lane, image)
                    for lane, image in zip(batch.camera_id, batch.images, strict=True)
                )
            )
        )

    async def check(self, deadline_s: float = 10.0) -> None:
        """Infer on a blank picture, right after the running batch: a full queue is no fault.

        Raises:
            TimeoutError: no result within the deadline.
        """
        width, height = self.info.input_wh
        blank = np.full((1, height, width, 3), PAD_VALUE, np.uint8)
        answer = asyncio.get_running_loop().run_in_executor(
            self._executor, self._detector.detect, blank
        )
        await asyncio.wait_for(answer, deadline_s)

    def stats(self) -> BatcherStats:
        """The batcher's counts."""
        return self._batcher.stats()

    async def close(self, deadline_s: float = 5.0) -> None:
        """Refuse the waiting frames and stop, at the latest after the deadline."""
        await self._batcher.close(deadline_s)
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _find(self, lane: str, image: Image) -> Found:
        try:
            answer: Batched[tuple[Detections, DetectTiming]] = await self._batcher.submit(
                lane, image
            )
        except OverloadedError:
            return Found(None, 0.0, None, 0)
        detections, timing = answer.value
        return Found(detections, answer.queued_ms, timing, answer.batch_size)


def _per_image(
    detect: DetectFunction,
) -> Callable[[list[Image]], list[tuple[Detections, DetectTiming]]]:
    """A detector's function on a list of single images, as the batcher calls it."""

    def run(images: list[Image]) -> list[tuple[Detections, DetectTiming]]:
        found, timing = detect(images[0][None] if len(images) == 1 else np.stack(images))
        return [(detections, timing) for detections in found]

    return run
