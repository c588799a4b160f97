"""A model on one backend, measured: its speed, and how far its outputs are from FP32's."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storeguard.config.models import BackendName, DetectorSettings, Precision
from storeguard.detection.detections import Detections
from storeguard.detection.nms import iou_matrix
from storeguard.engines.build import input_profile
from storeguard.engines.cache import EngineOptions, write_whole
from storeguard.engines.calibration import read_pictures
from storeguard.engines.choice import open_backend
from storeguard.engines.loading import load_detector
from storeguard.inference.backend import Array, Backend, available_cores, sha256_of
from storeguard.inference.cuda import cuda_device

BATCHES = (1, 4, 8)
MIN_SCORE = 0.3
EQUAL_IOU = 0.9
_WARM_UP_RUNS = 3
_NOISE_SAMPLES = 4
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Speed(_Record):
    """Time of one call with a batch, the model alone; and pictures (or clips) a second at p50."""

    batch: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    throughput_per_s: float


class Agreement(_Record):
    """How the outputs differ from those of FP32 on ONNX Runtime's CPU backend.

    Attributes:
        inputs: "pictures", or "noise" where the model takes clips or no pictures were given.
        num_inputs: how many.
        max_abs, mean_abs: difference of the outputs, all together.
        equal_detections: the share of people found at `MIN_SCORE` or more by both, at an IoU of
            `EQUAL_IOU` or more, of all found by either; None without pictures, or if neither
            finds people.
    """

    inputs: str
    num_inputs: int
    max_abs: float
    mean_abs: float
    equal_detections: float | None


class Evidence(_Record):
    """One model on one backend in one precision. What was not measured is None."""

    model: str
    sha256: str
    backend: str
    precision: str
    device: str
    cores: int
    threads: int | None
    versions: dict[str, str]
    input_shape: tuple[int, ...] | None
    build_s: float | None
    engine_bytes: int | None
    speed: tuple[Speed, ...]
    agreement: Agreement | None
    not_run: str | None
    measured_at: datetime


def measure(
    model: Path,
    name: BackendName,
    options: EngineOptions,
    *,
    pictures: Path | None = None,
    limit: int = 64,
    runs: int = 50,
    threads: int = 0,
    build_s: float | None = None,
    engine_bytes: int | None = None,
) -> Evidence:
    """Measure a model on a backend.

    Args:
        model: an ONNX file, or a TensorRT engine with its sidecar.
        name: what runs it.
        options: precision, greatest batch, input size.
        pictures: a folder of pictures to compare a detector on; None compares on noise.
        limit: the most pictures to take.
        runs: timed calls for each batch size.
        threads: threads inside one inference; 0 takes one per core of this process.
        build_s, engine_bytes: the build's seconds and the engine's size, if one was built.

    Raises:
        ModelError, BackendUnavailableError, DatasetError, SourceError: see the parts.
    """
    threads = threads or available_cores()
    backend = open_backend(model, name, threads=threads, options=options)
    shape = input_profile(model, backend.input, options).usual[1:]
    inputs, equal = _noise(backend, shape), None
    if pictures is not None and len(backend.input.shape) == 4:
        settings = _detector_settings(model, name, options, threads)
        inputs, equal = _on_pictures(settings, pictures, limit)
    sizes = tuple(size for size in BATCHES if size <= options.max_batch)
    return Evidence(
        model=model.name,
        sha256=sha256_of(model),
        backend=backend.name,
        precision=backend.precision,
        device=_device(backend),
        cores=available_cores(),
        threads=None if backend.uses_gpu else threads,
        versions=versions(),
        input_shape=shape,
        build_s=build_s,
        engine_bytes=engine_bytes,
        speed=tuple(_speed(backend, _repeated(inputs, size), runs) for size in sizes),
        agreement=_agreement(
            backend, model, inputs, equal, real=pictures is not None and inputs.ndim == 4
        ),
        not_run=None,
        measured_at=datetime.now(UTC),
    )


def not_run(model: Path, name: BackendName, precision: Precision, reason: str) -> Evidence:
    """The row of a backend that cannot run here, with the reason and no figures."""
    return Evidence(
        model=model.name,
        sha256=sha256_of(model),
        backend=name,
        precision=precision,
        device="none",
        cores=available_cores(),
        threads=None,
        versions=versions(),
        input_shape=None,
        build_s=None,
        engine_bytes=None,
        speed=(),
        agreement=None,
        not_run=reason,
        measured_at=datetime.now(UTC),
    )


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write one evidence file, JSON, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    write_whole(path, (evidence.model_dump_json(indent=2) + "\n").encode())


def median_ms(backend: Backend, shape: Sequence[int], *, runs: int = 15) -> float:
    """Median milliseconds of one call with a batch of one of this shape, on noise."""
    return _speed(backend, _noise(backend, shape)[:1], runs).p50_ms


def versions() -> dict[str, str]:
    """Versions of Python and of the inference libraries that are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _speed(backend: Backend, batch: Array, runs: int) -> Speed:
    for _ in range(_WARM_UP_RUNS):
        backend.run(batch)
    times_ms = []
    for _ in range(runs):
        started = time.perf_counter()
        backend.run(batch)
        times_ms.append((time.perf_counter() - started) * 1e3)
    p50, p95, p99 = (round(float(v), 3) for v in np.percentile(times_ms, (50, 95, 99)))
    return Speed(
        batch=len(batch),
        runs=runs,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        throughput_per_s=round(len(batch) / p50 * 1e3, 1),
    )


