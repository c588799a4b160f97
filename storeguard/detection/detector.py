"""The person detector: pictures in, people's boxes out, for all model layouts and backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import DetectorSettings, LayoutName, Resize
from storeguard.detection.decoders import Feeding, decoder_of, feeding_of
from storeguard.detection.detections import Detections
from storeguard.detection.export import ExportMetadata, describe_names
from storeguard.detection.layouts.outputs import (
    ROUNDING,
    Decoder,
    Outputs,
    describe_shapes,
    shapes_of,
)
from storeguard.detection.letterbox import PAD_VALUE, Fit, fit, place
from storeguard.detection.nms import nms
from storeguard.detection.recognition import recognise
from storeguard.detection.self_test import SelfTest, self_test_picture
from storeguard.errors import ModelError, ModelLayoutError
from storeguard.inference.backend import Backend, sha256_of
from storeguard.inference.pixels import PixelFormat, chosen, from_metadata, is_channels_last
from storeguard.video.frame import Frame

BUNDLED_MODEL = "person_yolox_nano.onnx"
DEFAULT_INPUT_SIZE = 320
_SEEN_SCORE = 0.01
"""Boxes less probable than this do not show how a model gives its boxes."""
_NUM_SEEN = 20


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
        person_classes: indices of the model's classes that count as people.
        self_test: whether it finds a person in the self-test picture; None where it was not run.
    """

    name: str
    sha256: str
    backend: str
    precision: str
    layout: LayoutName
    input_wh: tuple[int, int]
    resize: Resize
    centred: bool
    person_classes: tuple[int, ...] = (0,)
    self_test: SelfTest | None = None

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
        ModelLayoutError: its outputs fit no known layout, or not the one in the settings; or they
            hold no probabilities or boxes; or its metadata names no class of people.
    """

    def __init__(self, settings: DetectorSettings, backend: Backend) -> None:
        path = model_path(settings.model)
        self._backend = backend
        self._settings = settings
        self._channels_last = is_channels_last(self._backend.input, path)
        meta = self._backend.metadata
        with _named(path):
            export = ExportMetadata.of(meta)
            input_wh = self._input_wh(export)
            blank = self._probe(input_wh)
            layout = self._layout(blank, input_wh, export)
            feeding = feeding_of(layout, blank)
            self._decode = self._decoder(layout, blank, input_wh, export)
            people = self._person_classes_of(export, feeding)
        self._needs_nms = feeding.needs_nms
        self._format = PixelFormat(
            pixels=chosen(settings.pixels, meta.get("pixels"), feeding.pixels),
            channels=chosen(settings.channels, meta.get("channels"), feeding.channels),
            channels_last=self._channels_last,
            dtype=self._backend.input.dtype,
        )
        centred = {"centred": True, "topleft": False}.get(meta.get("pad", ""), feeding.centred)
        self.info = DetectorInfo(
            name=path.stem,
            sha256=sha256_of(path),
            backend=self._backend.name,
            precision=self._backend.precision,
            layout=layout,
            input_wh=input_wh,
            resize=settings.resize,
            centred=centred,
            person_classes=tuple(sorted(people)),
        )
        self._whole_batches = self._batches_are_whole()
        with _named(path):
            self.info = replace(self.info, self_test=self._self_test())

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

        Raises:
            ValueError: the images are of another shape or type.
            ModelLayoutError: the model's scores are no probabilities: finding nobody would be a
                guess.
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
        _require_probabilities(raw)
        people = raw[
            np.isin(raw.class_id, self.info.person_classes) & np.isfinite(raw.xyxy).all(axis=1)
        ]
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

    def _input_wh(self, export: ExportMetadata) -> tuple[int, int]:
        shape = self._backend.input.shape
        height, width = shape[1:3] if self._channels_last else shape[2:4]
        requested = requested_wh(self._settings)
        fixed = (width or requested[0], height or requested[1])
        if self._settings.input_size is not None and fixed != requested:
            raise ModelError(
                f"the model's input is {fixed[0]}x{fixed[1]} and cannot be changed; "
                f"detector.input_size requests {requested[0]}x{requested[1]}"
            )
        if export.stride is not None and any(side % export.stride for side in fixed):
            raise ModelError(
                f"its metadata states the stride {export.stride}: expected an input of multiples "
                f"of it, found {fixed[0]}x{fixed[1]}; set detector.input_size"
            )
        return fixed

    def _blank(self, input_wh: tuple[int, int], n: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        height, width = input_wh[::-1]
        shape = (n, height, width, 3) if self._channels_last else (n, 3, height, width)
        return np.full(shape, PAD_VALUE, dtype=self._backend.input.dtype)

    def _probe(self, input_wh: tuple[int, int]) -> Outputs:
        """The outputs for a blank picture; what is not a number is 0."""
        try:
            outputs = self._backend.run(self._blank(input_wh, 1))
        except Exception as error:  # noqa: BLE001 - backends' exceptions share no base class
            raise ModelError(
                f"fails on a blank picture of {input_wh[0]}x{input_wh[1]}: {error}"
            ) from None
        return {name: np.nan_to_num(array) for name, array in outputs.items()}

    def _layout(
        self, outputs: Outputs, input_wh: tuple[int, int], export: ExportMetadata
    ) -> LayoutName:
        named = self._settings.layout
        if named is LayoutName.AUTO:
            named = from_metadata(self._backend.metadata.get("layout"), LayoutName.AUTO)
        return recognise(outputs, input_wh, export) if named is LayoutName.AUTO else named

    def _decoder(
        self,
        layout: LayoutName,
        outputs: Outputs,
        input_wh: tuple[int, int],
        export: ExportMetadata,
    ) -> Decoder:
        """The layout's decoder, which was tried on these outputs."""
        try:
            decode = decoder_of(layout, outputs, input_wh, export)
            decode(outputs, input_wh, 0.5)
        except ModelLayoutError:
            raise
        except (ValueError, IndexError) as error:
            raise ModelLayoutError(
                f"the outputs {describe_shapes(shapes_of(outputs))} do not fit layout {layout}: "
                f"{error}"
            ) from None
        return decode

    def _person_classes_of(self, export: ExportMetadata, feeding: Feeding) -> frozenset[int]:
        chosen_class = self._settings.person_class
        if chosen_class is None:
            named = export.person_classes()
            return frozenset({feeding.person_class}) if named is None else named
        if export.names is not None and chosen_class not in export.names:
            raise ModelLayoutError(
                f"detector.person_class: expected one of the classes that its metadata names, "
                f"{describe_names(export.names)}; found {chosen_class}"
            )
        return frozenset({chosen_class})

    def _self_test(self) -> SelfTest | None:
        """Check the values that the model gives for real pictures, and whether it finds people."""
        picture = self_test_picture(self._settings.self_test)
        width, height = self.info.input_wh
        blank = np.full((height, width, 3), PAD_VALUE, np.uint8)
        frames = [blank] if picture is None else [blank, self.info.fitted(picture.frame)[0]]
        for image in frames:
            for outputs in self._run(self.to_input(image[np.newaxis])):
                for raw in self._decode(outputs, self.info.input_wh, _SEEN_SCORE):
                    _require_probabilities(raw)
                    _require_boxes(raw, self.info.input_wh)
        if picture is None:
            return None
        return picture.result(self.find(picture.frame)[0])

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


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors about a model begin with its file."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{path}: {error}") from None


