"""Settings of a store and its cameras, with units, bounds and defaults.

Loaded once (see storeguard.config.loading), frozen, and passed on typed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from storeguard.config.addresses import Address
from storeguard.config.models import (
    AttributeSettings,
    ClassifierSettings,
    DetectorSettings,
    TrackerSettings,
)
from storeguard.config.zones import (
    Fraction,
    Id,
    PersonRule,
    Rule,
    Settings,
    ZoneConfig,
    require_unique,
)

# --------------------------------------------------------------------------- cameras


class Pace(StrEnum):
    """How fast a file is played: by its timestamps, or as fast as it can be read."""

    REALTIME = "realtime"
    FAST = "fast"


class ReconnectSettings(Settings):
    """Backoff after a lost camera: min(initial * 2^n, max), times 1 +- jitter."""

    initial_s: float = Field(default=0.5, gt=0, le=60)
    max_s: float = Field(default=30.0, gt=0, le=3600)
    jitter: Fraction = 0.3


class SmartRecord(StrEnum):
    """What starts a recording: nothing, commands only, or commands and local events."""

    OFF = "off"
    COMMANDS = "commands"
    EVENTS = "events"


class Container(StrEnum):
    """The clip's file format."""

    MP4 = "mp4"
    MKV = "mkv"


class RecordingSettings(Settings):
    """Smart recording of one camera.

    A recording without a requested end stops after `default_duration_s`. One started by command
    begins `start_before_now_s` before the command, so that it lasts the sum of both.
    """

    smart_record: Annotated[
        SmartRecord,
        # An unquoted `off` is false in YAML.
        BeforeValidator(lambda value: SmartRecord.OFF if value is False else value),
    ] = SmartRecord.EVENTS
    container: Container = Container.MP4
    file_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{0,128}$")] = ""
    """Folder below the storage URI; empty means the camera's id."""
    cache_s: float = Field(default=30.0, gt=0, le=600)
    cache_bytes: int = Field(default=64 * 2**20, ge=2**20, le=2**33)
    default_duration_s: float = Field(default=20.0, gt=0, le=3600)
    start_before_now_s: float = Field(default=10.0, ge=0, le=600)
    max_duration_s: float = Field(default=300.0, gt=0, le=86_400)
    """Overlapping triggers extend one recording up to this length; then a new file begins."""


class CameraConfig(Settings):
    """One camera: the source of its video, how often people are detected, and its zones."""

    id: Id
    source: Annotated[str, Field(min_length=1)]
    """File, folder of images, a V4L2 device such as /dev/video0, or an address with one of
    `storeguard.config.addresses.SCHEMES`. A password's special characters are percent-encoded."""
    enabled: bool = True
    detect_fps: float = Field(default=5.0, gt=0, le=240)
    loop: bool = False
    """Play a file again from its start when it ends."""
    pace: Pace = Pace.REALTIME
    start_offset_s: float = Field(default=0.0, ge=0, le=86_400)
    """Seconds of a file to skip at its first playing."""
    image_fps: float = Field(default=1.0, gt=0, le=240)
    """Pictures per second of a folder, or of an address that gives one picture a request."""
    stream_index: int | None = Field(default=None, ge=0)
    """Which of a source's streams is the video, by FFmpeg's index; None takes FFmpeg's best."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: float = Field(default=10.0, gt=0, le=120)
    read_timeout_s: float = Field(default=5.0, gt=0, le=120)
    reconnect: ReconnectSettings = ReconnectSettings()
    recording: RecordingSettings = RecordingSettings()
    zones: tuple[ZoneConfig, ...] = ()
    person: PersonRule | None = None
    """The camera-wide `person` rule; None turns it off."""

    @field_validator("source")
    @classmethod
    def _is_address(cls, source: str) -> str:
        if not source.startswith("package:"):
            Address.parse(source)
        return source

    @field_validator("zones")
    @classmethod
    def _unique_zones(cls, zones: tuple[ZoneConfig, ...]) -> tuple[ZoneConfig, ...]:
        require_unique("zone", (zone.id for zone in zones))
        return zones

    def rules(self) -> Iterator[tuple[ZoneConfig | None, Rule]]:
        """Every rule with its zone, the camera-wide rule (zone None) first."""
        if self.person is not None:
            yield None, self.person
        for zone in self.zones:
            for rule in zone.rules:
                yield zone, rule

    @property
    def classifies(self) -> bool:
        """Whether a rule of its zones needs the clip classifier."""
        return any(zone.shoplifting for zone in self.zones)


# --------------------------------------------------------------------------- the store


class EventStoreSettings(Settings):
    """Where events are kept. `embedded` starts a Valkey server with an append-only file."""

    url: str = "embedded"
    journal_max_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """Bound of the local journal; what it would have to drop past it is reported loudly."""
    retain_days: float | None = Field(default=90.0, gt=0)
    """Age at which events are removed from the store, except those marked `keep`; None: never."""
    max_events: int | None = Field(default=None, ge=1)
    """Past this many the oldest events are removed, except those marked `keep`."""


class StorageSettings(Settings):
    """Where clips and snapshots are kept: file://, s3:// or gs://; `embedded` is a local folder."""

    uri: str = "embedded"
    s3_endpoint: str | None = None
    s3_region: str | None = None
    retain_days: float | None = Field(default=30.0, gt=0)
    retain_bytes: int | None = Field(default=20 * 2**30, gt=0)
    retain_bytes_per_camera: int | None = Field(default=None, gt=0)
    min_free_bytes: int = Field(default=512 * 2**20, ge=0)
    """Recording pauses, with an alert, while the spool's disk has less free space than this."""


