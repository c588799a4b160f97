"""A real model that a test can hold up, and waiting for a service in an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storeguard.inference.backend import Array
from storeguard.inference.onnxruntime import OnnxRuntimeBackend

PATIENCE_S = 120.0  # a busy machine may pause for a while


class GatedBackend(OnnxRuntimeBackend):
    """Runs a model on the CPU; while `gate` is cleared, every inference waits.

    Attributes:
        sizes: of the batches run.
    """

    def __init__(self, model: Path | str) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.sizes: list[int] = []
        super().__init__(Path(model), threads=1)

    def run(self, batch: Array) -> dict[str, NDArray[np.float32]]:
        self.gate.wait()
        self.sizes.append(len(batch))
        return super().run(batch)


async def until(true: Callable[[], object]) -> None:
    """Run the event loop until something holds."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until_s, f"still false after {PATIENCE_S:g} s"
        await asyncio.sleep(0.001)
