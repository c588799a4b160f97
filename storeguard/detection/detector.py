"""The person detector: pictures in, people's boxes out, for all model layouts and backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import Channels, DetectorSettings, LayoutName, Pixels, Resize
from storeguard.detection.decoders import DECODERS, describe_shapes, recognise
from storeguard.detection.detections import Detections
from storeguard.detection.letterbox import PAD_VALUE, Fit, fit, place
from storeguard.detection.nms import nms
from storeguard.errors import ModelError, ModelLayoutError
from storeguard.inference.backend import Backend, sha256_of
from storeguard.inference.pixels import PixelFormat, chosen, from_metadata, is_channels_last
from storeguard.video.frame import Frame

BUNDLED_MODEL = "person_yolox_nano.onnx"
DEFAULT_INPUT_SIZE = 320
_COCO_IDS = 91


@dataclass(frozen=True, slots=True)
class _Defaults:
    """How models of one layout are usually fed, and the number of their class person."""

    pixels: Pixels
    channels: Channels
    person_class: int
    centred: bool
    needs_nms: bool


_DEFAULTS = {
    LayoutName.YOLOX: _Defaults(Pixels.BYTES, Channels.BGR, 0, centred=False, needs_nms=True),
    LayoutName.YOLOV8: _Defaults(Pixels.UNIT, Channels.RGB, 0, centred=True, needs_nms=True),
    LayoutName.DETR: _Defaults(Pixels.UNIT, Channels.RGB, 0, centred=True, needs_nms=False),
    LayoutName.DETECTNET_V2: _Defaults(Pixels.UNIT, Channels.RGB, 0, centred=True, needs_nms=True),
    LayoutName.SSD: _Defaults(Pixels.UNIT, Channels.RGB, 1, centred=True, needs_nms=False),
}


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """A loaded detector: its model, its backend, and the pictures that it takes.

    Attributes:
        name: the model file's name without its ending.
        sha256: hash of the model file, hex.
        backend, precision: what runs it.
        layout: its outputs' layout.
        input_wh: width and height in pixels of the pictures that it takes.
        resize, centred: how a frame is fitted into them (see storeguard.detection.letterbox).
    """

    name: str
    sha256: str
    backend: str
    precision: str
    layout: LayoutName
    input_wh: tuple[int, int]
    resize: Resize
    centred: bool

    def fit(self, source_wh: tuple[int, int]) -> Fit:
        """Where a frame of this size is placed in the model's input."""
        return fit(source_wh, self.input_wh, resize=self.resize, centred=self.centred)

    def fitted(self, frame: Frame) -> tuple[NDArray[np.uint8], Fit]:
        """A frame in the model's input, (height, width, 3) uint8 RGB, and its place there."""
        width, height = self.input_wh
        canvas = np.empty((height, width, 3), np.uint8)
        where = self.fit(frame.wh)
        place(frame, where, canvas)
        return canvas, where


@dataclass(frozen=True, slots=True)
class DetectTiming:
    """Milliseconds spent on one batch: pixel conversion, the model itself, decoding and NMS."""

    preprocess_ms: float
    infer_ms: float
    postprocess_ms: float


