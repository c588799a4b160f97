"""The API over fakes in memory, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storeguard.config.store import ApiSettings
from tests.serve.api.memory_system import TOKEN, Client, MemorySystem


@pytest.fixture
def system(tmp_path: Path) -> MemorySystem:
    return MemorySystem(ApiSettings(), folder=tmp_path)


@pytest.fixture
def client(system: MemorySystem) -> Iterator[Client]:
    with system.client() as client:
        yield client


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Client]:
    """An API that demands a token."""
    with MemorySystem(ApiSettings(host="0.0.0.0", token=TOKEN), folder=tmp_path).client(
        "http://shop.example:8080"
    ) as client:
        yield client
