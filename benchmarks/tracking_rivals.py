"""Tracking libraries, each behind one function, so that benchmarks/tracking.py can run them.

They are no part of Storeguard: a library that is not installed is left out of the table.
Each is run as it comes, and with settings chosen for it by `tracking.py --tune` on three sequences
of the table itself, at full rate and with three of four frames dropped.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from tracking_sequences import Sequence

from storeguard.config.models import TrackerSettings
from storeguard.detection.detections import Detections
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks

Stepper = Callable[[Detections, float], Tracks]
Options = Mapping[str, Any]
_ONE_SIZE = (1000, 1000)  # of all frames: a constant size does not matter, whatever it is


@dataclass(frozen=True, slots=True)
class Rival:
    """One way of following people.

    Attributes:
        name: what the table calls it.
        package: the distribution it comes from; None for our own.
        start: makes a stepper for a sequence, given how many frames were dropped for each kept one
            plus one, and its options.
        options: its options besides its defaults.
        grid: what `--tune` may choose from.
    """

    name: str
    package: str | None
    start: Callable[[Sequence, int, Options], Stepper]
    options: Options = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def version(self) -> str | None:
        """Version of the installed package; None where it is our own or not installed."""
        try:
            return metadata.version(self.package) if self.package else None
        except metadata.PackageNotFoundError:
            return None

    def choices(self) -> Iterator[dict[str, Any]]:
        """All combinations of the grid."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def _storeguard(_sequence: Sequence, _every: int, options: Options) -> Stepper:
    tracker = Tracker(TrackerSettings(**options))
    return functools.partial(tracker.step, wh=_ONE_SIZE)


def _roboflow(class_name: str) -> Callable[[Sequence, int, Options], Stepper]:
    """A tracker of Roboflow's `trackers`; `clock` is how it gets the frame rate.

    `rate`: frame_rate is the reduced rate, one update a kept frame. `time`: frame_rate is the
    camera's, and each update is given its capture time.
    """

    def start(sequence: Sequence, every: int, options: Options) -> Stepper:
        trackers = importlib.import_module("trackers")
        supervision = importlib.import_module("supervision")
        chosen = dict(options)
        by_time = chosen.pop("clock", "rate") == "time"
        # A count of frames at the camera's rate means fewer of the frames that are kept.
        chosen["frame_rate"] = sequence.fps * every if by_time else sequence.fps
        if class_name == "BoTSORTTracker":
            chosen["enable_cmc"] = False  # cameras here do not move, and it would need pictures
        tracker = getattr(trackers, class_name)(**chosen)

        def step(detections: Detections, time_s: float) -> Tracks:
            given = supervision.Detections(
                xyxy=detections.xyxy.copy(),
                confidence=detections.score.copy(),
                class_id=np.zeros(len(detections), int),
            )
            # + 1: the first update at 0.0 s is a time like any other
            answer = (
                tracker.update(given, timestamp=time_s + 1) if by_time else tracker.update(given)
            )
            if len(answer) == 0 or answer.tracker_id is None:
                return Tracks.empty()
            known = answer.tracker_id >= 0
            return Tracks(
                track_id=answer.tracker_id[known].astype(np.int64) + 1,
                xyxy=answer.xyxy[known].astype(np.float32),
                score=answer.confidence[known].astype(np.float32),
            )

        return step

    return start


def _norfair(sequence: Sequence, every: int, options: Options) -> Stepper:
    """Norfair on box corners; its own `period` accounts for dropped frames."""
    norfair = importlib.import_module("norfair")
    chosen: dict[str, Any] = {"distance_function": "iou", "distance_threshold": 0.7, **options}
    min_score = chosen.pop("min_score", 0.4)
    lost_s = chosen.pop("lost_s", None)
    if lost_s is not None:
        chosen["hit_counter_max"] = max(2, round(lost_s * sequence.fps * every))
    tracker = norfair.Tracker(**chosen)

    def step(detections: Detections, _time_s: float) -> Tracks:
        given = [
            norfair.Detection(
                points=box.reshape(2, 2).astype(float), scores=np.full(2, score), data=(box, score)
            )
            for box, score in zip(detections.xyxy, detections.score, strict=True)
            if score >= min_score
        ]
        seen = [
            one
            for one in tracker.update(given, period=every)
            if any(one.last_detection is detection for detection in given)
        ]
        return Tracks(
            track_id=np.array([one.id for one in seen], np.int64),
            xyxy=np.array([one.last_detection.data[0] for one in seen], np.float32).reshape(-1, 4),
            score=np.array([one.last_detection.data[1] for one in seen], np.float32),
        )

    return step


_SCORES = {
    "track_activation_threshold": (0.4, 0.6),
    "high_conf_det_threshold": (0.4, 0.6),
    "lost_track_buffer": (30, 90),
    "minimum_consecutive_frames": (1, 2),
    "clock": ("rate", "time"),
}

RIVALS = (
    Rival("Storeguard", None, _storeguard),
    Rival(
        "ByteTrack (trackers)",
        "trackers",
        _roboflow("ByteTrackTracker"),
        grid={**_SCORES, "minimum_iou_threshold": (0.05, 0.1, 0.2)},
    ),
    Rival(
        "BoT-SORT (trackers)",
        "trackers",
        _roboflow("BoTSORTTracker"),
        grid={**_SCORES, "minimum_iou_threshold_first_assoc": (0.05, 0.1, 0.2)},
    ),
    Rival(
        "OC-SORT (trackers)",
        "trackers",
        _roboflow("OCSORTTracker"),
        grid={
            "high_conf_det_threshold": (0.3, 0.4, 0.5),
            "lost_track_buffer": (30, 90),
            "minimum_consecutive_frames": (1, 2),
            "clock": ("rate", "time"),
            "minimum_iou_threshold": (0.05, 0.1, 0.3),
        },
    ),
    Rival(
        "C-BIoU (trackers)",
        "trackers",
        _roboflow("CBIoUTracker"),
        grid={**_SCORES, "buffer_ratio_first": (0.3, 0.5)},
    ),
    Rival(
        "norfair",
        "norfair",
        _norfair,
        grid={
            "min_score": (0.3, 0.4, 0.5),
            "lost_s": (0.5, 1.0, 3.0),
            "distance_threshold": (0.7, 0.9),
            "initialization_delay": (0, 1),
        },
    ),
)
"""Ours first, then the libraries as they come; `TUNED` names the options chosen for them."""


def silence() -> None:
    """Silence the libraries' own deprecation warnings."""
    warnings.filterwarnings("ignore", module="supervision|trackers|norfair")
