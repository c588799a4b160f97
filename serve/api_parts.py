"""What the HTTP API asks of the system behind it, so that it can be run and tested without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from storeguard.config import CameraConfig
from storeguard.detection.batcher import BatcherStats
from storeguard.events.event import Event
from storeguard.events.journal import JournalDrops
from storeguard.events.keyspace import Change
from storeguard.events.query import EventQuery, Page
from storeguard.events.shipper import ShipperStats
from storeguard.pipeline.status import CameraStatus
from storeguard.storage.objects import Reader


class Sensor(BaseModel):
    """Which camera a command is meant for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(max_length=256)


class RecordCommand(BaseModel):
    """Start or stop recording a camera.

    Attributes:
        start: begin of the wanted span, at most what the camera's cache holds back; None begins
            `recording.start_before_now_s` ago.
        end: end of the wanted span; with neither end nor duration the recording stops by command
            or after `recording.default_duration_s`.
        duration_s: length from now on, instead of `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["start-recording", "stop-recording"]
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    duration_s: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    sensor: Sensor | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"expected start before end, found {self.start} and {self.end}")
        if self.end is not None and self.duration_s is not None:
            raise ValueError("expected at most one of 'end' and 'duration_s', found both")
        return self


class EventSource(Protocol):
    """Where events are asked for; `storeguard.events.store.EventReader` is one."""

    async def get(self, event_id: str) -> Event | None: ...
    async def query(self, question: EventQuery) -> Page: ...
    async def ping(self) -> None: ...
    async def missed_changes(self, after: str) -> bool: ...
    def changes(
        self, after: str | None = None, *, idle_s: float = 15.0
    ) -> AsyncIterator[Change | None]: ...


class CameraControl(Protocol):
    """The cameras, as they run.

    All methods raise NotFoundError for an unknown id, and ConnectionError or TimeoutError (of
    which StoreguardErrors are made) when whoever runs the cameras does not answer.
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
        """Merge changes (RFC 7396) into a camera's settings; see `api_cameras.patched`."""
        ...

    async def remove(self, camera_id: str) -> None:
        """Stop a camera and forget it."""
        ...

    async def snapshot(self, camera_id: str) -> bytes | None:
        """The newest picture as JPEG; None while there is none."""
        ...

    def live(self, camera_id: str) -> AsyncIterator[bytes]:
        """Pictures as JPEG, as they come; closed by the caller."""
        ...

    async def record(self, camera_id: str, command: RecordCommand) -> dict[str, Any]:
        """Start or stop a recording; returns what is being done about it."""
        ...


class Objects(Protocol):
    """Where clips and snapshots are read; `storeguard.storage.objects.ObjectStore` is one."""

    def open(self, key_or_uri: str) -> Reader: ...
    def size(self, key_or_uri: str) -> int: ...


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What the parts that the API does not see itself say of themselves.

    Attributes:
        shipper: the way from journal to store; None when the rules do not answer.
        drops: what a full journal dropped; None when unknown.
        detector: the detector's queue; None when it does not answer.
        detector_error: why it does not.
    """

    shipper: ShipperStats | None
    drops: JournalDrops | None = None
    detector: BatcherStats | None = None
    detector_error: str | None = None


HealthCheck = Callable[[], Awaitable[HealthReport]]
