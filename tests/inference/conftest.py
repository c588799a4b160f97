from __future__ import annotations

import sys

import pytest

TENSORRT_MODULES = ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TensorRT is installed, even if it is."""
    for name in TENSORRT_MODULES:
        monkeypatch.setitem(sys.modules, name, None)
