"""Settings of the models that detect, track and classify people, and of what runs them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from storeguard.config.zones import RULE_TYPES, Fraction, Id, Settings


class BackendName(StrEnum):
    """What runs the model."""

    AUTO = "auto"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


class Precision(StrEnum):
    """The number format of a model's computation. INT8 needs an engine calibrated on pictures."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class EngineSettings(Settings):
    """Engines: models compiled for one GPU, or converted to one precision, and kept in a folder."""

    dir: str = "~/.cache/storeguard/engines"
    build: bool = False
    """Whether backend `auto` may build a missing or stale engine while it loads, for minutes."""


class LayoutName(StrEnum):
    """The layout of a detector's outputs.

    `auto` recognises it from their shapes and values, and from what the exporter noted in the
    model. See storeguard.detection.layouts.
    """

    AUTO = "auto"
    YOLOX = "yolox"
    YOLOX_DECODED = "yolox_decoded"
    """Exported with `--decode_in_inference`."""
    YOLOV5 = "yolov5"
    """YOLOv5, YOLOv7."""
    YOLOV8 = "yolov8"
    """YOLOv8, YOLO11, YOLO12: boxes, also those of pose, segmentation and rotated-box models."""
    END2END = "end2end"
    """YOLOv10, YOLO26 and others that select their boxes: x1, y1, x2, y2, score, class."""
    DEEPSTREAM = "deepstream"
    """DeepStream-Yolo: x1, y1, x2, y2, score, class of every place."""
    EFFICIENT_NMS = "efficient_nms"
    """TensorRT's plugin: a count, boxes, scores, classes."""
    DETR = "detr"
    """RT-DETR, D-FINE, DEIM, RF-DETR."""
    DETECTNET_V2 = "detectnet_v2"
    SSD = "ssd"
    MMDET = "mmdet"
    """MMDeploy, such as RTMDet with its selection: dets, labels."""
    RTMDET = "rtmdet"
    """RTMDet's raw heads."""
    PPYOLOE = "ppyoloe"
    PICODET = "picodet"
    NANODET = "nanodet"


class Pixels(StrEnum):
    """The range of a model's input pixels; `auto` takes the one usual for the layout."""

    AUTO = "auto"
    BYTES = "bytes"
    """0..255"""
    UNIT = "unit"
    """0..1"""
    IMAGENET = "imagenet"
    """0..1, less ImageNet's mean, over its standard deviation."""


class Channels(StrEnum):
    """The colour order of a model's input; `auto` takes the one usual for the layout."""

    AUTO = "auto"
    RGB = "rgb"
    BGR = "bgr"


class Resize(StrEnum):
    """Letterbox keeps the picture's aspect ratio and pads; stretch does neither."""

    LETTERBOX = "letterbox"
    STRETCH = "stretch"


_Side = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
InputSize = _Side | tuple[_Side, _Side] | None


class DetectorSettings(Settings):
    """The person detector and how it is served.

    `min_score` is the lowest confidence passed to the tracker, whose second association uses weak
    boxes; a detection counts as sure from `tracker.high_score` on.
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
    """Index of the class person; None takes the classes that the model's metadata names so, or the
    layout's usual one (0; 1 for SSD and RF-DETR)."""
    self_test: str | None = None
    """A picture with people, in which the model must find one; None takes the bundled one."""
    min_score: Fraction = 0.10
    nms_iou: Fraction = 0.60
    replicas: int = Field(default=1, ge=1, le=256)
    num_cpus: float = Field(default=1.0, ge=0, le=128)
    num_gpus: float = Field(default=0.0, ge=0, le=8)
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of one replica's inference on the CPU; 0 takes up to four of the machine's cores, and
    more only with a higher `num_cpus`. Idle threads sleep, they do not spin."""
    max_batch: int = Field(default=8, ge=1, le=256)
    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    """How long a free detector waits for a fuller batch; at 0 batches form while it is busy."""
    max_queue: int = Field(default=64, ge=1, le=65_536)
    """Frames a replica holds; past it the camera with the most waiting loses its oldest frame."""


class ClassifierSettings(Settings):
    """The clip classifier and how it is served; only `shoplifting_suspected` rules use it."""

    enabled: bool | None = None
    """None starts it if a camera's rules use it; True starts it also for cameras added later."""
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
    """Clips a replica holds; past it the camera with the most waiting loses its oldest clip."""


RESERVED_ATTRIBUTES: frozenset[str] = frozenset().union(
    *(rule.event_attributes for rule in RULE_TYPES)
)
"""Names in an event's attributes that rules write themselves."""


