"""Building engines: TensorRT's, and ONNX files of another precision for the other backends."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storeguard.config.models import Precision
from storeguard.engines.cache import EngineOptions, keep_engine, write_whole
from storeguard.engines.calibration import CalibrationBatches
from storeguard.engines.precision import CALIBRATION_METHOD, in_precision
from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import ModelInput, sha256_of
from storeguard.inference.cuda import CudaDevice
from storeguard.inference.engine_file import (
    Calibration,
    EngineCard,
    EngineKey,
    EngineTarget,
    InputProfile,
)
from storeguard.inference.onnxruntime import OnnxRuntimeBackend
from storeguard.inference.tensorrt import local_target, target_of, tensorrt_library

_log = logging.getLogger(__name__)

CONVERTED_TARGET = EngineTarget(library="onnx", version="1", device="any", compute_capability="any")
"""A converted model runs everywhere; the version is that of our conversion."""


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine file and its sidecar's content."""

    path: Path
    card: EngineCard


def engine_key(
    model: Path, options: EngineOptions, precision: Precision, target: EngineTarget
) -> EngineKey:
    """The key that an engine of this model must have to be used.

    Raises:
        ModelError: the file is no usable model.
    """
    return _key(model, OnnxRuntimeBackend(model, threads=1).input, options, precision, target)


def build_engine(
    model: Path,
    options: EngineOptions,
    precision: Precision,
    *,
    batches: CalibrationBatches | None = None,
    compute_capability: str | None = None,
) -> BuiltEngine:
    """Build a TensorRT engine with dynamic batch and a timing cache, and store it with its sidecar.

    Args:
        model: an ONNX file in float32.
        options: the input's shapes, and where engines are kept.
        precision: what it computes in.
        batches: model inputs to calibrate INT8 on.
        compute_capability: build for GPUs of this capability, such as "8.9", without having one;
            TensorRT for RTX alone can. None builds for the GPU at hand.

    Raises:
        ModelError: TensorRT cannot read or build the model; names the node and the reason.
        BackendUnavailableError: no library or no GPU.
        StorageError: the folder cannot be written.
    """
    target = _target(compute_capability)
    read = OnnxRuntimeBackend(model, threads=1)
    key = _key(model, read.input, options, precision, target)
    started = time.perf_counter()
    graph = in_precision(model, precision, batches)
    engine = _compile(
        model, graph, read.input.name, key, options.folder, across=compute_capability is not None
    )
    return _keep(
        engine,
        key,
        options.folder,
        model=model,
        metadata=read.metadata,
        batches=batches,
        started=started,
    )


def convert_model(
    model: Path,
    options: EngineOptions,
    precision: Precision,
    *,
    batches: CalibrationBatches | None = None,
) -> BuiltEngine:
    """Make and store the ONNX file that ONNX Runtime and OpenVINO run in this precision.

    Raises:
        ModelError: the model cannot be converted.
        BackendUnavailableError: the package onnx is missing.
        StorageError: the folder cannot be written.
    """
    read = OnnxRuntimeBackend(model, threads=1)
    key = _key(model, read.input, options, precision, CONVERTED_TARGET)
    started = time.perf_counter()
    graph = in_precision(model, precision, batches)
    return _keep(
        graph,
        key,
        options.folder,
        model=model,
        metadata=read.metadata,
        batches=batches,
        started=started,
    )


