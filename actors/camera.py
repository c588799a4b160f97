"""The camera actor: a `CameraGroup` on a Ray node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.lease import Lease
from actors.models import Models
from storeguard.camera.group import CameraGroup
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.status import CameraStatus
from storeguard.classification.attributes.service import CropAnswer, CropBatch
from storeguard.classification.clips.service import ClipAnswer, ClipBatch
from storeguard.clock import Clock
from storeguard.config.models import AttributeSettings, TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.service import Found, FrameBatch
from storeguard.errors import ModelError
from storeguard.events.commands import RecordCommand
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.recorder import RecordingPlace
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict

LEASE_S = 60.0


class CameraActor:
    """Decodes its cameras and follows the people in them; calls the detector through Serve, and
    sends observations to the rules.

    Args:
        name: the actor's own name, for the log.
        models: handles of the model deployments.
        rules: the rules actor.
        tracker: how people are followed.
        attributes: which of their attributes are predicted.
        recording: where cameras record to.
        clock: time; None takes the machine's.
    """

    def __init__(
        self,
        name: str,
        *,
        models: Models,
        rules: ActorHandle[Any],
        tracker: TrackerSettings,
        attributes: Sequence[AttributeSettings] = (),
        recording: RecordingPlace,
        clock: Clock | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        self._name = name
        self._models = models
        self._rules = rules
        self._tracker = tracker
        self._attributes = attributes
        self._recording = recording
        self._clock = clock
        self._group: CameraGroup | None = None
        self._starting = asyncio.Lock()
        self._changing = asyncio.Lock()
        self._lease = Lease(name, lasts_s=LEASE_S, expired=self._end)
        self._watch: asyncio.Task[None] | None = None

    async def set_cameras(self, cameras: Sequence[CameraConfig]) -> None:
        """Run exactly these cameras; the ones whose settings did not change are not touched."""
        group = await self._ready()
        async with self._changing:
            await group.set_cameras(cameras)

    async def statuses(self) -> list[CameraStatus]:
        """How each camera is doing; renews the lease."""
        self._lease.renew()
        return self._group.statuses() if self._group else []

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        """The last processed frame as JPEG; None if there was no such picture in time."""
        group = await self._ready()
        return await group.picture(camera_id, query)

    async def record(self, camera_id: str, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record.

        Raises:
            NotFoundError: the camera is not here.
            QueryError: the span is not possible.
            RecordingError: the camera cannot record, or has nothing to stop.
        """
        group = await self._ready()
        return await group.record(camera_id, command)

    async def node_id(self) -> str:
        """The node this runs on, on whose disk it records."""
        return str(ray.get_runtime_context().get_node_id())

    async def stop(self) -> None:
        """Stop the cameras and deliver what is left."""
        async with self._changing:  # a camera that is being removed finishes its recordings
            if self._group is not None:
                await self._group.stop()
                self._group = None

    async def _ready(self) -> CameraGroup:
        async with self._starting:
            if self._group is None:
                info = await self._models.detector.info.remote()
                self._group = CameraGroup(
                    info=info,
                    detect=self._detect,
                    observe=self._observe,
                    tracker=self._tracker,
                    recording=self._recording,
                    classify=None if self._models.classifier is None else self._classify,
                    attributes=self._attributes,
                    label=self._label if self._models.attributes else None,
                    clock=self._clock,
                )
                self._group.start()
                self._watch = asyncio.create_task(self._lease.watch())
            return self._group

    async def _classify(self, batch: ClipBatch) -> ClipAnswer:
        if self._models.classifier is None:
            raise ModelError("this store was started without a clip classifier")
        answer: ClipAnswer = await self._models.classifier.classify.remote(batch)
        return answer

    async def _label(self, attribute: str, batch: CropBatch) -> CropAnswer:
        answer: CropAnswer = await self._models.attributes[attribute].label.remote(batch)
        return answer

    async def _detect(self, batch: FrameBatch) -> Sequence[Found]:
        found: Sequence[Found] = await self._models.detector.detect.remote(batch)
        return found

    async def _observe(
        self, observations: Sequence[Observation], heartbeats: Sequence[Heartbeat]
    ) -> Sequence[Verdict]:
        verdicts: Sequence[Verdict] = await self._rules.observe.remote(observations, heartbeats)
        return verdicts

    async def _end(self) -> None:
        await self.stop()
        ray.actor.exit_actor()