class AttributeSettings(Settings):
    """An attribute of people, such as whether they carry a basket.

    An image classifier receives a crop of each person every `every_s`; the person's label is the
    one that most of these predictions are for.
    """

    name: Id
    """Its key in events' `attributes` and in analytics."""
    model: str
    """The path of an ONNX file, or of a TensorRT engine with its sidecar: pictures in, a score for
    each label out (logits or probabilities; one logit decides between two labels)."""
    labels: tuple[Id, ...] | None = Field(default=None, min_length=2, max_length=1000)
    """In the order of the model's scores; None takes them from its metadata."""
    cameras: tuple[Id, ...] | None = None
    """The cameras whose people are classified; None means all cameras."""
    every_s: float = Field(default=1.0, gt=0, le=3600)
    """Seconds of capture time between two predictions for a person."""
    min_score: Fraction = 0.5
    """A prediction whose best label is less probable than this does not count as a vote."""
    min_height_px: int = Field(default=48, ge=1, le=4096)
    """People smaller than this in the frame are not classified."""
    min_votes: int = Field(default=3, ge=1, le=1000)
    """Votes that a person needs before a label is reported."""
    max_votes: int = Field(default=15, ge=1, le=1000)
    """Only a person's latest votes count: a person may take a basket, or put it down."""
    resize: Resize | None = None
    """None takes the value in the model's metadata, or `letterbox`."""
    pixels: Pixels = Pixels.AUTO
    """`auto` takes the value in the model's metadata, or `imagenet`."""
    channels: Channels = Channels.AUTO
    """`auto` takes the value in the model's metadata, or `rgb`."""
    backend: BackendName = BackendName.AUTO
    precision: Precision | None = None
    """None takes fp16 with TensorRT, and the model as it is with every other backend."""
    engines: EngineSettings = EngineSettings()
    replicas: int = Field(default=1, ge=1, le=256)
    num_cpus: float = Field(default=0.25, ge=0, le=128)
    num_gpus: float = Field(default=0.0, ge=0, le=8)
    threads: int = Field(default=1, ge=0, le=256)
    max_batch: int = Field(default=8, ge=1, le=256)
    max_wait_ms: float = Field(default=0.0, ge=0, le=1000)
    max_queue: int = Field(default=64, ge=1, le=4096)
    """Crops a replica holds; past it the camera with the most waiting loses its oldest crop."""

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_ATTRIBUTES:
            raise ValueError(f"expected a name that rules do not use themselves, found {name!r}")
        return name

    @model_validator(mode="after")
    def _votes_fit(self) -> Self:
        if self.max_votes < self.min_votes:
            raise ValueError(
                f"max_votes: expected at least min_votes ({self.min_votes}), found {self.max_votes}"
            )
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: expected each once, found {list(self.labels)}")
        return self

    def applies_to(self, camera_id: str) -> bool:
        """Whether a camera's people are classified."""
        return self.cameras is None or camera_id in self.cameras


class TrackerSettings(Settings):
    """Tracking people from frame to frame, in capture time. See storeguard.tracking.tracker."""

    high_score: Fraction = 0.40
    """Detections at or above this start tracks and are matched first."""
    low_score: Fraction = 0.10
    """Detections between this and `high_score` may only continue a track."""
    max_lost_s: float = Field(default=3.0, gt=0, le=600)
    """A track unseen for longer than this ends; sooner, it may be re-linked. Silence of the camera
    does not count (see `storeguard.config.zones.VisitSettings.max_gap_s`). With the default
    `gate` a re-link reaches about 3 s: to bridge longer absences raise both."""
    confirm_s: float = Field(default=0.3, ge=0, le=60)
    """A new track is reported after its second detection, which must come within `confirm_s` or in
    the next frame. People in the first frame of an epoch are reported at once."""
    speed: float = Field(default=0.7, gt=0, le=20)
    """Standard deviation of people's velocity, in box sizes (sqrt(width * height)) a second."""
    memory_s: float = Field(default=2.5, gt=0, le=60)
    """Seconds after which an unseen person's velocity has faded to 1/e."""
    gate: float = Field(default=1.5, ge=-10, le=50)
    """How unlikely a match may be: minus twice its log-likelihood, lengths in box sizes."""
    shape_limit: float = Field(default=8.0, gt=0, le=100)
    """Upper limit of what a change of width and height counts against a match, in `gate`'s unit."""
    duplicate_iou: Fraction = 0.7
    """A detection that overlaps a matched one by this much starts no track of its own."""
