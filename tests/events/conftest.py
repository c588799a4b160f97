from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storeguard.events.store import EventStore
from tests.valkey import ValkeyProcess, running_valkey


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def store(valkey: ValkeyProcess) -> Iterator[EventStore]:
    """A store on a real, empty server."""
    with valkey.client() as client:
        client.flushall()
    with EventStore(valkey.url, timeout_s=60) as store:
        yield store


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"
