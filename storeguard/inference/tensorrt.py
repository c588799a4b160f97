"""TensorRT 10 and newer, and TensorRT for RTX, whose run-time interface is the same.

The precision is that of the ONNX model which an engine is built from: networks are strongly typed,
which all these versions support and TensorRT 11 requires.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import Array, ModelInput
from storeguard.inference.cuda import CudaBuffer, CudaDevice, call, cuda_device
from storeguard.inference.engine_file import EngineCard, EngineTarget, read_card

# The metapackages' names, and those of the bindings where these are installed alone.
_LIBRARIES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for other streams
_OLDEST_MAJOR = {"tensorrt": 10, "tensorrt_rtx": 1}


def tensorrt_library() -> tuple[str, ModuleType]:
    """The installed library: ``tensorrt`` where there is one, else ``tensorrt_rtx``; its module.

    Raises:
        BackendUnavailableError: neither is installed, or it is too old.
    """
    problems = []
    for name, modules in _LIBRARIES.items():
        for module_name in modules:
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:
                problems.append(str(error))
                continue
            if int(str(module.__version__).split(".")[0]) >= _OLDEST_MAJOR[name]:
                return name, module
            problems.append(f"{name} {module.__version__} is older than {_OLDEST_MAJOR[name]}")
    raise BackendUnavailableError(
        "backend 'tensorrt' needs the package tensorrt (10 or newer) or tensorrt-rtx: "
        f"{'; '.join(problems)}. Install storeguard[tensorrt], or use backend 'onnxruntime-cpu' "
        "or 'auto'"
    )


def target_of(library: str, version: str, device: CudaDevice) -> EngineTarget:
    """Where engines built here run. RTX engines run on every GPU of their capability."""
    return EngineTarget(
        library=library,
        version=version,
        device="any" if library == "tensorrt_rtx" else device.name,
        compute_capability=device.compute_capability,
    )


def local_target() -> EngineTarget:
    """What an engine must have been built for to run here.

    Raises:
        BackendUnavailableError: no library or no GPU.
    """
    library, module = tensorrt_library()
    return target_of(library, str(module.__version__), cuda_device())


class TensorRtBackend:
    """Runs an engine on a stream of its own. Not thread-safe: one caller at a time.

    Batches greater than the engine's greatest are fed in parts.

    Args:
        engine: an engine file with its sidecar.

    Raises:
        ModelError: no engine, no sidecar, or one built for another GPU or library version.
        BackendUnavailableError: no library or no GPU.
    """

    name = "tensorrt"
    uses_gpu = True

    def __init__(self, engine: Path) -> None:
        card = read_card(engine)
        _, self._trt = tensorrt_library()
        _require_target(engine, card, local_target())
        logger = self._trt.Logger(self._trt.Logger.WARNING)
        self._runtime = self._trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise ModelError(f"{engine}: TensorRT cannot read this engine: build it again")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendUnavailableError(
                f"{engine}: TensorRT made no execution context; the GPU may be short of memory"
            )
        self.metadata: Mapping[str, str] = card.metadata
        self.precision: str = card.key.precision
        self.input = self._only_input(engine)
        self._outputs = self._names(self._trt.TensorIOMode.OUTPUT)
        self._max_batch = card.key.profile.greatest[0]
        self._stream = call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self._buffers: dict[str, CudaBuffer] = {}

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for one batch, as float32 in every precision."""
        self.input.require(batch)
        parts = [
            self._run_part(batch[at : at + self._max_batch])
            for at in range(0, len(batch), self._max_batch)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def close(self) -> None:
        """Free the GPU's memory."""
        for buffer in self._buffers.values():
            buffer.close()
        self._buffers.clear()
        call("cudaStreamDestroy", self._stream)

    def _run_part(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        if not self._context.set_input_shape(self.input.name, tuple(batch.shape)):
            raise ModelError(f"the engine takes {self.input.shape}, not {batch.shape}")
        source = self._buffer(self.input.name, batch.nbytes)
        source.host(batch.shape, batch.dtype)[...] = batch
        source.upload(batch.nbytes, self._stream)
        shapes = {name: self._output_shape(name) for name in self._outputs}
        dtypes = {name: self._dtype(name) for name in self._outputs}
        for name in self._outputs:
            self._buffer(name, _num_bytes(shapes[name], dtypes[name]))
        if not self._context.execute_async_v3(int(self._stream)):
            raise ModelError(f"TensorRT refused a batch of shape {batch.shape}; see its log")
        for name in self._outputs:
            num_bytes = _num_bytes(shapes[name], dtypes[name])
            self._buffers[name].download(num_bytes, self._stream)
        call("cudaStreamSynchronize", self._stream)
        return {
            name: self._buffers[name].host(shapes[name], dtypes[name]).astype(np.float32)
            for name in self._outputs
        }

    def _buffer(self, name: str, num_bytes: int) -> CudaBuffer:
        """The tensor's memory, enlarged where needed; TensorRT is given its address."""
        held = self._buffers.get(name)
        if held is not None and held.num_bytes >= num_bytes:
            return held
        if held is not None:
            del self._buffers[name]
            held.close()
        fresh = CudaBuffer(max(num_bytes, 1))
        self._buffers[name] = fresh
        self._context.set_tensor_address(name, fresh.device)
        return fresh

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise ModelError(
                f"output {name!r} has a size that depends on the picture ({shape}); export the "
                "model without non-maximum suppression in it"
            )
        return shape

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return dtype

    def _names(self, mode: Any) -> list[str]:
        every = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return [name for name in every if self._engine.get_tensor_mode(name) == mode]

    def _only_input(self, engine: Path) -> ModelInput:
        names = self._names(self._trt.TensorIOMode.INPUT)
        if len(names) != 1:
            raise ModelError(f"{engine}: expected one input, saw {', '.join(names) or 'none'}")
        least, _, most = self._engine.get_tensor_profile_shape(names[0], 0)
        if len(least) not in (4, 5):
            raise ModelError(
                f"{engine}: expected an input of 4 dimensions (pictures) or 5 (clips), "
                f"saw {tuple(most)}"
            )
        # The batch may exceed the profile: it is then fed in parts.
        sizes = (a if a == b else None for a, b in zip(least[1:], most[1:], strict=True))
        return ModelInput(names[0], self._dtype(names[0]), (None, *sizes))


def _num_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize


def _require_target(engine: Path, card: EngineCard, here: EngineTarget) -> None:
    built_for = card.key.target
    if built_for != here:
        raise ModelError(
            f"{engine}: built for {_described(built_for)}; here is {_described(here)}: "
            "build it again with `storeguard engine build`"
        )


def _described(target: EngineTarget) -> str:
    return (
        f"{target.library} {target.version} on {target.device}, compute capability "
        f"{target.compute_capability}"
    )
