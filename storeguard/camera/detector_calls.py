"""Detector calls: frames of several cameras in, one result for each frame out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from storeguard.detection.detections import Detections
from storeguard.detection.detector import DetectorInfo, DetectTiming
from storeguard.detection.letterbox import Fit, place
from storeguard.detection.service import Found, FrameBatch
from storeguard.video.frame import Frame

_log = logging.getLogger(__name__)

_PAUSE_AFTER_ERROR_S = 0.2

DetectCall = Callable[[FrameBatch], Awaitable[Sequence[Found]]]


class LossCause(StrEnum):
    """Why a frame has no detections; the values are keys of `CameraStatus.dropped`."""

    UNDECODABLE = "undecodable"
    """The frame cannot be scaled; a retry would not help."""
    DETECTOR_FULL = "detector_full"
    DETECTOR_TIMEOUT = "detector_timeout"
    DETECTOR_ERROR = "detector_error"


@dataclass(frozen=True, slots=True)
class Detected:
    """A frame with its detections.

    Attributes:
        fit: how the frame was fitted into the detector's input.
        detections: people, in pixels of the detector's input.
        timing: of its batch.
        queue_ms: time it waited for its batch.
    """

    frame: Frame
    fit: Fit
    detections: Detections
    timing: DetectTiming
    queue_ms: float


@dataclass(frozen=True, slots=True)
class Undetected:
    """A frame without detections, and why."""

    frame: Frame
    cause: LossCause


FrameResult = Detected | Undetected


@dataclass(frozen=True, slots=True)
class RenderedFrames:
    """Frames at the detector's size.

    Attributes:
        fits: one for each frame; None for a frame that cannot be scaled.
        images: (n, height, width, 3) uint8 RGB, without the frames that cannot be scaled.
    """

    fits: tuple[Fit | None, ...]
    images: NDArray[np.uint8]


class DetectorCalls:
    """Renders frames and sends them to the detector.

    Args:
        info: the detector's input size and the way frames are fitted into it.
        detect: one detector call for frames of several cameras.
        pool: where frames are rendered.
        timeout_s: a call that takes longer is abandoned.
    """

    def __init__(
        self, info: DetectorInfo, detect: DetectCall, *, pool: Executor, timeout_s: float
    ) -> None:
        self._info = info
        self._detect = detect
        self._pool = pool
        self._timeout_s = timeout_s

    async def results(self, frames: Sequence[Frame]) -> list[FrameResult]:
        """Make one call; returns one result for each frame, in order, whatever goes wrong."""
        loop = asyncio.get_running_loop()
        try:
            rendered = await loop.run_in_executor(self._pool, render, frames, self._info)
        except Exception as error:  # noqa: BLE001 - e.g. out of memory
            cause = await self._failed(frames, error)
            return [Undetected(frame, cause) for frame in frames]
        fitted = [frame for frame, fit in zip(frames, rendered.fits, strict=True) if fit]
        answers = iter(await self._answers(fitted, rendered.images))
        return [
            Undetected(frame, LossCause.UNDECODABLE)
            if fit is None
            else _result(frame, fit, next(answers))
            for frame, fit in zip(frames, rendered.fits, strict=True)
        ]

    async def _answers(
        self, frames: Sequence[Frame], images: NDArray[np.uint8]
    ) -> Sequence[Found | LossCause]:
        """The detector's answer to each frame, or why there is none."""
        if not frames:
            return []
        batch = FrameBatch(tuple(frame.camera_id for frame in frames), images)
        try:
            found = await asyncio.wait_for(self._detect(batch), self._timeout_s)
            if len(found) != len(frames):
                raise ValueError(f"expected {len(frames)} answers, got {len(found)}")  # noqa: TRY301
        except TimeoutError:
            return [LossCause.DETECTOR_TIMEOUT] * len(frames)
        except Exception as error:  # noqa: BLE001 - a replica's death has many names
            return [await self._failed(frames, error)] * len(frames)
        return found

    async def _failed(self, frames: Sequence[Frame], error: Exception) -> LossCause:
        """Log a failed call, and pause: a dead detector is not hammered."""
        cameras = ", ".join(dict.fromkeys(frame.camera_id for frame in frames))
        _log.warning("a detector call failed for cameras %s: %r", cameras, error)
        await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
        return LossCause.DETECTOR_ERROR


def render(frames: Sequence[Frame], info: DetectorInfo) -> RenderedFrames:
    """Frames of any size at the detector's size."""
    width, height = info.input_wh
    images = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    fits: list[Fit | None] = []
    num_scaled = 0
    for frame in frames:
        try:
            fit = info.fit(frame.wh)
            place(frame, fit, images[num_scaled])
        except Exception:  # noqa: BLE001 - one frame's fault must not cost the others
            _log.exception("camera %r: frame %d cannot be scaled", frame.camera_id, frame.index)
            fits.append(None)
        else:
            fits.append(fit)
            num_scaled += 1
    return RenderedFrames(tuple(fits), images[:num_scaled])


def _result(frame: Frame, fit: Fit, answer: Found | LossCause) -> FrameResult:
    if isinstance(answer, LossCause):
        return Undetected(frame, answer)
    if answer.detections is None or answer.timing is None:
        return Undetected(frame, LossCause.DETECTOR_FULL)
    return Detected(frame, fit, answer.detections, answer.timing, answer.queue_ms)
