"""A recorder with its video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeguard.config.store import CameraConfig
from storeguard.recording.camera_recorder import CameraRecorder, RecordingPlace
from storeguard.recording.spool import Spool
from storeguard.testing import FakeClock
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader
from tests.camera.held_clock import PATIENCE_S
from tests.recording.recorder_harness import (
    START,
    ZONE,
    MakeTill,
    Till,
)


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedPacket]:
    """120 seconds at 5 pictures a second, a keyframe a second."""
    path = make_video(
        tmp_path_factory.mktemp("video") / "long.mp4", VideoSpec(fps=5, num_frames=600, gop=5)
    )
    read: list[EncodedPacket] = []
    camera = CameraConfig(id="till", source=str(path), pace="fast")
    reader = CameraReader(camera, on_frame=lambda _: None, on_packet=read.append, start=START)
    with reader:
        assert reader.join(PATIENCE_S)
    return read


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves time: minutes of video play in seconds here.

    And the recorder's own thread takes a step only when it is told of something, so that it takes
    none in the middle of the test's.
    """
    monkeypatch.setattr("storeguard.recording.recordings._GATHER_S", 0.01)
    monkeypatch.setattr("storeguard.recording.camera_recorder._STEP_S", 3600.0)


@pytest.fixture
def till(
    packets: list[EncodedPacket],
    tmp_path: Path,
    impatient: None,  # noqa: ARG001 - for what it does
) -> Iterator[MakeTill]:
    made: list[CameraRecorder] = []

    def make(*, min_free_bytes: int = 0, root: Path = tmp_path, **recording: Any) -> Till:
        camera = CameraConfig.model_validate(
            {"id": "till", "source": "x", "zones": [ZONE], "recording": recording}
        )
        # Its clock stands still: a test that is held up is not taken for a silent camera.
        place = RecordingPlace("shop", root, min_free_bytes)
        recorder = CameraRecorder(camera, place, clock=FakeClock())
        made.append(recorder)
        return Till(recorder, Spool(root / "till", prefix="shop/till"), packets)

    yield make
    for recorder in made:
        recorder.close()
