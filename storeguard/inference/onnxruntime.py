"""ONNX Runtime on the CPU, which runs on every machine, and on CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import Array, ModelInput, available_cores, model_precision

_ORT_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class OnnxRuntimeBackend:
    """ONNX Runtime on CPU or, with onnxruntime-gpu, on CUDA.

    Args:
        model: an ONNX file.
        cuda: run on the GPU; no GPU is an error, never a silent fall-back.
        threads: threads inside one inference; 0 takes one per core this process may use.
    """

    def __init__(self, model: Path, *, cuda: bool = False, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or available_cores()
        options.inter_op_num_threads = 1
        # Spinning threads would take the cores that decode video.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # its errors come as exceptions, which we report
        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise BackendUnavailableError(
                f"backend 'onnxruntime-cuda' needs the package onnxruntime-gpu and an NVIDIA GPU; "
                f"this onnxruntime offers {', '.join(ort.get_available_providers())}. "
                "Use backend 'onnxruntime-cpu' or 'auto'"
            )
        try:
            self._session = ort.InferenceSession(str(model), options, providers=[provider])
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            raise ModelError(f"{model}: not a usable ONNX model: {error}") from None
        if provider not in self._session.get_providers():
            raise BackendUnavailableError(
                "backend 'onnxruntime-cuda': the CUDA provider failed to start; check the driver "
                "and the CUDA and cuDNN libraries, or use backend 'onnxruntime-cpu'"
            )
        self.uses_gpu = cuda
        self.name = "onnxruntime-cuda" if cuda else "onnxruntime-cpu"
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.input = self._only_input(model)
        self.precision = model_precision(self.metadata, self.input)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _only_input(self, model: Path) -> ModelInput:
        inputs = self._session.get_inputs()
        if (
            len(inputs) != 1
            or len(inputs[0].shape) not in (4, 5)
            or inputs[0].type not in _ORT_DTYPES
        ):
            seen = ", ".join(f"{i.name} {i.shape} {i.type}" for i in inputs)
            raise ModelError(
                f"{model}: expected one input of 4 dimensions (pictures) or 5 (clips) and type "
                f"float32, float16 or uint8; saw {seen}"
            )
        only = inputs[0]
        shape = tuple(d if isinstance(d, int) and d > 0 else None for d in only.shape)
        return ModelInput(only.name, np.dtype(_ORT_DTYPES[only.type]), shape)

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for one batch, as float32 in every precision."""
        self.input.require(batch)
        try:
            results = self._session.run(self._outputs, {self.input.name: batch})
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            raise ModelError(f"onnxruntime fails on a batch {batch.shape}: {error}") from None
        return {
            name: np.atleast_1d(np.asarray(result, dtype=np.float32))
            for name, result in zip(self._outputs, results, strict=True)
        }