class TrackLogSettings(Settings):
    """People's positions over time: Parquet files in ``<data_dir>/tracks``, by day and camera."""

    enabled: bool = True
    rate_hz: float = Field(default=1.0, gt=0, le=60)
    """Rows for one person per second of capture time."""
    flush_s: float = Field(default=60.0, ge=1, le=3600)
    """How long rows may wait in memory: a kill loses that much, and analytics are that late."""
    retain_days: float = Field(default=30.0, gt=0, le=36_500)
    max_bytes: int = Field(default=2**30, ge=2**20)
    """Past this the oldest files are removed."""


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ApiSettings(Settings):
    """The HTTP server. Bound to anything but loopback it demands the bearer token."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    token: Annotated[str, Field(min_length=16)] | None = None
    """Bearer token; None takes STOREGUARD_API_TOKEN from the environment."""
    live_fps: float = Field(default=5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _token_beyond_loopback(self) -> Self:
        if not is_loopback(self.host) and self.token is None:
            raise ValueError(
                f"host {self.host!r} is reachable from other machines: set 'token' (16 characters "
                "or more) or the environment variable STOREGUARD_API_TOKEN"
            )
        return self


class PlacementSettings(Settings):
    """Ray resources.

    With `camera_resource` > 0 each camera actor requests that much of the custom resource `camera`,
    so that cameras run on the nodes that offer it.
    """

    cameras_per_actor: int = Field(default=4, ge=1, le=256)
    camera_resource: float = Field(default=0.0, ge=0, le=1000)
    camera_cpus: float = Field(default=0.0, ge=0, le=128)
    detector_resources: dict[str, float] = Field(default_factory=dict)
    classifier_resources: dict[str, float] = Field(default_factory=dict)
    attribute_resources: dict[str, float] = Field(default_factory=dict)


class StoreConfig(Settings):
    """One store: its cameras, models, and where events and clips go."""

    store: Id = "store"
    data_dir: Path = Path("storeguard-data")
    detector: DetectorSettings = DetectorSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    attributes: tuple[AttributeSettings, ...] = ()
    """Attributes of people that image classifiers predict, such as carrying a basket or not."""
    tracker: TrackerSettings = TrackerSettings()
    events: EventStoreSettings = EventStoreSettings()
    storage: StorageSettings = StorageSettings()
    tracks: TrackLogSettings = TrackLogSettings()
    api: ApiSettings = ApiSettings()
    placement: PlacementSettings = PlacementSettings()
    cameras: tuple[CameraConfig, ...] = ()

    @field_validator("cameras")
    @classmethod
    def _unique_cameras(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        require_unique("camera", (camera.id for camera in cameras))
        return cameras

    @field_validator("attributes")
    @classmethod
    def _unique_attributes(
        cls, attributes: tuple[AttributeSettings, ...]
    ) -> tuple[AttributeSettings, ...]:
        require_unique("attribute", (attribute.name for attribute in attributes))
        return attributes

    @property
    def classifies(self) -> bool:
        """Whether the clip classifier is started."""
        if self.classifier.enabled is not None:
            return self.classifier.enabled
        return any(camera.classifies for camera in self.cameras)
