"""What the HTTP API needs from the system behind it; it runs and is tested without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.status import CameraStatus
from storeguard.config.store import CameraConfig
from storeguard.events.commands import CommandStats, RecordCommand
from storeguard.events.event import Event
from storeguard.events.journal import JournalDrops
from storeguard.events.keyspace import StoredChange
from storeguard.events.query import EventQuery, Page
from storeguard.events.shipper import ShipperStats
from storeguard.inference.batcher import BatcherStats
from storeguard.recording.uploader import UploaderStats
from storeguard.storage.objects import Reader
from storeguard.storage.retention import RetentionStats


class EventSource(Protocol):
    """Where events are found; `storeguard.events.store.EventReader` is one."""

    async def get(self, event_id: str) -> Event | None: ...
    async def query(self, query: EventQuery) -> Page: ...
    async def ping(self) -> None: ...
    async def missed_changes(self, after: str) -> bool: ...
    def changes(
        self, after: str | None = None, *, idle_s: float = 15.0
    ) -> AsyncIterator[StoredChange | None]:
        """First None, when the start is fixed; then changes, and None after idle time."""
        ...


class CameraControl(Protocol):
    """The cameras, as they run.

    All methods raise NotFoundError for an unknown id, and ConnectionError or TimeoutError
    when the process that runs the cameras does not answer.
    """

    async def list(self) -> list[CameraStatus]:
        """All cameras, in configured order."""
        ...

    async def get(self, camera_id: str) -> CameraConfig:
        """A camera's settings, with the credentials in its source."""
        ...

    async def add(self, camera: CameraConfig) -> CameraStatus:
        """Start another camera. Raises ConfigError if its id is taken."""
        ...

    async def patch(self, camera_id: str, changes: dict[str, Any]) -> CameraStatus:
        """Merge changes (RFC 7396) into a camera's settings; see `serve.api.cameras.patched`."""
        ...

    async def remove(self, camera_id: str) -> None:
        """Stop a camera and remove it from the store."""
        ...

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        """The newest picture; None if there was no such picture in time."""
        ...

    async def record(self, camera_id: str, command: RecordCommand) -> dict[str, Any]:
        """Start or stop a recording; returns a JSON document of what was started or stopped."""
        ...


class EventMarks(Protocol):
    """Where events are marked; raises as CameraControl does."""

    async def keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not; returns the changed event."""
        ...


class Objects(Protocol):
    """Where clips and snapshots are read; `storeguard.storage.objects.ObjectStore` is one."""

    def open(self, key_or_uri: str) -> Reader: ...
    def size(self, key_or_uri: str) -> int: ...


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What the parts of the running system report of themselves.

    Attributes:
        shipper: from journal to store; None when the rules do not answer.
        drops: what a full journal dropped; None when unknown.
        detector: the detector's queue; None when it does not answer.
        detector_error: why it does not.
        classifier: the clip classifier's queue; None when it does not answer, or there is none.
        classifier_error: why it does not; None when there is none.
        attributes: each attribute classifier's queue, or why it does not answer.
        spools: files that wait for upload, by uploader.
        commands: messages received on the command stream; None when unknown.
        retention: files deleted and kept; None when unknown.
    """

    shipper: ShipperStats | None
    drops: JournalDrops | None = None
    detector: BatcherStats | None = None
    detector_error: str | None = None
    classifier: BatcherStats | None = None
    classifier_error: str | None = None
    attributes: Mapping[str, BatcherStats | str | None] = field(default_factory=dict)
    spools: Mapping[str, UploaderStats] = field(default_factory=dict)
    commands: CommandStats | None = None
    retention: RetentionStats | None = None


HealthCheck = Callable[[], Awaitable[HealthReport]]
