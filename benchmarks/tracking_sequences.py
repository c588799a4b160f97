"""The sequences that benchmarks/tracking.py follows people through, and how they are made.

Nothing here is shipped: ground truth and videos are development data, and a sequence whose files
are absent is left out with a printed reason.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from storeguard.config.models import DetectorSettings
from storeguard.detection.detections import Detections
from storeguard.detection.detector import Detector, model_path
from storeguard.detection.nms import iou_matrix, nms
from storeguard.engines.loading import load_detector
from storeguard.tracking import mot
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VIDEOS = ("plaza_pedestrians", "one_by_one_table", "store_aisle", "grocery_checkout_hevc")
MODEL = DATA / "weights" / "yolox_nano.onnx"
INPUT_SIZE = 416
SEED = 20
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sequence:
    """A tracker's input, frame by frame, and its expected output.

    Attributes:
        name: what the table calls it.
        fps: frames a second at full rate.
        detections: one entry a frame; frame i was captured at `time_s[i]`.
        time_s: (frames,) seconds.
        truth: who was where, by index into `detections`; None where unknown.
    """

    name: str
    fps: float
    detections: list[Detections]
    time_s: NDArray[np.float64]
    truth: dict[int, Tracks] | None

    def thinned(self, keep_one_of: int) -> Sequence:
        """Every n-th frame, ground truth too; time stamps stay as they are."""
        frames = range(0, len(self.detections), keep_one_of)
        truth = self.truth
        return Sequence(
            name=self.name,
            fps=self.fps / keep_one_of,
            detections=[self.detections[i] for i in frames],
            time_s=self.time_s[::keep_one_of],
            truth=None if truth is None else {n: truth[i] for n, i in enumerate(frames)},
        )


def sequences() -> Iterator[Sequence]:
    """All sequences whose files are there."""
    makers: list[tuple[str, Callable[[], Sequence]]] = [
        ("", lambda: simulated(shoppers(), "shoppers simulated", 10.0)),
        ("tracking/mot17_02_dpm", public_detections),
        ("tracking/mot17_02_dpm", lambda: simulated(_mot17_truth(), "mot17_02 simulated", 30.0)),
        ("tracking/mot17_02_dpm", _slow_mot17),
        ("tracking/tud_stadtmitte", lambda: simulated(_tud_truth(), "tud simulated", 25.0)),
    ]
    makers += [(f"videos/{name}.mp4", lambda name=name: filmed(name)) for name in VIDEOS]
    for needs, make in makers:
        if (DATA / needs).exists():
            yield make()
        else:
            print(f"not run: {needs} is not there")


def shoppers(*, seed: int = SEED, fps: float = 10.0, seconds: float = 90.0) -> list[Tracks]:
    """A made-up ground truth: people who walk from shelf to shelf at 0.6..1.6 m/s and stand there.

    The camera faces the room from a corner, 960x540: who is nearer stands lower and is
    taller (110..230 pixels for 1.7 m). People come in at a door on the left and leave by it.
    """
    rng = np.random.default_rng([seed, 1])
    frames: list[list[tuple[int, list[float]]]] = [[] for _ in range(int(seconds * fps))]
    for person in range(1, 15):
        start = int(rng.uniform(0, 0.8) * len(frames)) if person > 3 else 0
        floor, target = np.array([-0.05, 0.5]), rng.random(2)
        pause_s, pace = 0.0, rng.uniform(0.6, 1.6)
        stops = int(rng.integers(2, 6))
        for boxes in frames[start:]:
            height = 110 + 120 * floor[1]
            x, foot = 960 * floor[0], 200 + 320 * floor[1]
            wide = height * (0.36 + 0.04 * np.sin(6 * floor.sum() * 10))
            boxes.append((person, [x - wide / 2, foot - height, x + wide / 2, foot]))
            if pause_s > 0:
                pause_s -= 1 / fps
                continue
            pixels = (target - floor) * (960, 320)
            stride = pace / 1.7 * height / fps * np.array([1, 0.5])  # depth is foreshortened
            length = float(np.hypot(*(pixels / stride)))
            floor = target if length <= 1 else floor + pixels / length / (960, 320)
            if length <= 1:
                if stops < 0:
                    break
                stops -= 1
                pause_s = rng.exponential(4.0)
                target = rng.random(2) if stops >= 0 else np.array([-0.05, 0.5])
    return [
        Tracks(
            track_id=np.array([person for person, _ in boxes], np.int64),
            xyxy=np.array([box for _, box in boxes], np.float32).reshape(-1, 4),
            score=np.ones(len(boxes), np.float32),
        )
        for boxes in frames
    ]


def _mot17_truth() -> list[Tracks]:
    path = DATA / "tracking" / "mot17_02_dpm" / "gt" / "gt.txt"
    return _every_frame(mot.read_tracks(path, pedestrians_only=True))


def _tud_truth() -> list[Tracks]:
    return _every_frame(mot.read_tracks(DATA / "tracking" / "tud_stadtmitte" / "gt.txt"))


def _every_frame(by_frame: dict[int, Tracks]) -> list[Tracks]:
    return [by_frame.get(frame, Tracks.empty()) for frame in range(1, max(by_frame) + 1)]


def _slow_mot17() -> Sequence:
    """A camera at 10 fps, so that with three of four frames dropped 2.5 a second remain."""
    slow = simulated(_mot17_truth(), "mot17_02 simulated", 30.0).thinned(3)
    return replace(slow, name="mot17_02 simulated, 10 fps")


def public_detections() -> Sequence:
    """MOT17-02 with the public DPM boxes.

    Raw DPM scores (-0.5..3) become 1 / (1 + exp(-2 score)): near the share of these boxes that are
    right at that score (0.5 at 0, 0.9 at 0.75, 1 from 1.5). All trackers get the same.
    """
    truth = _mot17_truth()
    by_frame = mot.read_detections(DATA / "tracking" / "mot17_02_dpm" / "det" / "det.txt")
    detections = [
        Detections.of(raw.xyxy, 1 / (1 + np.exp(-2 * raw.score)))
        for raw in (by_frame.get(frame, Detections.empty()) for frame in range(1, len(truth) + 1))
    ]
    return _timed("mot17_02 public DPM", 30.0, detections, truth)


def simulated(truth: list[Tracks], name: str, fps: float) -> Sequence:
    """What a fair detector might see of a ground truth: jitter, misses, false boxes; seeded.

    People are hidden by those whose feet are lower in the picture. A visible share v is found with
    probability 0.95 v / (v + 0.15), scored about 0.3 + 0.5 v, and placed with a jitter of 3 % of
    its size (6 % when half hidden); false boxes come at 0.5 a frame, mostly with low scores; NMS at
    an IoU of 0.6 has the last word.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    sizes = np.concatenate([t.xyxy[:, 2:] - t.xyxy[:, :2] for t in truth])
    reach = np.concatenate([t.xyxy for t in truth]).max(axis=0)[2:]
    detections = []
    for people in truth:
        seen = _visible_share(people.xyxy.astype(np.float64))
        found = rng.random(len(people)) < 0.95 * seen / (seen + 0.15) * 1.15
        boxes, share = people.xyxy[found].astype(np.float64), seen[found]
        wh = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        boxes += rng.normal(size=boxes.shape) * wh * (0.09 - 0.06 * share)[:, None]
        score = 0.3 + 0.5 * share + rng.normal(0, 0.12, len(share))
        num_false = rng.poisson(0.5)
        corner = rng.random((num_false, 2)) * reach
        ghosts = np.concatenate(
            [corner, corner + sizes[rng.integers(len(sizes), size=num_false)]], axis=1
        )
        boxes = np.concatenate([boxes, ghosts])
        score = np.clip(np.concatenate([score, rng.beta(1.5, 4, num_false)]), 0.01, 0.99)
        both = Detections.of(boxes, score)
        detections.append(both[nms(both.xyxy, both.score, 0.6)])
    return _timed(name, fps, detections, truth)


