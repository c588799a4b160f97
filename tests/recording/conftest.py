"""A recorder with its video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storeguard.config.store import CameraConfig
from storeguard.recording.recorder import RecordingPlace
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader
from tests.recording.recorder_harness import START, MakeTill, Till, till_of


@pytest.fixture(scope="session")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedPacket]:
    """120 seconds at 5 pictures a second, a keyframe a second."""
    path = make_video(
        tmp_path_factory.mktemp("video") / "long.mp4", VideoSpec(fps=5, num_frames=600, gop=5)
    )
    read: list[EncodedPacket] = []
    camera = CameraConfig(id="till", source=str(path), pace="fast")
    reader = CameraReader(camera, on_frame=lambda _: None, on_packet=read.append, start=START)
    with reader:
        assert reader.join(180)
    return read


@pytest.fixture
def till(packets: list[EncodedPacket], tmp_path: Path) -> MakeTill:
    """`till(**recording)`: a recorder in the test's folder, or the one below `root`."""

    def make(
        *, root: Path = tmp_path, place: RecordingPlace | None = None, **recording: Any
    ) -> Till:
        return till_of(packets, root, place=place, **recording)

    return make