def _agreement(
    backend: Backend, model: Path, inputs: Array, equal: float | None, *, real: bool
) -> Agreement | None:
    """None for an engine file, whose FP32 model is not available."""
    if model.suffix != ".onnx":
        return None
    reference = open_backend(model, BackendName.ONNXRUNTIME_CPU)
    gaps = []
    for at in range(len(inputs)):
        ours, theirs = backend.run(inputs[at : at + 1]), reference.run(inputs[at : at + 1])
        gaps += [np.abs(ours[name] - theirs[name]).ravel() for name in theirs]
    every = np.concatenate(gaps)
    return Agreement(
        inputs="pictures" if real else "noise",
        num_inputs=len(inputs),
        max_abs=float(every.max()),
        mean_abs=float(every.mean()),
        equal_detections=equal,
    )


def _on_pictures(
    settings: DetectorSettings, pictures: Path, limit: int
) -> tuple[Array, float | None]:
    """The model's inputs for these pictures, and the share of people found as FP32 finds them."""
    ours = load_detector(settings)
    images = read_pictures(pictures, ours, limit=limit)
    if Path(settings.model).suffix != ".onnx":
        return ours.to_input(images), None
    plain = {"backend": BackendName.ONNXRUNTIME_CPU, "precision": Precision.FP32}
    theirs = load_detector(settings.model_copy(update=plain))
    return ours.to_input(images), equal_share(
        _one_by_one(ours.detect, images), _one_by_one(theirs.detect, images)
    )


def _one_by_one(
    detect: Callable[[NDArray[np.uint8]], tuple[list[Detections], object]],
    images: NDArray[np.uint8],
) -> list[Detections]:
    return [detect(image[np.newaxis])[0][0] for image in images]


def equal_share(ours: Sequence[Detections], theirs: Sequence[Detections]) -> float | None:
    """Share of boxes that both have, of all that either has; None if neither has any."""
    both = every = 0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = mine.xyxy, other.xyxy
        matched = _num_matched(a, b)
        both += matched
        every += len(a) + len(b) - matched
    return round(both / every, 4) if every else None


def _num_matched(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    """Pairs of boxes at `EQUAL_IOU` or more, best first, each box once."""
    if not len(a) or not len(b):
        return 0
    iou = iou_matrix(a, b)
    matched = 0
    while iou.size and iou.max() >= EQUAL_IOU:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        iou[row, :] = iou[:, column] = 0
        matched += 1
    return matched


def _detector_settings(
    model: Path, name: BackendName, options: EngineOptions, threads: int
) -> DetectorSettings:
    return DetectorSettings(
        model=str(model),
        backend=name,
        precision=options.precision,
        engines=options.settings,
        input_size=options.size_wh,
        max_batch=options.max_batch,
        min_score=MIN_SCORE,
        threads=threads,
    )


COLUMNS = (
    "backend",
    "precision",
    "p50 / p95 / p99 ms by batch",
    "a second, best batch",
    "build s",
    "max / mean abs difference to FP32",
    "equal detections",
)


def evidence_row(evidence: Evidence) -> tuple[str, ...]:
    """A line of the evidence table; see `COLUMNS`."""
    if evidence.not_run is not None:
        return (evidence.backend, evidence.precision, f"not run: {evidence.not_run}", *[""] * 4)
    agreed = evidence.agreement
    build_s, equal = evidence.build_s, agreed and agreed.equal_detections
    return (
        evidence.backend,
        evidence.precision,
        "; ".join(
            f"{s.batch}: {s.p50_ms:.1f} / {s.p95_ms:.1f} / {s.p99_ms:.1f}" for s in evidence.speed
        ),
        f"{max(s.throughput_per_s for s in evidence.speed):.0f}",
        "-" if build_s is None else f"{build_s:.1f}",
        "-"
        if agreed is None
        else f"{agreed.max_abs:.2g} / {agreed.mean_abs:.2g} ({agreed.inputs})",
        "-" if equal is None else f"{equal:.1%}",
    )


def _noise(backend: Backend, shape: Sequence[int]) -> Array:
    """(n, *shape) of the input's type, from a fixed seed: bytes, or 0..1."""
    random = np.random.default_rng(0)
    size = (_NOISE_SAMPLES, *shape)
    if backend.input.dtype == np.uint8:
        return random.integers(0, 256, size, dtype=np.uint8)
    noise: Array = random.random(size, dtype=np.float32).astype(backend.input.dtype, copy=False)
    return noise


def _repeated(inputs: Array, size: int) -> Array:
    """A batch of this size from the inputs, repeated where they are too few."""
    return inputs.take(np.arange(size) % len(inputs), axis=0)


def _device(backend: Backend) -> str:
    return cuda_device().name if backend.uses_gpu else processor_name()


def processor_name() -> str:
    """The processor's model, or else its name in the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