def _visible_share(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) the part of each box not covered by its worst coverer that stands nearer."""
    if len(xyxy) < 2:
        return np.ones(len(xyxy))
    area = (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1)
    overlap = iou_matrix(xyxy, xyxy)
    shared = overlap / (1 + overlap) * (area[:, None] + area[None])
    nearer = xyxy[None, :, 3] > xyxy[:, None, 3]
    return 1 - np.where(nearer, shared / area[:, None], 0).max(axis=1)


def filmed(name: str) -> Sequence:
    """A video through yolox_nano at 416; boxes are kept in the machine's temporary folder."""
    path = DATA / "videos" / f"{name}.mp4"
    model = str(MODEL) if MODEL.exists() else "bundled"
    settings = DetectorSettings(model=model, input_size=INPUT_SIZE, min_score=0.05)
    key = hashlib.sha256(
        f"{name}{path.stat().st_size}{model_path(model)}{settings}".encode()
    ).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"storeguard-tracking-{key}.npz"
    if not cache.exists():
        np.savez(cache, **_detect(path, load_detector(settings)))
    stored = np.load(cache)
    boxes, starts = stored["boxes"], stored["starts"]
    detections = [Detections.of(part[:, :4], part[:, 4]) for part in np.split(boxes, starts[1:])]
    return Sequence(name, float(stored["fps"]), detections, stored["time_s"], None)


def _detect(path: Path, detector: Detector) -> dict[str, NDArray[np.float64]]:
    boxes: list[NDArray[np.float64]] = []
    times: list[float] = []
    with av.open(str(path), timeout=10) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 30)
        for index, picture in enumerate(container.decode(stream)):
            time_s = index / fps if picture.time is None else float(picture.time)
            people, _ = detector.find(_frame(picture, index, time_s))
            boxes.append(np.column_stack([people.xyxy, people.score]).astype(np.float64))
            times.append(time_s)
    return {
        "boxes": np.concatenate(boxes),
        "starts": np.cumsum([0, *map(len, boxes)])[:-1],
        "time_s": np.array(times),
        "fps": np.array(fps),
    }


def _frame(picture: av.VideoFrame, index: int, time_s: float) -> Frame:
    return Frame(
        camera_id="benchmark",
        index=index,
        captured_at=EPOCH + timedelta(seconds=time_s),
        time_s=time_s,
        picture=picture,
        scene_cut=False,
        decode_ms=0.0,
        received_s=0.0,
    )


def _timed(name: str, fps: float, detections: list[Detections], truth: list[Tracks]) -> Sequence:
    return Sequence(name, fps, detections, np.arange(len(truth)) / fps, dict(enumerate(truth)))
