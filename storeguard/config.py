"""Settings: what a configuration file may say, with units, bounds and defaults.

Loaded once (see storeguard.loading), frozen, and handed down typed.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from storeguard.rules.zone import polygon_fault

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Fraction, Fraction]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


# --------------------------------------------------------------------------- rules


class Anchor(StrEnum):
    """Which part of a person's box decides whether they are in a zone."""

    HEAD = "head"
    FOOT = "foot"
    HIT_RATIO = "hit_ratio"


class RecordSettings(Settings):
    """How much video a rule keeps around its event; `record: false` keeps none."""

    record: bool = True
    pre_roll_s: float = Field(default=10.0, ge=0, le=600)
    post_roll_s: float = Field(default=10.0, ge=0, le=600)


class ZoneAnchorSettings(RecordSettings):
    """How a rule decides that somebody is inside its zone."""

    anchor: Anchor = Anchor.HIT_RATIO
    min_hit_ratio: float = Field(default=0.10, gt=0, le=1)
    min_score: Fraction = 0.0
    """People detected with less confidence than this do not count for the rule."""
    max_gap_s: float = Field(default=10.0, ge=0, le=600)
    """When the camera itself shows nothing for a while (frames dropped, detector stalled, stream
    reconnected), who is inside before and right after is taken to have stayed, if that gap was at
    most this long; past it the visit ends where it was last seen."""


class IntrusionRule(ZoneAnchorSettings):
    """Somebody enters the zone.

    Another event for the same person waits until `cooldown_s` after the end of the last one; who
    is still inside then gets it, with the start of the visit.
    """

    type: Literal["intrusion"] = "intrusion"
    anchor: Anchor = Anchor.HEAD
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    """A visit goes on when the person is out of the zone, or unseen, for at most this long."""


class LoiteringRule(ZoneAnchorSettings):
    """One person's dwell in the zone reaches `loiter_s` seconds of capture time."""

    type: Literal["loitering"] = "loitering"
    loiter_s: float = Field(default=3.0, gt=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)
    """A growing dwell is reported this often, in capture time."""


class Direction(StrEnum):
    """Which way across a line, looking from its first point to its second.

    `in` goes from the left-hand side to the right-hand side, as seen in the picture.
    """

    IN = "in"
    OUT = "out"
    BOTH = "both"


class LineCrossingRule(RecordSettings):
    """Somebody's anchor point crosses the zone's line."""

    type: Literal["line_crossing"] = "line_crossing"
    anchor: Literal[Anchor.HEAD, Anchor.FOOT] = Anchor.FOOT
    direction: Direction = Direction.BOTH
    cooldown_s: float = Field(default=2.0, ge=0, le=86_400)
    min_score: Fraction = 0.0


class OccupancyRule(ZoneAnchorSettings):
    """More than `max_people` people are in the zone for `for_s` seconds of capture time."""

    type: Literal["occupancy"] = "occupancy"
    max_people: int = Field(ge=0, le=10_000)
    for_s: float = Field(default=3.0, ge=0, le=86_400)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)


class PersonRule(RecordSettings):
    """A person is first seen. Needs no zone; inside a zone it means first seen in the zone.

    In the zone is who has at least a tenth of their box in it (the hit ratio's default).
    """

    type: Literal["person"] = "person"
    min_score: Fraction = 0.35
    cooldown_s: float = Field(default=30.0, ge=0, le=86_400)
    """After an event of this rule, no further one for this long, whoever it is. A zone's rule and
    the camera's count apart."""
    grace_s: float = Field(default=2.0, ge=0, le=600)
    """The person is gone, and the event closes, when unseen for longer than this."""
    max_gap_s: float = Field(default=10.0, ge=0, le=600)
    """As in the rules about zones: the longest silence of the camera that a stay bridges."""


