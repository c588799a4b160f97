"""An attribute's classifier: crops of people in, a label for each out, on any backend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from storeguard.classification.attributes.crop import FILL_RGB, Crop, to_pictures
from storeguard.config.models import AttributeSettings, Channels, Pixels, Resize
from storeguard.config.zones import Id
from storeguard.errors import ModelError
from storeguard.inference.backend import Backend, in_batches, sha256_of
from storeguard.inference.pixels import PixelFormat, chosen, from_metadata, is_channels_last

LABELS_KEY = "storeguard_labels"
"""The key in a model's metadata under which training noted its labels, as a JSON list."""
DEFAULT_SIDE_PX = 224
_LABELS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[Id, ...])
_TOLERANCE = 1e-3
_PROBES = 7


LabelledCrop = tuple[str, float]
"""The most probable label and its probability, 0..1."""


@dataclass(frozen=True, slots=True)
class AttributeInfo:
    """A loaded attribute classifier: its model, labels and backend.

    Attributes:
        attribute: the attribute's name.
        labels: its classes, in the order of its scores.
        name: the model file's name without its ending.
        sha256: hash of the model file, hex.
        backend, precision: what runs it.
    """

    attribute: str
    labels: tuple[str, ...]
    name: str
    sha256: str
    backend: str
    precision: str


class AttributeClassifier:
    """Predicts one attribute's label from crops of people.

    Args:
        settings: which model. `storeguard.engines.loading` opens the backend that they name.
        backend: runs the model.

    Raises:
        ModelError: the model is none for pictures, or its labels are not known.
    """

    def __init__(self, settings: AttributeSettings, backend: Backend) -> None:
        path = model_path(settings.model)
        self._backend = backend
        shape = self._backend.input.shape
        meta = self._backend.metadata
        self._format = PixelFormat(
            pixels=chosen(settings.pixels, meta.get("pixels"), Pixels.IMAGENET),
            channels=chosen(settings.channels, meta.get("channels"), Channels.RGB),
            channels_last=is_channels_last(self._backend.input, path),
            dtype=self._backend.input.dtype,
        )
        height, width = shape[1:3] if self._format.channels_last else shape[2:4]
        self._size_wh = (width or DEFAULT_SIDE_PX, height or DEFAULT_SIDE_PX)
        self._resize = settings.resize or from_metadata(meta.get("resize"), Resize.LETTERBOX)
        self._gives_probabilities = False
        self._at_once = shape[0] or settings.max_batch
        self.info = AttributeInfo(
            attribute=settings.name,
            labels=_labels(path, settings, self._backend),
            name=path.stem,
            sha256=sha256_of(path),
            backend=self._backend.name,
            precision=self._backend.precision,
        )
        try:
            self._gives_probabilities = are_probabilities(self._probe())
        except ModelError as error:
            raise ModelError(f"{path}: fails on a blank crop: {error}") from None

    def probabilities(self, crops: Sequence[Crop]) -> NDArray[np.float32]:
        """(n, k) float32 probabilities of the k labels, for n > 0 crops.

        Raises:
            ModelError: the model does not give one finite score for each label.
        """
        scores = self._scores(crops)
        if self._gives_probabilities:
            return scores
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        softmax: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
        return softmax

    def label(self, crops: Sequence[Crop]) -> list[LabelledCrop]:
        """The most probable label of each of n > 0 crops.

        Raises:
            ModelError: as from `probabilities`.
        """
        probabilities = self.probabilities(crops)
        best = probabilities.argmax(axis=1)
        return [
            (self.info.labels[k], float(row[k])) for k, row in zip(best, probabilities, strict=True)
        ]

    def _probe(self) -> NDArray[np.float32]:
        """The model's scores of a blank crop and of noise."""
        noise = np.random.default_rng(0).integers(0, 256, (_PROBES, 48, 24, 3), np.uint8)
        return self._scores([np.full((8, 4, 3), FILL_RGB, np.uint8), *noise])

    def _scores(self, crops: Sequence[Crop]) -> NDArray[np.float32]:
        return in_batches(self._run, crops, at_once=self._at_once)

    def _run(self, crops: Sequence[Crop]) -> NDArray[np.float32]:
        pictures = to_pictures(crops, self._size_wh, resize=self._resize)
        outputs = self._backend.run(self._format.pack(pictures))
        k = len(self.info.labels)
        only = next(iter(outputs.values())) if len(outputs) == 1 else np.zeros(0, np.float32)
        scores: NDArray[np.float32] = only.reshape(len(crops), -1) if only.size else only
        one_logit = k == 2 and scores.shape == (len(crops), 1)
        if not (one_logit or scores.shape == (len(crops), k)) or not np.isfinite(scores).all():
            seen = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
            raise ModelError(
                f"{self._backend.name}: expected one finite score for each of the {k} labels "
                f"({', '.join(self.info.labels)}) and {len(crops)} crops, got {seen}"
            )
        if one_logit:
            scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
        return scores.astype(np.float32, copy=False)


def model_path(model: str) -> Path:
    """The file that a `model:` setting names."""
    return Path(model).expanduser()


def are_probabilities(scores: NDArray[np.float32]) -> bool:
    """Whether a model's scores (n, k) of some pictures are probabilities rather than logits."""
    sums = scores.sum(axis=1)
    return bool((scores >= 0).all() and np.abs(sums - 1).max() <= _TOLERANCE)


def _labels(path: Path, settings: AttributeSettings, backend: Backend) -> tuple[str, ...]:
    if settings.labels is not None:
        return settings.labels
    stated = backend.metadata.get(LABELS_KEY)
    if stated is None:
        raise ModelError(
            f"{path}: its metadata names no labels: set 'labels' of attribute {settings.name!r}"
        )
    try:
        labels = _LABELS.validate_python(json.loads(stated))
    except (ValueError, ValidationError):
        labels = ()
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ModelError(
            f"{path}: metadata {LABELS_KEY}: expected a JSON list of two labels or more, each "
            f"once, got {stated!r}"
        )
    return labels
