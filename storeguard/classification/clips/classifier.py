"""The clip classifier: clips of one person in, probabilities out, on any backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX, Clip, to_input
from storeguard.config.models import ClassifierSettings
from storeguard.errors import ModelError
from storeguard.inference.backend import Backend, in_batches, sha256_of

BUNDLED_MODEL = "shoplifting_lite0_tap.onnx"
THRESHOLD_KEY = "storeguard_threshold"
"""The key in a model's metadata under which training noted the threshold it recommends."""
DEFAULT_THRESHOLD = 0.5
TOP_CLIPS = 3
_SHAPE = (CLIP_FRAMES, 3, SIDE_PX, SIDE_PX)


@dataclass(frozen=True, slots=True)
class ClassifierInfo:
    """A loaded clip classifier: its model and its backend.

    Attributes:
        name: the model file's name without its ending.
        sha256: hash of the model file, hex.
        backend, precision: what runs it.
        threshold: the probability from which its training recommends an event.
    """

    name: str
    sha256: str
    backend: str
    precision: str
    threshold: float


class ClipClassifier:
    """Predicts for clips how probable it is that goods are concealed in them.

    Args:
        settings: which model. `storeguard.engines.loading` opens the backend that they name.
        backend: runs the model.

    Raises:
        ModelError: the model is none for clips.
    """

    def __init__(self, settings: ClassifierSettings, backend: Backend) -> None:
        path = model_path(settings.model)
        self._backend = backend
        shape = self._backend.input.shape
        fits = len(shape) == 5 and all(
            found in {None, expected} for found, expected in zip(shape[1:], _SHAPE, strict=True)
        )
        if not fits or self._backend.input.dtype not in (np.float32, np.float16):
            raise ModelError(
                f"{path}: expected a clip classifier with one float input (n, "
                f"{', '.join(map(str, _SHAPE))}), saw {shape} {self._backend.input.dtype}"
            )
        self._at_once = shape[0] or settings.max_batch
        self.info = ClassifierInfo(
            name=path.stem,
            sha256=sha256_of(path),
            backend=self._backend.name,
            precision=self._backend.precision,
            threshold=_threshold(path, self._backend),
        )
        try:
            self.score([np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)])
        except ModelError as error:
            raise ModelError(f"{path}: fails on a blank clip: {error}") from None

    def score(self, clips: Sequence[Clip]) -> NDArray[np.float32]:
        """(n,) float32 probabilities 0..1 of n > 0 clips (see `classification.clip.Clip`).

        Raises:
            ModelError: the model does not give one finite logit a clip.
        """
        return in_batches(self._run, clips, at_once=self._at_once)

    def _run(self, clips: Sequence[Clip]) -> NDArray[np.float32]:
        batch = to_input(clips).astype(self._backend.input.dtype, copy=False)
        outputs = self._backend.run(batch)
        logits = next(iter(outputs.values())).reshape(-1) if len(outputs) == 1 else np.zeros(0)
        if logits.shape != (len(clips),) or not np.isfinite(logits).all():
            seen = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
            raise ModelError(
                f"{self._backend.name}: expected one finite logit for each of {len(clips)} clips, "
                f"got {seen}"
            )
        # The logistic function, without the overflow of exp(-x).
        probabilities: NDArray[np.float32] = (0.5 + 0.5 * np.tanh(logits / 2)).astype(np.float32)
        return probabilities


def top_mean(scores: Sequence[float]) -> float | None:
    """The score of a whole stay or video: the mean of its `TOP_CLIPS` highest clips; None if empty.

    Concealing something takes a moment; the mean over all clips would hide it.
    """
    best = sorted(scores, reverse=True)[:TOP_CLIPS]
    return float(np.mean(best)) if best else None


def model_path(model: str) -> Path:
    """The file that a `model:` setting names."""
    if model == "bundled":
        return Path(str(resources.files("storeguard.models") / BUNDLED_MODEL))
    return Path(model)


def _threshold(path: Path, backend: Backend) -> float:
    stated = backend.metadata.get(THRESHOLD_KEY)
    if stated is None:
        return DEFAULT_THRESHOLD
    try:
        threshold = float(stated)
    except ValueError:
        threshold = -1.0
    if not 0 < threshold < 1:
        raise ModelError(
            f"{path}: metadata {THRESHOLD_KEY}: expected a number in 0..1, got {stated!r}"
        )
    return threshold
