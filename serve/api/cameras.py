"""Cameras over HTTP: their state and settings, and recording commands."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, ConfigDict

from serve.api.problems import ConflictError
from serve.api.protocols import CameraControl
from storeguard.camera.status import CameraStatus
from storeguard.config.addresses import redact, shown
from storeguard.config.loading import parse
from storeguard.config.store import CameraConfig
from storeguard.errors import ConfigError, NotFoundError, QueryError
from storeguard.events.commands import RecordCommand

_HIDDEN: Final = "***"


class Cameras(BaseModel):
    """All cameras, in configured order."""

    cameras: list[CameraStatus]


class Camera(BaseModel):
    """One camera: its status, and its settings with credentials hidden."""

    model_config = ConfigDict(frozen=True)

    status: CameraStatus
    settings: CameraConfig


def patched(settings: CameraConfig, changes: dict[str, Any]) -> CameraConfig:
    """Settings with changes merged in (RFC 7396): null takes a key back to its default.

    A `source` that echoes the one shown, with its credentials hidden, changes nothing.

    Raises:
        ConfigError: the result is not valid; the message names key, value and expectation.
    """
    changes = dict(changes)
    if changes.get("source") == shown(settings.source):
        del changes["source"]
    _forbid_hidden(changes.get("source"))
    if changes.get("id", settings.id) != settings.id:
        raise ConfigError(f"id: expected {settings.id!r}, which never changes")
    merged = _merge_patch(settings.model_dump(mode="json", exclude_unset=True), changes)
    return parse(CameraConfig, merged, where="request body")


def hidden(settings: CameraConfig) -> CameraConfig:
    """The settings as they may be shown."""
    return settings.model_copy(update={"source": shown(settings.source)})


def cameras_router(cameras: CameraControl) -> APIRouter:
    """The routes under ``/cameras``."""
    router = APIRouter(prefix="/cameras", tags=["cameras"])
    _add_reading(router, cameras)
    _add_changing(router, cameras)

    @router.post("/{camera_id}/recordings", status_code=HTTPStatus.ACCEPTED)
    async def record(camera_id: str, command: RecordCommand) -> dict[str, Any]:
        """Start or stop recording; a manual start never waits for an automatic one's cooldown."""
        if command.sensor is not None and command.sensor.id != camera_id:
            raise QueryError(f"sensor.id: expected {camera_id!r}, found {command.sensor.id!r}")
        await cameras.get(camera_id)
        return await cameras.record(camera_id, command)

    return router


def _add_reading(router: APIRouter, cameras: CameraControl) -> None:
    @router.get("")
    async def list_cameras() -> Cameras:
        """All cameras and their status."""
        return Cameras(cameras=[_hide(status) for status in await cameras.list()])

    @router.get("/{camera_id}")
    async def get_camera(camera_id: str) -> Camera:
        """One camera: its status and its settings."""
        return await _described(cameras, camera_id)


def _add_changing(router: APIRouter, cameras: CameraControl) -> None:
    @router.post("", status_code=HTTPStatus.CREATED)
    async def add_camera(settings: CameraConfig, response: Response) -> Camera:
        """Add a camera; the others are not interrupted."""
        _forbid_hidden(settings.source)
        if settings.id in {status.id for status in await cameras.list()}:
            raise ConflictError(f"id: camera {settings.id!r} exists already; PATCH changes it")
        try:
            await cameras.add(settings)
        except ConfigError as error:  # another client has just added it
            raise ConflictError(str(error)) from error
        response.headers["Location"] = f"/api/v1/cameras/{settings.id}"
        return await _described(cameras, settings.id)

    @router.patch("/{camera_id}")
    async def change_camera(camera_id: str, changes: Annotated[dict[str, Any], Body()]) -> Camera:
        """Change some of a camera's settings: a JSON merge patch (RFC 7396) on `settings`."""
        settings = await cameras.get(camera_id)
        patched(settings, changes)  # raises before anything has changed
        if changes.get("source") == shown(settings.source):
            changes = {key: value for key, value in changes.items() if key != "source"}
        await cameras.patch(camera_id, changes)
        return await _described(cameras, camera_id)

    @router.delete("/{camera_id}", status_code=HTTPStatus.NO_CONTENT)
    async def remove_camera(camera_id: str) -> Response:
        """Remove a camera; its events stay."""
        await cameras.remove(camera_id)
        return Response(status_code=HTTPStatus.NO_CONTENT)


async def _described(cameras: CameraControl, camera_id: str) -> Camera:
    settings = await cameras.get(camera_id)
    return Camera(status=await _status(cameras, camera_id), settings=hidden(settings))


async def _status(cameras: CameraControl, camera_id: str) -> CameraStatus:
    for status in await cameras.list():
        if status.id == camera_id:
            return _hide(status)
    raise NotFoundError(f"there is no camera {camera_id!r}")


def _hide(status: CameraStatus) -> CameraStatus:
    error = None if status.last_error is None else redact(status.last_error)
    return status.model_copy(update={"source": shown(status.source), "last_error": error})


def _forbid_hidden(source: object) -> None:
    if isinstance(source, str) and f"{_HIDDEN}@" in source:
        raise ConfigError(
            f"source: expected an address with its credentials, found {source!r}, in which they "
            "are hidden"
        )


def _merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patch(merged.get(key), value)
    return merged