class ShopliftingRule(ZoneAnchorSettings):
    """The clip classifier suspects one person of concealing goods, during an event of theirs.

    Who has an open event of a rule in `during` in the same zone is looked at every `cls_every_s`.
    The score is the mean of the `top_clips` highest clips among those of the last `window_s`.
    """

    type: Literal["shoplifting_suspected"] = "shoplifting_suspected"
    during: tuple[Literal["intrusion", "loitering"], ...] = Field(
        default=("intrusion", "loitering"), min_length=1
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability from which it is suspected; None takes what the model's training recommends."""
    cls_every_s: float = Field(default=1.0, ge=0.1, le=60)
    top_clips: int = Field(default=3, ge=1, le=60)
    window_s: float = Field(default=10.0, gt=0, le=600)
    grace_s: float = Field(default=1.0, ge=0, le=600)
    update_s: float = Field(default=1.0, gt=0, le=600)


ZoneRule = Annotated[
    IntrusionRule | LoiteringRule | LineCrossingRule | OccupancyRule | PersonRule | ShopliftingRule,
    Field(discriminator="type"),
]


class ZoneConfig(Settings):
    """A part of the picture, and the rules that hold there.

    Coordinates are fractions 0..1 of the frame's width and height. A zone is either a `polygon`
    of three or more corners or a `line` of two points (for `line_crossing`).
    """

    id: Id
    polygon: tuple[Point, ...] | None = None
    line: tuple[Point, Point] | None = None
    rules: tuple[ZoneRule, ...] = ()

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.polygon is None) == (self.line is None):
            raise ValueError(f"zone {self.id!r}: expected exactly one of 'polygon' and 'line'")
        if self.polygon is not None and (fault := polygon_fault(self.polygon)):
            raise ValueError(f"zone {self.id!r}: polygon {fault}")
        if self.line is not None and self.line[0] == self.line[1]:
            raise ValueError(
                f"zone {self.id!r}: line has no length, both points are {self.line[0]}"
            )
        for rule in self.rules:
            if (rule.type == "line_crossing") != (self.line is not None):
                need = "a 'line'" if rule.type == "line_crossing" else "a 'polygon'"
                raise ValueError(f"zone {self.id!r}: rule {rule.type!r} needs {need}")
        for kind, times in Counter(rule.type for rule in self.rules).items():
            if times > 1:
                raise ValueError(f"zone {self.id!r}: rule {kind!r} is given {times} times")
        kinds = {rule.type for rule in self.rules}
        for rule in self.rules:
            if isinstance(rule, ShopliftingRule) and not kinds & set(rule.during):
                raise ValueError(
                    f"zone {self.id!r}: rule {rule.type!r} needs a rule beside it whose events it "
                    f"goes by: {' or '.join(rule.during)}"
                )
        return self

    @property
    def shoplifting(self) -> ShopliftingRule | None:
        """Its rule for the clip classifier, if it has one."""
        return next((rule for rule in self.rules if isinstance(rule, ShopliftingRule)), None)


class ZoneList(Settings):
    """The `zones:` list alone, as `--zones FILE` gives it."""

    zones: tuple[ZoneConfig, ...]

    @field_validator("zones")
    @classmethod
    def _unique_zones(cls, zones: tuple[ZoneConfig, ...]) -> tuple[ZoneConfig, ...]:
        _require_unique("zone", (zone.id for zone in zones))
        return zones


# --------------------------------------------------------------------------- cameras


class Pace(StrEnum):
    """How fast a file is played: as its timestamps say, or as fast as it can be read."""

    REALTIME = "realtime"
    FAST = "fast"


class ReconnectSettings(Settings):
    """Backoff after a lost camera: min(initial * 2^n, max), times 1 +- jitter."""

    initial_s: float = Field(default=0.5, gt=0, le=60)
    max_s: float = Field(default=30.0, gt=0, le=3600)
    jitter: Fraction = 0.3


class SmartRecord(StrEnum):
    """What starts a recording: nothing, commands alone, or commands and local events."""

    OFF = "off"
    COMMANDS = "commands"
    EVENTS = "events"


class Container(StrEnum):
    """The clip's file format."""

    MP4 = "mp4"
    MKV = "mkv"