def input_profile(model: Path, model_input: ModelInput, options: EngineOptions) -> InputProfile:
    """The shapes to build for: the batch varies, an open height or width takes the options' size.

    Raises:
        ModelError: a dimension other than batch, height and width is open.
    """
    width, height = options.size_wh
    *_, before_last, last = range(len(model_input.shape))
    channels_last = model_input.shape[last] == 3
    sides = (before_last - 1, before_last) if channels_last else (before_last, last)
    open_sides = {sides[0]: height, sides[1]: width}
    rest = [
        open_sides.get(axis) if size is None else size
        for axis, size in enumerate(model_input.shape)
        if axis > 0
    ]
    if None in rest:
        raise ModelError(
            f"{model}: expected only batch, height and width to be open, got {model_input.shape}; "
            "export it with the other sizes fixed"
        )
    sizes = tuple(size for size in rest if size is not None)
    fixed = model_input.shape[0]
    most = options.max_batch if fixed is None else fixed
    least = 1 if fixed is None else fixed
    return InputProfile(
        smallest=(least, *sizes), usual=((least + most) // 2, *sizes), greatest=(most, *sizes)
    )


def _key(
    model: Path,
    model_input: ModelInput,
    options: EngineOptions,
    precision: Precision,
    target: EngineTarget,
) -> EngineKey:
    return EngineKey(
        model_sha256=sha256_of(model),
        target=target,
        precision=precision,
        profile=input_profile(model, model_input, options),
    )


def _target(compute_capability: str | None) -> EngineTarget:
    if compute_capability is None:
        return local_target()
    library, trt = tensorrt_library()
    if library != "tensorrt_rtx":
        raise BackendUnavailableError(
            f"{library} builds only for the GPU at hand; building for compute capability "
            f"{compute_capability} without one needs the package tensorrt-rtx"
        )
    if not hasattr(trt.ComputeCapability, _member(compute_capability)):
        known = sorted(m for m in trt.ComputeCapability.__members__ if m.startswith("SM"))
        raise BackendUnavailableError(
            f"{library} {trt.__version__} does not support compute capability "
            f"{compute_capability}; it knows {', '.join(known)}"
        )
    return target_of(library, str(trt.__version__), CudaDevice("any", compute_capability))


def _member(compute_capability: str) -> str:
    return "SM" + compute_capability.replace(".", "")


def _compile(
    model: Path, graph: bytes, input_name: str, key: EngineKey, folder: Path, *, across: bool
) -> bytes:
    library, trt = tensorrt_library()
    logger, errors = _logger(trt)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        faults = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ModelError(f"{model}: TensorRT cannot read the model: {'; '.join(faults)}")
    config = builder.create_builder_config()
    if across:
        config.num_compute_capabilities = 1
        capability = _member(key.target.compute_capability)
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    shapes = key.profile
    profile.set_shape(input_name, shapes.smallest, shapes.usual, shapes.greatest)
    config.add_optimization_profile(profile)
    timings = folder / f"timing-{_slug(key.target)}.cache"
    keeps_timings = library == "tensorrt"  # TensorRT for RTX ignores them, with a warning
    if keeps_timings:
        _use_timings(config, timings)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"{model}: TensorRT could not build the engine: {'; '.join(errors)}")
    if keeps_timings:
        _keep_timings(config, timings)
    return bytes(engine)


def _logger(trt: Any) -> tuple[Any, list[str]]:
    """A TensorRT logger that forwards warnings, and the errors it has received."""
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                _log.info("TensorRT: %s", message)

    return Logger(), errors


def _use_timings(config: Any, path: Path) -> None:
    """Give the builder the timings that earlier builds measured."""
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):
        _log.warning("%s: TensorRT refuses this timing cache; starting a new one", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timings(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        write_whole(path, bytes(cache.serialize()))


def _keep(
    engine: bytes,
    key: EngineKey,
    folder: Path,
    *,
    model: Path,
    metadata: Mapping[str, str],
    batches: CalibrationBatches | None,
    started: float,
) -> BuiltEngine:
    card = EngineCard(
        key=key,
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        model=model.name,
        metadata=dict(metadata),
        built_at=datetime.now(UTC),
        build_s=round(time.perf_counter() - started, 3),
        calibration=(
            Calibration(method=CALIBRATION_METHOD, num_pictures=len(batches))
            if key.precision is Precision.INT8 and batches is not None
            else None
        ),
    )
    return BuiltEngine(keep_engine(folder, engine, card), card)


def _slug(target: EngineTarget) -> str:
    name = f"{target.library}-{target.version}-{target.device}-{target.compute_capability}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", name)