def _require_probabilities(raw: Detections) -> None:
    if (raw.score > 1 + ROUNDING).any():
        raise ModelLayoutError(
            f"expected probabilities in 0..1, found a score of {raw.score.max():.4g}: the outputs "
            "are of another layout (name it as detector.layout) or of another task, such as pose "
            "or rotated boxes"
        )


def _require_boxes(raw: Detections, input_wh: tuple[int, int]) -> None:
    """The most probable boxes have a size and overlap the picture."""
    best = raw[np.argsort(-raw.score, kind="stable")[:_NUM_SEEN]].xyxy
    inside = ((best[:, :2] < best[:, 2:]) & (best[:, :2] < input_wh) & (best[:, 2:] > 0)).all(
        axis=1
    )
    if inside.sum() * 2 < len(best):
        raise ModelLayoutError(
            f"expected boxes inside the input of {input_wh[0]}x{input_wh[1]}, found "
            f"{len(best) - int(inside.sum())} of the best {len(best)} outside or without a size, "
            f"such as {best[~inside][0].round(2).tolist()}: the outputs are of another layout; "
            "name it as detector.layout"
        )


DetectFunction = Callable[[NDArray[np.uint8]], tuple[list[Detections], DetectTiming]]
"""The signature of `Detector.detect`."""