class RecordingSettings(Settings):
    """Smart recording of one camera.

    A recording that was started with no end stops after `default_duration_s`; one started by
    command begins `start_before_now_s` ago, so its span is the two together.
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
    """One camera: where its video comes from, how often people are looked for, and its zones."""

    id: Id
    source: Annotated[str, Field(min_length=1)]
    """File, folder of images, rtsp://, http(s):// or a V4L2 device such as /dev/video0."""
    enabled: bool = True
    detect_fps: float = Field(default=5.0, gt=0, le=240)
    loop: bool = False
    """Play a file again from its start when it ends."""
    pace: Pace = Pace.REALTIME
    start_offset_s: float = Field(default=0.0, ge=0, le=86_400)
    """Seconds of a file to skip at its first playing."""
    image_fps: float = Field(default=1.0, gt=0, le=240)
    """Frames per second of a folder of images."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: float = Field(default=10.0, gt=0, le=120)
    read_timeout_s: float = Field(default=5.0, gt=0, le=120)
    reconnect: ReconnectSettings = ReconnectSettings()
    recording: RecordingSettings = RecordingSettings()
    zones: tuple[ZoneConfig, ...] = ()
    person: PersonRule | None = None
    """The camera-wide `person` rule; None turns it off."""

    @field_validator("zones")
    @classmethod
    def _unique_zones(cls, zones: tuple[ZoneConfig, ...]) -> tuple[ZoneConfig, ...]:
        _require_unique("zone", (zone.id for zone in zones))
        return zones

    @property
    def classifies(self) -> bool:
        """Whether a rule of its zones needs the clip classifier."""
        return any(zone.shoplifting for zone in self.zones)


# --------------------------------------------------------------------------- models


class BackendName(StrEnum):
    """What runs the model."""

    AUTO = "auto"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """What a model computes in. INT8 needs an engine built with pictures to calibrate on."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class EngineSettings(Settings):
    """Engines: models compiled for one GPU, or converted to one precision, and kept in a folder."""

    dir: str = "~/.cache/storeguard/engines"
    build: bool = False
    """Whether backend `auto` may build a missing or stale engine while it loads, for minutes."""


class LayoutName(StrEnum):
    """How a detector's outputs are laid out; `auto` recognises it from their shapes."""

    AUTO = "auto"
    YOLOX = "yolox"
    YOLOV8 = "yolov8"
    DETR = "detr"
    DETECTNET_V2 = "detectnet_v2"
    SSD = "ssd"


class Pixels(StrEnum):
    """How a model wants its pixels; `auto` takes what the layout usually has."""

    AUTO = "auto"
    BYTES = "bytes"
    """0..255"""
    UNIT = "unit"
    """0..1"""
    IMAGENET = "imagenet"
    """0..1, less ImageNet's mean, over its standard deviation."""


class Channels(StrEnum):
    """The colour order a model wants; `auto` takes what the layout usually has."""

    AUTO = "auto"
    RGB = "rgb"
    BGR = "bgr"


class Resize(StrEnum):
    """Letterbox keeps the picture's proportions and pads; stretch does not."""

    LETTERBOX = "letterbox"
    STRETCH = "stretch"


_Side = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
InputSize = _Side | tuple[_Side, _Side] | None


class DetectorSettings(Settings):
    """The person detector and how it is served.

    `min_score` is the lowest confidence handed to the tracker, whose second association uses
    weak boxes; what counts as a sure detection is `tracker.high_score`.
    """

    model: str = "bundled"
    """`bundled`, or the path of an ONNX file, or of a TensorRT engine with its sidecar."""
    backend: BackendName = BackendName.AUTO
    precision: Precision | None = None
    """None takes fp16 with TensorRT, and the model as it is with every other backend."""
    engines: EngineSettings = EngineSettings()
    layout: LayoutName = LayoutName.AUTO
    resize: Resize = Resize.LETTERBOX
    pixels: Pixels = Pixels.AUTO
    channels: Channels = Channels.AUTO
    input_size: InputSize = None
    """Side, or (width, height), in pixels; None takes the model's own, or 320."""
    person_class: int | None = Field(default=None, ge=0)
    """Index of the class person; None takes the layout's usual one (0; 1 for SSD and RF-DETR)."""
    min_score: Fraction = 0.10
    nms_iou: Fraction = 0.60
    replicas: int = Field(default=1, ge=1, le=256)
    num_cpus: float = Field(default=1.0, ge=0, le=128)
    num_gpus: float = Field(default=0.0, ge=0, le=8)
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of one replica's inference; 0 lets the backend choose by `num_cpus`."""
    max_batch: int = Field(default=8, ge=1, le=256)
    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long a free detector waits for a fuller batch; at 0 batches form while it is busy."""
    max_queue: int = Field(default=64, ge=1, le=65_536)
    """Frames a replica holds; past it the oldest waiting frame of the fullest camera is refused."""


class ClassifierSettings(Settings):
    """The clip classifier and how it is served; only `shoplifting_suspected` rules use it."""

    enabled: bool | None = None
    """None starts it if a camera's rules use it; True also where cameras may come to later."""
    model: str = "bundled"
    """`bundled`, or the path of an ONNX file."""
    backend: BackendName = BackendName.AUTO
    precision: Precision | None = None
    """None takes fp16 with TensorRT, and the model as it is with every other backend."""
    engines: EngineSettings = EngineSettings()
    replicas: int = Field(default=1, ge=1, le=256)
    num_cpus: float = Field(default=0.5, ge=0, le=128)
    num_gpus: float = Field(default=0.0, ge=0, le=8)
    threads: int = Field(default=1, ge=0, le=256)
    max_batch: int = Field(default=4, ge=1, le=64)
    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    max_queue: int = Field(default=16, ge=1, le=4096)
    """Clips a replica holds; past it the oldest waiting clip of the fullest camera is refused."""