class Detector:
    """A person detector. Not thread-safe: one caller at a time.

    Args:
        settings: which model, and how it is fed and read. `storeguard.engines.loading` opens the
            backend that they name.
        backend: runs the model.

    Raises:
        ModelError: the model takes no pictures, or fails on a blank one.
        ModelLayoutError: its outputs fit no known layout, or not the one in the settings.
    """

    def __init__(self, settings: DetectorSettings, backend: Backend) -> None:
        path = model_path(settings.model)
        self._backend = backend
        self._settings = settings
        self._channels_last = is_channels_last(self._backend.input, path)
        input_wh = self._input_wh(path)
        shapes = self._probe(input_wh, path)
        layout = self._layout(shapes, input_wh, path)
        defaults = _defaults_of(layout, shapes)
        self._decode = DECODERS[layout]
        self._needs_nms = defaults.needs_nms
        self._person_class = (
            defaults.person_class if settings.person_class is None else settings.person_class
        )
        meta = self._backend.metadata
        self._format = PixelFormat(
            pixels=chosen(settings.pixels, meta.get("pixels"), defaults.pixels),
            channels=chosen(settings.channels, meta.get("channels"), defaults.channels),
            channels_last=self._channels_last,
            dtype=self._backend.input.dtype,
        )
        centred = {"centred": True, "topleft": False}.get(meta.get("pad", ""), defaults.centred)
        self.info = DetectorInfo(
            name=path.stem,
            sha256=sha256_of(path),
            backend=self._backend.name,
            precision=self._backend.precision,
            layout=layout,
            input_wh=input_wh,
            resize=settings.resize,
            centred=centred,
        )
        self._whole_batches = self._batches_are_whole()

    @property
    def input_name(self) -> str:
        """The name of the model's input in its graph."""
        return self._backend.input.name

    def detect(self, images: NDArray[np.uint8]) -> tuple[list[Detections], DetectTiming]:
        """Find people.

        Args:
            images: (n, height, width, 3) uint8 RGB of the model's input size (`info.input_wh`).

        Returns:
            One `Detections` an image in pixels of the model's input, people only, best first; and
            the time spent.
        """
        expected = (*self.info.input_wh[::-1], 3)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise ValueError(
                f"expected images (n, {', '.join(map(str, expected))}) uint8, got "
                f"{images.shape} {images.dtype}"
            )
        started = time.perf_counter()
        batch = self.to_input(images)
        prepared = time.perf_counter()
        outputs = self._run(batch)
        inferred = time.perf_counter()
        found = [
            self._people(raw)
            for part in outputs
            for raw in self._decode(part, self.info.input_wh, self._settings.min_score)
        ]
        ended = time.perf_counter()
        return found, DetectTiming(
            preprocess_ms=(prepared - started) * 1e3,
            infer_ms=(inferred - prepared) * 1e3,
            postprocess_ms=(ended - inferred) * 1e3,
        )

    def find(self, frame: Frame) -> tuple[Detections, DetectTiming]:
        """Find people in one frame of any size.

        Returns:
            People only, best first, in pixels of the frame; and the time spent, of which
            preprocessing includes scaling the frame.
        """
        started = time.perf_counter()
        image, where = self.info.fitted(frame)
        fitted_ms = (time.perf_counter() - started) * 1e3
        found, timing = self.detect(image[np.newaxis])
        timing = replace(timing, preprocess_ms=fitted_ms + timing.preprocess_ms)
        return where.to_source(found[0]), timing

    def _people(self, raw: Detections) -> Detections:
        people = raw[(raw.class_id == self._person_class) & np.isfinite(raw.xyxy).all(axis=1)]
        if self._needs_nms:
            return people[nms(people.xyxy, people.score, self._settings.nms_iou)]
        return people[np.argsort(-people.score, kind="stable")]

    def _run(
        self, batch: NDArray[np.float32] | NDArray[np.uint8]
    ) -> list[dict[str, NDArray[np.float32]]]:
        """The outputs for the whole batch, or for each picture where the model takes one only."""
        if self._whole_batches or len(batch) == 1:
            return [self._backend.run(batch)]
        return [self._backend.run(batch[i : i + 1]) for i in range(len(batch))]

    def to_input(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """The model's input for these pictures: `images` as for `detect`."""
        return self._format.pack(images)

    def _input_wh(self, path: Path) -> tuple[int, int]:
        shape = self._backend.input.shape
        height, width = shape[1:3] if self._channels_last else shape[2:4]
        requested = requested_wh(self._settings)
        fixed = (width or requested[0], height or requested[1])
        if self._settings.input_size is not None and fixed != requested:
            raise ModelError(
                f"{path}: the model's input is {fixed[0]}x{fixed[1]} and cannot be changed; "
                f"detector.input_size requests {requested[0]}x{requested[1]}"
            )
        return fixed

    def _blank(self, input_wh: tuple[int, int], n: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        height, width = input_wh[::-1]
        shape = (n, height, width, 3) if self._channels_last else (n, 3, height, width)
        return np.full(shape, PAD_VALUE, dtype=self._backend.input.dtype)

    def _probe(self, input_wh: tuple[int, int], path: Path) -> dict[str, tuple[int, ...]]:
        try:
            outputs = self._backend.run(self._blank(input_wh, 1))
        except Exception as error:  # noqa: BLE001 - backends' exceptions share no base class
            raise ModelError(
                f"{path}: fails on a blank picture of {input_wh[0]}x{input_wh[1]}: {error}"
            ) from None
        return {name: np.shape(array) for name, array in outputs.items()}

    def _layout(
        self, shapes: dict[str, tuple[int, ...]], input_wh: tuple[int, int], path: Path
    ) -> LayoutName:
        named = self._settings.layout
        if named is LayoutName.AUTO:
            named = from_metadata(self._backend.metadata.get("layout"), LayoutName.AUTO)
        try:
            layout = recognise(shapes, input_wh) if named is LayoutName.AUTO else named
            blank = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
            DECODERS[layout](blank, input_wh, 0.5)
        except ModelLayoutError as error:
            raise ModelLayoutError(f"{path}: {error}") from None
        except (ValueError, IndexError) as error:
            raise ModelLayoutError(
                f"{path}: the outputs {describe_shapes(shapes)} do not fit layout {named}: {error}"
            ) from None
        return layout

    def _batches_are_whole(self) -> bool:
        """Whether a batch of two gives two results: some exports fix their batch size."""
        if self._backend.input.shape[0] not in (None, 2):
            return False
        try:
            outputs = self._backend.run(self._blank(self.info.input_wh, 2))
        except Exception:  # noqa: BLE001 - any failure means: feed pictures one by one
            return False
        return all(len(array) == 2 for array in outputs.values())


def requested_wh(settings: DetectorSettings) -> tuple[int, int]:
    """Width and height in pixels of the model's input, where the model leaves them open."""
    size = settings.input_size or DEFAULT_INPUT_SIZE
    return size if isinstance(size, tuple) else (size, size)


def model_path(model: str) -> Path:
    """The file behind a `detector.model` setting; `bundled` is the one in this package."""
    if model == "bundled":
        return Path(str(resources.files("storeguard.models") / BUNDLED_MODEL))
    return Path(model).expanduser()


def _defaults_of(layout: LayoutName, shapes: Mapping[str, tuple[int, ...]]) -> _Defaults:
    """How models like this are fed. 91 classes are COCO's own ids, where a person is 1: RF-DETR."""
    defaults = _DEFAULTS[layout]
    if layout is LayoutName.DETR and any(shape[-1] == _COCO_IDS for shape in shapes.values()):
        return replace(defaults, pixels=Pixels.IMAGENET, person_class=1)
    return defaults


DetectFunction = Callable[[NDArray[np.uint8]], tuple[list[Detections], DetectTiming]]
"""The signature of `Detector.detect`."""
