"""People cut out of real video, in both layouts that attribute classifiers are trained from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from storeguard.classification.attributes.crop import person_crop
from storeguard.config.models import DetectorSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.engines.loading import load_detector
from storeguard.video.reader import read_frames


@dataclass(frozen=True)
class SeenFrame:
    """A picture with people: `group` is its video and second, `name` that and its number."""

    group: str
    name: str
    picture: NDArray[np.uint8]
    people: NDArray[np.float32]

    def halves(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Each person's upper and lower half: an attribute that is easy to see."""
        found = []
        for x1, y1, x2, y2 in self.people.tolist():
            middle = (y1 + y2) / 2
            found.append(("upper", np.array([x1, y1, x2, middle], np.float32)))
            found.append(("lower", np.array([x1, middle, x2, y2], np.float32)))
        return found


@pytest.fixture(scope="session")
def seen_frames(bikes: Path, cabin: Path) -> list[SeenFrame]:
    """Every sixteenth frame of both videos in which the bundled detector finds people."""
    detector = load_detector(DetectorSettings())
    seen = []
    for video, path in (("street", bikes), ("cabin", cabin)):
        camera = CameraConfig(id=video, source=str(path), pace=Pace.FAST, detect_fps=240)
        for i, frame in enumerate(read_frames(camera)):
            if i % 16:
                continue
            found, _ = detector.find(frame)
            large = (found.xyxy[:, 3] - found.xyxy[:, 1] > 60) & (found.score > 0.3)
            if large.any():
                group = f"{video}{i // 25}"
                people = found.xyxy[large].clip(0, [*frame.wh, *frame.wh]).round()
                seen.append(SeenFrame(group, f"{group}_{i:04d}", frame.rgb(frame.wh), people))
    return seen


@pytest.fixture(scope="session")
def kitti_halves(seen_frames: list[SeenFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KITTI boxes; in each picture there is more than the halves: what has to be passed over."""
    folder = tmp_path_factory.mktemp("kitti")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for seen in seen_frames:
        Image.fromarray(seen.picture).save(folder / "images" / f"{seen.name}.png")
        lines = [kitti_line(f"person_{label}", box) for label, box in seen.halves()]
        lines.append(kitti_line("DontCare", [-1, -1, -1, -1]))
        lines.append(kitti_line("bicycle", [4, 4, 40, 60]))
        lines.append(kitti_line("person_upper", [4, 4, 40, 27]))
        (folder / "labels" / f"{seen.name}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def folder_halves(seen_frames: list[SeenFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same crops in folders, the group below the label."""
    folder = tmp_path_factory.mktemp("crops")
    for seen in seen_frames:
        for number, (label, box) in enumerate(seen.halves()):
            path = folder / label / seen.group / f"{seen.name}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(person_crop(seen.picture, box)).save(path)
    return folder


def kitti_line(label: str, xyxy: object) -> str:
    """One box as KITTI writes it."""
    corners = " ".join(f"{float(value):.2f}" for value in np.asarray(xyxy))
    return f"{label} 0.00 0 0.00 {corners} 0.00 0.00 0.00 0.00 0.00 0.00 0.00"