class TrackerSettings(Settings):
    """Following people from frame to frame, in capture time. See storeguard.tracking.tracker."""

    high_score: Fraction = 0.40
    """Detections at or above this start tracks and are matched first."""
    low_score: Fraction = 0.10
    """Detections between this and `high_score` may only continue a track."""
    max_lost_s: float = Field(default=3.0, gt=0, le=600)
    """A track unseen for longer than this ends; sooner, it may be re-linked. With the default
    `gate` a re-link reaches about 3 s: to bridge longer absences raise both."""
    confirm_s: float = Field(default=0.3, ge=0, le=60)
    """A new track is reported once seen twice; the second look must come within `confirm_s`, or in
    the very next frame. People in a scene's first frame are reported at once."""
    speed: float = Field(default=0.7, gt=0, le=20)
    """Standard deviation of people's velocity, in box sizes (sqrt(width * height)) a second."""
    memory_s: float = Field(default=2.5, gt=0, le=60)
    """How long a velocity carries on while nobody is seen, before it fades (by 1/e), in seconds."""
    gate: float = Field(default=1.5, ge=-10, le=50)
    """How unlikely a match may be: minus twice its log-likelihood, lengths in box sizes."""
    shape_limit: float = Field(default=8.0, gt=0, le=100)
    """The most that a change of width and height counts against a match, in the unit of `gate`."""
    duplicate_iou: Fraction = 0.7
    """A detection that overlaps a matched one by this much starts no track of its own."""


# --------------------------------------------------------------------------- the house


class EventStoreSettings(Settings):
    """Where events are kept. `embedded` starts a Valkey server with an append-only file."""

    url: str = "embedded"
    journal_max_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """Bound of the local journal; what it would have to drop past it is reported loudly."""
    retain_days: float | None = Field(default=90.0, gt=0)
    """Age at which events leave the store, but for those marked `keep`; None keeps them."""
    max_events: int | None = Field(default=None, ge=1)
    """Past this many the oldest events leave the store, but for those marked `keep`."""


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
    """Where people were, kept as Parquet files in ``<data_dir>/tracks``, by day and camera."""

    enabled: bool = True
    rate_hz: float = Field(default=1.0, gt=0, le=60)
    """Rows kept of one person a second of capture time."""
    retain_days: float = Field(default=30.0, gt=0, le=36_500)
    max_bytes: int = Field(default=2**30, ge=2**20)
    """Past this the oldest files go."""


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

    `camera_resource` > 0 asks each camera actor for that much of the custom resource `camera`, so
    that cameras land on the nodes that offer it.
    """

    cameras_per_actor: int = Field(default=4, ge=1, le=256)
    camera_resource: float = Field(default=0.0, ge=0, le=1000)
    camera_cpus: float = Field(default=0.0, ge=0, le=128)
    detector_resources: dict[str, float] = Field(default_factory=dict)
    classifier_resources: dict[str, float] = Field(default_factory=dict)


class StoreConfig(Settings):
    """One store: its cameras, models, and where events and clips go."""

    store: Id = "store"
    data_dir: Path = Path("storeguard-data")
    detector: DetectorSettings = DetectorSettings()
    classifier: ClassifierSettings = ClassifierSettings()
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
        _require_unique("camera", (camera.id for camera in cameras))
        return cameras

    @property
    def classifies(self) -> bool:
        """Whether the clip classifier is started."""
        if self.classifier.enabled is not None:
            return self.classifier.enabled
        return any(camera.classifies for camera in self.cameras)


def _require_unique(what: str, ids: Iterable[str]) -> None:
    for name, times in Counter(ids).items():
        if times > 1:
            raise ValueError(f"{what} id {name!r} is used {times} times; ids must be unique")
