"""OpenVINO: Intel processors and their integrated GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import Array, ModelInput, model_precision

_DTYPES = {"f32": np.float32, "f16": np.float16, "u8": np.uint8}


def openvino_library() -> Any:
    """The package.

    Raises:
        BackendUnavailableError: it is missing.
    """
    try:
        import openvino  # noqa: PLC0415 - optional
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend 'openvino' needs the package openvino ({error}): install "
            "storeguard[openvino], or use backend 'onnxruntime-cpu' or 'auto'"
        ) from None
    return openvino


class OpenVinoBackend:
    """An ONNX file on OpenVINO's CPU device, in the model's own precision.

    Args:
        model: an ONNX file.
        threads: threads inside one inference; 0 lets OpenVINO choose.

    Raises:
        ModelError: no usable model, or one with other than one input of 4 or 5 dimensions.
        BackendUnavailableError: the package is missing.
    """

    name = "openvino"
    uses_gpu = False

    def __init__(self, model: Path, *, threads: int = 0) -> None:
        core = openvino_library().Core()
        # Without the hint, processors with bfloat16 units compute in that precision.
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            read = core.read_model(str(model))
            self._compiled = core.compile_model(read, "CPU", settings)
        except Exception as error:  # noqa: BLE001 - OpenVINO raises RuntimeError and more
            raise ModelError(f"{model}: not a usable ONNX model: {error}") from None
        self.metadata: Mapping[str, str] = _metadata(read)
        self.input = self._only_input(model)
        self.precision = model_precision(self.metadata, self.input)
        self._outputs = {output: output.get_any_name() for output in self._compiled.outputs}
        self._request = self._compiled.create_infer_request()

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for one batch, as float32 in every precision."""
        self.input.require(batch)
        try:
            results = self._request.infer({self.input.name: batch}, share_inputs=True)
        except Exception as error:  # noqa: BLE001 - OpenVINO raises RuntimeError and more
            raise ModelError(f"openvino fails on a batch {batch.shape}: {error}") from None
        return {
            # A copy: the request's own memory is overwritten by the next batch.
            name: np.atleast_1d(np.array(results[output], dtype=np.float32))
            for output, name in self._outputs.items()
        }

    def _only_input(self, model: Path) -> ModelInput:
        inputs = self._compiled.inputs
        kinds = [i.get_element_type().get_type_name() for i in inputs]
        ranks = [len(i.get_partial_shape()) for i in inputs]
        if len(inputs) != 1 or ranks[0] not in (4, 5) or kinds[0] not in _DTYPES:
            seen = ", ".join(
                f"{i.get_any_name()} {i.get_partial_shape()} {kind}"
                for i, kind in zip(inputs, kinds, strict=True)
            )
            raise ModelError(
                f"{model}: expected one input of 4 dimensions (pictures) or 5 (clips) and type "
                f"float32, float16 or uint8; saw {seen}"
            )
        shape = tuple(
            d.get_length() if d.is_static else None for d in inputs[0].get_partial_shape()
        )
        return ModelInput(inputs[0].get_any_name(), np.dtype(_DTYPES[kinds[0]]), shape)


def _metadata(read: Any) -> dict[str, str]:
    """The ONNX file's own metadata, which OpenVINO keeps under ``framework``."""
    try:
        found = read.get_rt_info(["framework"])
    except RuntimeError:  # a model without any
        return {}
    return {key: str(value) for key, value in found.value.items()}
