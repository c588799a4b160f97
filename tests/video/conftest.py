"""Synthetic videos, made once a session."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storeguard.testing_video import VideoSpec, make_video
from tests.rtsp_server import rtsp_server

__all__ = ["rtsp_server"]

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """`video(suffix, **spec)`: path of a test video; the same one for the same arguments."""
    folder = tmp_path_factory.mktemp("videos")
    made: dict[tuple[str, VideoSpec], Path] = {}

    def make(suffix: str = "mp4", **spec: object) -> Path:
        key = (suffix, VideoSpec(**spec))
        if key not in made:
            made[key] = make_video(folder / f"{len(made)}.{suffix}", key[1])
        return made[key]

    return make


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Port of a server that accepts connections and says nothing: half-open from the start."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port on which nobody listens, nor begins to: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
