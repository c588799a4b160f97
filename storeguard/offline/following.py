"""The loop over a file's frames that `process`, `classify` and training share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from storeguard.camera.pipeline import observe
from storeguard.config.addresses import shown
from storeguard.config.models import TrackerSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.config.zones import ZoneConfig, longest_gap_s
from storeguard.detection.detector import Detector, DetectTiming
from storeguard.errors import EmptySourceError
from storeguard.rules.observation import Observation
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames

FILE_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Capture time of a file's first frame by default: event times are then positions in the file."""
_EPOCH: Final = "0"


@dataclass(frozen=True, slots=True)
class FollowedFrame:
    """One frame of a file, and the people in it.

    Attributes:
        frame: the decoded frame.
        tracks: who is where, in pixels of the frame.
        observation: the same for the rules.
        timing: of the detector.
        track_ms: milliseconds that the tracker took.
        total_ms: milliseconds from the decoded frame to the observation.
    """

    frame: Frame
    tracks: Tracks
    observation: Observation
    timing: DetectTiming
    track_ms: float
    total_ms: float


def file_camera(video: Path | str, *, zones: tuple[ZoneConfig, ...] = ()) -> CameraConfig:
    """A video file or stream as a camera at full pace, every frame of which is processed."""
    return CameraConfig(id="video", source=str(video), pace=Pace.FAST, detect_fps=240, zones=zones)


def follow(
    camera: CameraConfig,
    detector: Detector,
    tracker: TrackerSettings,
    *,
    frames: Iterable[Frame] | None = None,
) -> Iterator[FollowedFrame]:
    """Decode a file, and detect and track the people in it, frame by frame.

    Args:
        camera: from `file_camera`.
        detector: finds the people.
        tracker: how they are tracked.
        frames: those to process; None takes every frame of the file.

    Raises:
        SourceError: the file cannot be read.
        EmptySourceError: no frame of it could be decoded.
    """
    tracking = Tracker(tracker, max_gap_s=longest_gap_s(rule for _, rule in camera.rules()))
    seq, last_s = 0, None
    for frame in read_frames(camera, start=FILE_START) if frames is None else frames:
        started = time.perf_counter()
        people, timing = detector.find(frame)
        detected = time.perf_counter()
        tracks = tracking.step(people, frame.time_s, wh=frame.wh)
        tracked = time.perf_counter()
        observation = observe(
            tracks,
            frame,
            camera_id=camera.id,
            epoch=_EPOCH,
            seq=seq,
            step_s=0.0 if last_s is None else frame.time_s - last_s,
        )
        yield FollowedFrame(
            frame=frame,
            tracks=tracks,
            observation=observation,
            timing=timing,
            track_ms=(tracked - detected) * 1e3,
            total_ms=(time.perf_counter() - started) * 1e3,
        )
        seq, last_s = seq + 1, frame.time_s
    if not seq:
        raise EmptySourceError(f"{shown(camera.source)}: no frame of it could be decoded")
