"""Frames for detectors, and a detector's whole way from frame to boxes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from storeguard.detection.detections import Detections
from storeguard.detection.detector import Detector
from storeguard.video.frame import Frame


def frame_of(picture: av.VideoFrame) -> Frame:
    return Frame("cam", 0, datetime(2026, 1, 1, tzinfo=UTC), 0.0, picture, False, 0.0, 0.0)


def plain_frame(wh: tuple[int, int], rgb: tuple[int, int, int] = (90, 120, 150)) -> Frame:
    """A frame of one colour."""
    pixels = np.full((wh[1], wh[0], 3), rgb, np.uint8)
    return frame_of(av.VideoFrame.from_ndarray(pixels, format="rgb24"))


def video_frame(path: Path | str, index: int) -> Frame:
    """A frame of a video file, counted from 0."""
    with av.open(str(path)) as container:
        for at, picture in enumerate(container.decode(video=0)):
            if at == index:
                return frame_of(picture)
    raise AssertionError(f"{path} has no frame {index}")


def people_in(detector: Detector, frame: Frame) -> Detections:
    """The people in a frame, in its pixels."""
    return detector.find(frame)[0]
