"""The models behind the detector: clip and attribute classifiers. Frames never wait for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

import numpy as np

from storeguard.camera.person_attributes import AttributeRequest
from storeguard.camera.person_clips import ClipRequest
from storeguard.camera.pipeline import CameraPipeline
from storeguard.classification.attributes.service import CropAnswer, CropBatch
from storeguard.classification.clips.service import ClipAnswer, ClipBatch

_log = logging.getLogger(__name__)

ClassifyCall = Callable[[ClipBatch], Awaitable[ClipAnswer]]
LabelCall = Callable[[str, CropBatch], Awaitable[CropAnswer]]
"""One call of a named attribute's classifier."""

_CLIPS = "clip classifier"


class SecondStage:
    """Has clips classified and attributes predicted: one call for each camera and model at a time.

    A slow or failing model costs only its own answers.

    Args:
        pool: clips and crops are cut here.
        classify: one call of the clip classifier; None classifies no clips.
        label: one call of an attribute's classifier; None predicts no attributes.
        timeout_s: a call that takes longer is abandoned.
    """

    def __init__(
        self,
        pool: Executor,
        *,
        classify: ClassifyCall | None,
        label: LabelCall | None,
        timeout_s: float,
    ) -> None:
        self._pool = pool
        self._classify_call = classify
        self._label_call = label
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._calls: dict[tuple[str, str], asyncio.Task[None]] = {}

    def start_due(self, pipeline: CameraPipeline) -> None:
        """Start the calls that are due for a camera."""
        camera_id = pipeline.camera.id
        key = (camera_id, _CLIPS)
        classify, label = self._classify_call, self._label_call
        if classify is not None and key not in self._calls and (due := pipeline.clips.due()):
            self._start(key, self._classify(pipeline, due, classify))
        if label is not None:
            busy = [model for camera, model in self._calls if camera == camera_id]
            for request in pipeline.attributes.due(busy):
                self._start((camera_id, request.attribute), self._label(pipeline, request, label))

    async def stop(self) -> None:
        """Abandon the calls that are under way."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _start(self, key: tuple[str, str], work: Coroutine[Any, Any, None]) -> None:
        async def answered() -> None:
            try:
                await asyncio.wait_for(work, self._timeout_s)
            except Exception as error:  # noqa: BLE001 - a replica's death has many names
                _log.warning("camera %r: %s did not answer: %r", *key, error)
            finally:
                del self._calls[key]

        self._calls[key] = asyncio.create_task(answered())

    async def _classify(
        self, pipeline: CameraPipeline, requests: list[ClipRequest], classify: ClassifyCall
    ) -> None:
        clips = await self._loop.run_in_executor(
            self._pool, lambda: np.stack([request.cut() for request in requests])
        )
        answer = await classify(ClipBatch(pipeline.camera.id, clips))
        pipeline.classified(
            request.scored(probability, answer.by)
            for request, probability in zip(requests, answer.probability, strict=True)
            if probability is not None
        )

    async def _label(
        self, pipeline: CameraPipeline, request: AttributeRequest, label: LabelCall
    ) -> None:
        crops = await self._loop.run_in_executor(self._pool, request.cut)
        answer = await label(request.attribute, CropBatch(pipeline.camera.id, crops))
        pipeline.attributes.answered(request, answer)
