"""The cameras of a store, with the changes made at run time, and the group of each camera."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from storeguard.config.loading import parse
from storeguard.config.store import CameraConfig
from storeguard.errors import ConfigError, NotFoundError, StorageError


class Roster:
    """The cameras of the configuration with the changes made at run time, which survive a restart.

    The file of changes holds the differences from the configuration: a camera's settings under its
    id, or null for a removed camera. It may contain credentials, so only its owner can read it.

    Args:
        configured: the cameras of the configuration file.
        changes: the file of changes; created with the first change.

    Raises:
        ConfigError: the file of changes is damaged; it names the file.
    """

    def __init__(self, configured: Sequence[CameraConfig], changes: Path) -> None:
        self._path = changes
        self._changes: dict[str, CameraConfig | None] = self._load()
        self._cameras = {camera.id: camera for camera in configured}
        self.overrides = tuple(self._overrides(self._cameras))
        """One sentence for each configured camera that was changed or removed at run time."""
        for camera_id, camera in self._changes.items():
            if camera is None:
                self._cameras.pop(camera_id, None)
            else:
                self._cameras[camera_id] = camera
        self._groups: dict[str, str] = {}

    @property
    def cameras(self) -> tuple[CameraConfig, ...]:
        """All cameras, in configured order, later additions last."""
        return tuple(self._cameras.values())

    def get(self, camera_id: str) -> CameraConfig:
        """A camera's settings.

        Raises:
            NotFoundError: there is no such camera.
        """
        try:
            return self._cameras[camera_id]
        except KeyError:
            known = ", ".join(self._cameras) or "none"
            raise NotFoundError(f"there is no camera {camera_id!r}; cameras: {known}") from None

    def add(self, camera: CameraConfig) -> None:
        """Add a camera.

        Raises:
            ConfigError: its id is taken.
            StorageError: the change cannot be written; nothing has changed.
        """
        if camera.id in self._cameras:
            raise ConfigError(f"camera id {camera.id!r} is in use already; ids must be unique")
        self._set(camera.id, camera)

    def change(self, camera: CameraConfig) -> None:
        """Replace a camera's settings.

        Raises:
            NotFoundError: there is no such camera.
            StorageError: the change cannot be written; nothing has changed.
        """
        self.get(camera.id)
        self._set(camera.id, camera)

    def remove(self, camera_id: str) -> None:
        """Remove a camera.

        Raises:
            NotFoundError: there is no such camera.
            StorageError: the change cannot be written; nothing has changed.
        """
        self.get(camera_id)
        self._set(camera_id, None)

    def groups(self, cameras_per_group: int) -> dict[str, list[CameraConfig]]:
        """Enabled cameras by group name; a camera keeps its group while it stays enabled.

        Args:
            cameras_per_group: most cameras in one group.
        """
        enabled = {camera.id: camera for camera in self.cameras if camera.enabled}
        self._groups = {name: group for name, group in self._groups.items() if name in enabled}
        for camera_id in enabled:
            if camera_id not in self._groups:
                self._groups[camera_id] = self._roomiest(cameras_per_group)
        members: dict[str, list[CameraConfig]] = {}
        for camera_id, group in self._groups.items():
            members.setdefault(group, []).append(enabled[camera_id])
        return members

    def group_of(self, camera_id: str) -> str | None:
        """The group a camera is in; None while it is disabled."""
        return self._groups.get(camera_id)

    def _roomiest(self, cameras_per_group: int) -> str:
        sizes: dict[str, int] = {}
        for group in self._groups.values():
            sizes[group] = sizes.get(group, 0) + 1
        for group in sorted(sizes):
            if sizes[group] < cameras_per_group:
                return group
        number = 0
        while f"cameras-{number}" in sizes:
            number += 1
        return f"cameras-{number}"

    def _set(self, camera_id: str, camera: CameraConfig | None) -> None:
        changes = {**self._changes, camera_id: camera}
        self._save(changes)
        self._changes = changes
        if camera is None:
            del self._cameras[camera_id]
        else:
            self._cameras[camera_id] = camera

    def _overrides(self, configured: Mapping[str, CameraConfig]) -> Iterator[str]:
        for name, changed in self._changes.items():
            if name in configured and changed is None:
                yield f"camera {name!r} was removed at run time, according to {self._path}"
            elif name in configured and changed != configured[name]:
                yield (
                    f"camera {name!r} was changed at run time: its settings are those in "
                    f"{self._path}, not the configuration's"
                )

    def _load(self) -> dict[str, CameraConfig | None]:
        if not self._path.exists():
            return {}
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path}: cannot read the cameras' changes: {error}") from None
        if not isinstance(document, dict):
            raise ConfigError(f"{self._path}: expected a mapping from camera id to settings")
        return {name: self._camera(name, value) for name, value in document.items()}

    def _camera(self, name: str, value: object) -> CameraConfig | None:
        if value is None:
            return None
        camera = parse(CameraConfig, value, where=f"{self._path}: {name}")
        if camera.id != name:
            raise ConfigError(f"{self._path}: {name}: expected id {name!r}, found {camera.id!r}")
        return camera

    def _save(self, changes: dict[str, CameraConfig | None]) -> None:
        document = {
            name: None if camera is None else camera.model_dump(mode="json")
            for name, camera in changes.items()
        }
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)  # one left by a crash may be readable for others
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot write the cameras' changes: {error}"
            ) from error
