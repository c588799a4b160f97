# ruff: noqa: ARG001, ARG002, ARG005, N802, N815
"""A stand-in for the modules tensorrt and cuda.bindings.runtime, for machines without a GPU.

Only the names that Storeguard calls are here; they were checked against the real bindings of
tensorrt-rtx 1.7 and cuda-bindings 13.5. "GPU" memory is host memory, so addresses, sizes and
copies are real. The engine gives each item's doubled mean; nothing of TensorRT itself is tested.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeCuda:
    """cuda.bindings.runtime with one GPU, or none."""

    class cudaError_t(Enum):  # noqa: N801 - CUDA's name
        cudaSuccess = 0
        cudaErrorMemoryAllocation = 2
        cudaErrorNoDevice = 100

        def __bool__(self) -> bool:
            return self.value != 0

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(
        self, *, gpus: int = 1, name: bytes = b"Fake RTX", free_bytes: int = 2**30
    ) -> None:
        self.held: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.copies: list[int] = []
        self._gpus, self._name, self._free = gpus, name, free_bytes

    def cudaGetDeviceCount(self) -> tuple[Any, int | None]:
        if not self._gpus:
            return self.cudaError_t.cudaErrorNoDevice, None
        return self.cudaError_t.cudaSuccess, self._gpus

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, Any]:
        assert device == 0
        return self.cudaError_t.cudaSuccess, SimpleNamespace(name=self._name, major=8, minor=9)

    def cudaMalloc(self, size: int) -> tuple[Any, int | None]:
        if size > self._free:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        self.held[address] = memory
        return self.cudaError_t.cudaSuccess, address

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[Any]:
        del self.held[address]
        return (self.cudaError_t.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, int]:
        assert flags == 1
        self.streams.add(77)
        return self.cudaError_t.cudaSuccess, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:
        self.streams.remove(stream)
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Any]:
        assert stream in self.streams
        self.copies.append(kind)
        ctypes.memmove(to, source, size)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        assert stream in self.streams
        return (self.cudaError_t.cudaSuccess,)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._address: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "images"
        self._shape = shape
        least, _, most = self._engine.profile
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._address[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "mean"
        return (-1,) if self._engine.open_output else (self._shape[0],)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        size = int(np.prod(self._shape))
        read = (ctypes.c_float * size).from_address(self._address["images"])
        batch = np.frombuffer(read, np.float32).reshape(self._shape)
        means = (2 * batch.reshape(len(batch), -1).mean(axis=1)).astype(np.float16)
        self._engine.batches.append(len(batch))
        ctypes.memmove(self._address["mean"], means.ctypes.data, means.nbytes)
        return True


class _Engine:
    num_io_tensors = 2

    def __init__(self, profile: list[tuple[int, ...]], *, open_output: bool) -> None:
        self.profile, self.open_output = profile, open_output
        self.batches: list[int] = []

    def get_tensor_name(self, at: int) -> str:
        return ("images", "mean")[at]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "images" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> type:
        return np.float32 if name == "images" else np.float16

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("images", 0)
        return self.profile

    def create_execution_context(self) -> _Context:
        return _Context(self)


class FakeTensorRt:
    """The module tensorrt. Its engines are the byte string ``engine``; all else is refused."""

    TensorIOMode = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)  # the bit, as in TensorRT 10

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None: ...

    def __init__(self, version: str = "11.4.0", *, open_output: bool = False) -> None:
        self.__version__ = version
        self.built: list[dict[str, Any]] = []
        self.engine: _Engine | None = None
        self.profile = [(1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32)]
        self.fails_with: str | None = None
        self._open_output = open_output

    nptype = staticmethod(np.dtype)

    def Runtime(self, logger: Any) -> Any:
        def deserialize(blob: bytes) -> _Engine | None:
            if blob != b"engine":
                return None
            self.engine = _Engine(self.profile, open_output=self._open_output)
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def Builder(self, logger: Any) -> Any:
        build: dict[str, Any] = {}
        self.built.append(build)

        def set_shape(name: str, *shapes: tuple[int, ...]) -> None:
            build["profile"] = (name, *shapes)

        def create_timing_cache(blob: bytes) -> Any:
            build["timings_before"] = blob
            return SimpleNamespace(serialize=lambda: b"timings")

        def serialized(network: Any, config: Any) -> bytes | None:
            if self.fails_with:
                logger.log(self.ILogger.Severity.ERROR, self.fails_with)
                return None
            return b"engine"

        cache: list[Any] = []
        config = SimpleNamespace(
            add_optimization_profile=lambda profile: None,
            create_timing_cache=create_timing_cache,
            set_timing_cache=lambda c, ignore: cache.append(c) or True,
            get_timing_cache=lambda: cache[-1],
        )

        def create_network(flags: int) -> Any:
            build["flags"] = flags
            return SimpleNamespace(build=build)

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: SimpleNamespace(set_shape=set_shape),
            build_serialized_network=serialized,
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        def parse(graph: bytes) -> bool:
            network.build["graph"] = graph
            return True

        return SimpleNamespace(parse=parse, num_errors=0)
