"""What the HTTP API needs from the running system, through the supervisor actor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from actors.models import Models
from actors.supervisor import Health
from serve.api.cameras import patched
from serve.api.protocols import HealthReport
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery
from storeguard.camera.status import CameraStatus
from storeguard.config.loading import resolve_camera
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.errors import StoreguardError
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event
from storeguard.inference.batcher import BatcherStats

_ANSWER_S = 15.0
_STATS_S = 3.0


async def _answer(call: Any) -> Any:
    """The result of an actor's method; errors of ours are raised as the actor raised them.

    Raises:
        ConnectionError: the actor is dead or restarting.
        TimeoutError: it did not answer in time.
    """
    try:
        return await asyncio.wait_for(call, _ANSWER_S)
    except RayTaskError as error:
        if isinstance(error.cause, StoreguardError):
            raise error.cause from None
        raise
    except RayActorError as error:
        raise ConnectionError(f"the supervisor does not answer: {error}") from error
    except GetTimeoutError as error:
        raise TimeoutError(str(error)) from error


class SupervisedCameras:
    """`CameraControl` over a supervisor.

    Args:
        supervisor: the actor.
        settings: `live_fps` is the rate of the live view.
    """

    def __init__(self, supervisor: ActorHandle[Any], settings: ApiSettings) -> None:
        self._supervisor = supervisor
        self._settings = settings

    async def list(self) -> list[CameraStatus]:
        """All cameras, in configured order."""
        statuses: list[CameraStatus] = await _answer(self._supervisor.cameras.remote())
        return statuses

    async def get(self, camera_id: str) -> CameraConfig:
        """A camera's settings, with the credentials in its source."""
        camera: CameraConfig = await _answer(self._supervisor.camera.remote(camera_id))
        return camera

    async def add(self, camera: CameraConfig) -> CameraStatus:
        """Start another camera."""
        status: CameraStatus = await _answer(
            self._supervisor.add_camera.remote(resolve_camera(camera))
        )
        return status

    async def patch(self, camera_id: str, changes: dict[str, Any]) -> CameraStatus:
        """Merge changes into a camera's settings."""
        camera = resolve_camera(patched(await self.get(camera_id), changes))
        status: CameraStatus = await _answer(self._supervisor.change_camera.remote(camera))
        return status

    async def remove(self, camera_id: str) -> None:
        """Stop a camera and remove it from the store."""
        await _answer(self._supervisor.remove_camera.remote(camera_id))

    async def snapshot(self, camera_id: str) -> bytes | None:
        """The newest picture as the camera sent it, JPEG; None while there is none."""
        return await self._jpeg(camera_id, overlay=False)

    async def live(self, camera_id: str) -> AsyncIterator[bytes]:
        """Pictures with their overlay, JPEG, at `live_fps`."""
        await self.get(camera_id)
        step_s = 1.0 / self._settings.live_fps
        previous: bytes | None = None
        while True:
            due_s = time.monotonic() + step_s
            picture = await self._jpeg(camera_id, overlay=True)
            if picture is not None and picture != previous:
                yield picture
                previous = picture
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def record(self, camera_id: str, command: RecordCommand) -> dict[str, Any]:
        """Start or stop a recording."""
        answer = await _answer(self._supervisor.record.remote(camera_id, command))
        document: dict[str, Any] = answer.model_dump(mode="json")
        return document

    async def keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not."""
        event: Event = await _answer(self._supervisor.keep.remote(event_id, keep=keep))
        return event

    async def _jpeg(self, camera_id: str, *, overlay: bool) -> bytes | None:
        actor = await _answer(self._supervisor.camera_actor.remote(camera_id))
        if actor is None:
            return None
        jpeg: bytes | None = await _answer(actor.jpeg.remote(camera_id, overlay=overlay))
        return jpeg


class SupervisedAnalytics:
    """`VisitorSource` over a supervisor.

    Args:
        supervisor: the actor.
    """

    def __init__(self, supervisor: ActorHandle[Any]) -> None:
        self._supervisor = supervisor

    async def visitors(self, query: VisitorQuery) -> list[VisitorBucket]:
        """People counted by bucket, as `count_visitors` does."""
        found: list[VisitorBucket] = await _answer(self._supervisor.visitors.remote(query))
        return found


class SystemHealth:
    """A `HealthCheck` over the supervisor and the models.

    Args:
        supervisor: the actor.
        models: the deployments.
    """

    def __init__(self, supervisor: ActorHandle[Any], models: Models) -> None:
        self._supervisor = supervisor
        self._models = models

    async def __call__(self) -> HealthReport:
        """A report of all parts; None for a model that does not answer."""
        models = self._models
        health: Health
        (
            health,
            (detector, detector_error),
            (classifier, classifier_error),
            *attributes,
        ) = await asyncio.gather(  # at once: the caller waits for the slowest only
            _answer(self._supervisor.health.remote()),
            _stats_of(models.detector),
            _stats_of(models.classifier),
            *map(_stats_of, models.attributes.values()),
        )
        return replace(
            _report(health),
            detector=detector,
            detector_error=detector_error,
            classifier=classifier,
            classifier_error=classifier_error,
            attributes={
                name: error or stats
                for name, (stats, error) in zip(models.attributes, attributes, strict=True)
            },
        )


async def _stats_of(
    deployment: DeploymentHandle[Any] | None,
) -> tuple[BatcherStats | None, str | None]:
    """A deployment's queue, or why it does not answer; neither where there is no deployment."""
    if deployment is None:
        return None, None
    try:
        return await asyncio.wait_for(deployment.stats.remote(), _STATS_S), None
    except Exception as error:  # noqa: BLE001 - a dead replica raises many kinds of errors
        return None, f"{error}" or type(error).__name__


def _report(health: Health) -> HealthReport:
    return HealthReport(
        shipper=health.shipper,
        drops=health.drops,
        spools=health.spools,
        commands=health.commands,
        retention=health.retention,
    )
