"""The parts of CUDA's runtime that engines need: the device, a stream, buffers."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storeguard.errors import BackendUnavailableError


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """The GPU in use: its name and compute capability, such as "8.9"."""

    name: str
    compute_capability: str


def cudart() -> ModuleType:
    """CUDA's runtime bindings.

    Raises:
        BackendUnavailableError: the package is missing.
    """
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - optional
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend 'tensorrt' needs the package cuda-bindings ({error}): install "
            "storeguard[tensorrt], or use backend 'onnxruntime-cpu' or 'auto'"
        ) from None
    return runtime  # type: ignore[no-any-return]


def cuda_device() -> CudaDevice:
    """The first GPU.

    Raises:
        BackendUnavailableError: no package, no driver or no GPU; names which.
    """
    runtime = cudart()
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise BackendUnavailableError(
            f"backend 'tensorrt' needs an NVIDIA GPU and its driver; CUDA reports "
            f"{error.name if error else 'no device'}. "
            "Use backend 'onnxruntime-cpu' or 'auto'"
        )
    properties = call("cudaGetDeviceProperties", 0)
    name = properties.name
    return CudaDevice(
        name=(name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
    )


def call(function: str, *args: Any) -> Any:
    """Call CUDA's runtime by name; its result, or None.

    Raises:
        BackendUnavailableError: CUDA reports an error.
    """
    runtime = cudart()
    error, *results = getattr(runtime, function)(*args)
    if error != runtime.cudaError_t.cudaSuccess:
        raise BackendUnavailableError(f"CUDA: {function} failed: {error.name}")
    return results[0] if results else None


class CudaBuffer:
    """One tensor's memory: page-locked on the host, and its copy on the GPU."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.device: int = call("cudaMalloc", num_bytes)
        try:
            self._host: int = call("cudaMallocHost", num_bytes)
        except BackendUnavailableError:
            call("cudaFree", self.device)
            raise

    def host(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The host side as an array; it is valid until `close`."""
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        raw = (ctypes.c_byte * num_bytes).from_address(self._host)
        return np.ndarray(shape, dtype, buffer=memoryview(raw))

    def upload(self, num_bytes: int, stream: Any) -> None:
        """Queue the copy of the first bytes to the GPU."""
        kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", self.device, self._host, num_bytes, kind, stream)

    def download(self, num_bytes: int, stream: Any) -> None:
        """Queue the copy of the first bytes from the GPU."""
        kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", self._host, self.device, num_bytes, kind, stream)

    def close(self) -> None:
        """Free both memories."""
        call("cudaFreeHost", self._host)
        call("cudaFree", self.device)
