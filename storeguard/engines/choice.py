"""Opening a model: which backend runs it on this machine, and from which file."""

from __future__ import annotations

import logging
from pathlib import Path

from storeguard.config.models import BackendName, Precision
from storeguard.engines.build import (
    CONVERTED_TARGET,
    build_engine,
    convert_model,
    engine_key,
)
from storeguard.engines.cache import EngineOptions, fresh_engine
from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import Backend
from storeguard.inference.engine_file import ENGINE_ENDINGS, EngineTarget
from storeguard.inference.onnxruntime import OnnxRuntimeBackend
from storeguard.inference.openvino import OpenVinoBackend, openvino_library
from storeguard.inference.tensorrt import TensorRtBackend, local_target

_log = logging.getLogger(__name__)
_DEFAULT_OPTIONS = EngineOptions()


def open_backend(
    model: Path,
    name: BackendName,
    *,
    threads: int = 0,
    options: EngineOptions = _DEFAULT_OPTIONS,
) -> Backend:
    """Load a model into the requested backend.

    `auto` takes TensorRT if a fresh engine is kept (or may be built), else CUDA, else the CPU.
    `tensorrt` builds a missing or stale engine. FP16 variants are made when first requested.

    Args:
        model: an ONNX file, or a TensorRT engine (.engine, .plan) with its sidecar.
        name: the backend.
        threads: threads inside one inference on the CPU; 0 lets the backend choose.
        options: which engine is requested.

    Raises:
        ModelError: the file is missing or no model, or an engine for another machine; or INT8 is
            requested and no engine was calibrated.
        BackendUnavailableError: the requested backend cannot run here.
    """
    if not model.is_file():
        raise ModelError(f"{model}: there is no such model file")
    if model.suffix in ENGINE_ENDINGS:
        if name not in (BackendName.AUTO, BackendName.TENSORRT):
            raise ModelError(f"{model}: a TensorRT engine runs on backend 'tensorrt', not '{name}'")
        return TensorRtBackend(model)
    match name:
        case BackendName.TENSORRT:
            return TensorRtBackend(_engine(model, options, local_target(), build=True))
        case BackendName.OPENVINO:
            openvino_library()
            return OpenVinoBackend(_converted(model, options), threads=threads)
        case BackendName.ONNXRUNTIME_CPU:
            return OnnxRuntimeBackend(_converted(model, options), threads=threads)
        case BackendName.ONNXRUNTIME_CUDA:
            return OnnxRuntimeBackend(_converted(model, options), cuda=True, threads=threads)
        case BackendName.AUTO:
            return _fastest(model, options, threads)


def _fastest(model: Path, options: EngineOptions, threads: int) -> Backend:
    reasons = []
    try:
        engine = _engine(model, options, local_target(), build=options.settings.build)
        return TensorRtBackend(engine)
    except (BackendUnavailableError, ModelError) as error:
        reasons.append(str(error))
    source = _converted(model, options)
    try:
        return OnnxRuntimeBackend(source, cuda=True, threads=threads)
    except BackendUnavailableError as error:
        reasons.append(str(error))
    backend = OnnxRuntimeBackend(source, threads=threads)
    _log.info("%s: running on the CPU; %s", model.name, "; ".join(reasons))
    return backend


def _engine(model: Path, options: EngineOptions, target: EngineTarget, *, build: bool) -> Path:
    """The fresh engine for this model; if missing or stale, it is built where `build` allows."""
    precision = options.precision or Precision.FP16
    key = engine_key(model, options, precision, target)
    kept = fresh_engine(options.folder, key)
    if kept is not None:
        return kept
    if precision is Precision.INT8:
        raise _uncalibrated(model, "tensorrt")
    if not build:
        raise ModelError(f"{model}: no fresh {precision} engine in {options.folder}")
    _log.warning("%s: building a %s engine, which takes minutes", model.name, precision)
    return build_engine(model, options, precision).path


def _converted(model: Path, options: EngineOptions) -> Path:
    """The ONNX file in the requested precision."""
    precision = options.precision or Precision.FP32
    if precision is Precision.FP32:
        return model
    key = engine_key(model, options, precision, CONVERTED_TARGET)
    kept = fresh_engine(options.folder, key)
    if kept is not None:
        return kept
    if precision is Precision.INT8:
        raise _uncalibrated(model, "onnxruntime")
    return convert_model(model, options, precision).path


def _uncalibrated(model: Path, backend: str) -> ModelError:
    return ModelError(
        f"{model}: no fresh INT8 engine of this model: make one with `storeguard engine build "
        f"{model} --backend {backend} --precision int8 --calibration PICTURES`"
    )
