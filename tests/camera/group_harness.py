"""A group of cameras with a detector and rules that tests control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from storeguard.camera.group import CameraGroup, GroupLimits
from storeguard.camera.status import CameraStatus
from storeguard.config.models import LayoutName, Resize, TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.detections import Detections
from storeguard.detection.detector import DetectorInfo, DetectTiming
from storeguard.detection.service import Found, FrameBatch
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from tests.camera.held_clock import NEVER_S

INFO = DetectorInfo(
    name="fake",
    sha256="0" * 64,
    backend="fake",
    precision="fp32",
    layout=LayoutName.YOLOX,
    input_wh=(64, 64),
    resize=Resize.LETTERBOX,
    centred=True,
)
TIMING = DetectTiming(preprocess_ms=0.1, infer_ms=1.0, postprocess_ms=0.1)
REFUSED = Found(None, 0.0, None, 0)


class Detector:
    """Detects one person in the middle of every frame, after `delay_s`, once `answers` is set.

    Without a delay it answers at once: no stall of the machine is taken for a slow detector.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = 0
        self.refuses = False
        self.batches: list[tuple[str, ...]] = []

    @property
    def num_frames(self) -> int:
        """Frames received so far."""
        return sum(map(len, self.batches))

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        self.batches.append(batch.camera_id)
        assert batch.images.shape == (len(batch.camera_id), 64, 64, 3)
        await self.answers.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("the replica died")
        if self.refuses:
            return [REFUSED for _ in batch.camera_id]
        person = Detections.of([[16, 16, 48, 48]], [0.9])
        return [Found(person, 0.0, TIMING, len(batch.camera_id)) for _ in batch.camera_id]

    def answer(self) -> None:
        """Answer the calls that wait now, and no later one.

        Calls may arrive in another order than they were made in: a call that is not here yet can
        hold earlier frames than one that is.
        """
        self.answers.set()
        self.answers.clear()


class Rules:
    """Keeps the observations that it receives."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []

    async def observe(self, observations: Sequence[Observation]) -> Sequence[Verdict]:
        self.observations += observations
        return [Verdict(observation.camera_id) for observation in observations]

    def of(self, camera_id: str) -> list[Observation]:
        """The observations of one camera."""
        return [one for one in self.observations if one.camera_id == camera_id]


@asynccontextmanager
async def running(
    cameras: list[CameraConfig],
    detector: Detector,
    rules: Rules,
    *,
    call_timeout_s: float = NEVER_S,
    max_calls: int = 3,
    give_up_s: float = NEVER_S,
    **settings: Any,
) -> AsyncIterator[CameraGroup]:
    """A group of cameras; at the end the detector answers what still waits."""
    limits = GroupLimits(
        call_timeout_s=call_timeout_s,
        max_calls=max_calls,
        give_up_s=give_up_s,
        recorder_retry_s=0.1,
    )
    group = CameraGroup(
        info=INFO,
        detect=detector.detect,
        observe=rules.observe,
        tracker=TrackerSettings(),
        limits=limits,
        **settings,
    )
    group.start()
    try:
        await group.set_cameras(cameras)
        yield group
    finally:
        detector.answers.set()
        await group.stop()


def by_id(group: CameraGroup) -> dict[str, CameraStatus]:
    """The status of each camera."""
    return {status.id: status for status in group.statuses()}


def street(bikes: Path, name: str = "street", **settings: Any) -> CameraConfig:
    """A film that plays again and again, as fast as a live camera."""
    return CameraConfig(id=name, source=str(bikes), loop=True, **settings)


def film(bikes: Path) -> CameraConfig:
    """The film once, at full pace: 250 frames."""
    return CameraConfig(id="film", source=str(bikes), pace="fast", detect_fps=240)
