"""What the HTTP API needs from the running system, through the supervisor actor."""

from __future__ import annotations

import asyncio
import time
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
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.status import CameraStatus
from storeguard.config.loading import resolve_camera
from storeguard.config.store import CameraConfig
from storeguard.errors import StoreguardError
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event
from storeguard.inference.batcher import BatcherStats

_ANSWER_S = 15.0
_STATS_S = 3.0
_WAIT_S = 2.0  # of one call for a picture


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
    """

    def __init__(self, supervisor: ActorHandle[Any]) -> None:
        self._supervisor = supervisor

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

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        """The newest picture of a camera; None if there was no such picture in time."""
        until_s = time.monotonic() + query.wait_s
        while True:
            actor = await _answer(self._supervisor.camera_actor.remote(camera_id))
            if actor is not None:
                # The camera may move to another actor meanwhile: no single wait is long.
                left_s = until_s - time.monotonic()
                once = replace(query, wait_s=min(max(0.0, left_s), _WAIT_S))
                picture: LivePicture | None = await _answer(actor.picture.remote(camera_id, once))
                if picture is not None:
                    return picture
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            if actor is None:
                await asyncio.sleep(min(left_s, _WAIT_S))

    async def record(self, camera_id: str, command: RecordCommand) -> dict[str, Any]:
        """Start or stop a recording."""
        answer = await _answer(self._supervisor.record.remote(camera_id, command))
        document: dict[str, Any] = answer.model_dump(mode="json")
        return document

    async def keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not."""
        event: Event = await _answer(self._supervisor.keep.remote(event_id, keep=keep))
        return event


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
