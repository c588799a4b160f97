"""Servers for cameras to connect to."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.rtsp_server import rtsp_server

__all__ = ["rtsp_server"]


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Port of a server that accepts connections and sends nothing: half-open from the start."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that refuses connections; it stays bound, so that no other server takes it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
