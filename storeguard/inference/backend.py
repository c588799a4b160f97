"""The interface of a runtime: implemented once per inference library, one file each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import Precision
from storeguard.errors import ModelError

T = TypeVar("T")
Array = NDArray[np.float32] | NDArray[np.uint8]
PRECISION_KEY = "storeguard_precision"
"""The key in an ONNX model's metadata under which our converter notes its precision."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model's only input: pictures (rank 4) or clips (rank 5).

    Attributes:
        name: its name in the graph.
        dtype: uint8, float16 or float32.
        shape: None for a dimension that may vary; the first is the batch.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def require(self, batch: NDArray[Any]) -> None:
        """Check a batch's type and shape.

        Raises:
            ModelError: they differ; names what was expected and what was found.
        """
        fits = batch.ndim == len(self.shape) and all(
            expected in (None, found)
            for expected, found in zip(self.shape, batch.shape, strict=True)
        )
        if not fits or batch.dtype != self.dtype or not len(batch):
            expected = ", ".join("any" if size is None else str(size) for size in self.shape)
            raise ModelError(
                f"input {self.name!r}: expected ({expected}) {self.dtype} with at least one in the "
                f"batch, got {batch.shape} {batch.dtype}"
            )


class Backend(Protocol):
    """Runs one model. Not thread-safe: one caller at a time.

    Attributes:
        name: the backend's, as in the configuration.
        uses_gpu: whether it computes on an NVIDIA GPU rather than on the CPU.
        precision: what the model computes in: fp32, fp16 or int8.
        input: the model's only input.
        metadata: the ONNX model's own, by key.
    """

    name: str
    uses_gpu: bool
    precision: str
    input: ModelInput
    metadata: Mapping[str, str]

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        """Outputs by name for one batch of the input's dtype and shape.

        Raises:
            ModelError: the batch does not fit the input, or the library refuses it.
        """
        ...


def model_precision(metadata: Mapping[str, str], model_input: ModelInput) -> str:
    """What an ONNX model computes in: as its converter noted, or else its input's type."""
    stated = metadata.get(PRECISION_KEY, "")
    if stated in list(Precision):
        return stated
    return Precision.FP16 if model_input.dtype == np.float16 else Precision.FP32


def in_batches(
    run: Callable[[Sequence[T]], NDArray[np.float32]], items: Sequence[T], *, at_once: int
) -> NDArray[np.float32]:
    """The results of `run`, one row an item, called with `at_once` items at a time.

    Some models take one item a call, and an engine no more than it was built for.
    """
    starts = range(0, len(items), at_once)
    return np.concatenate([run(items[i : i + at_once]) for i in starts])


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
