"""Frames and results made up for tests of the feeds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import av
import numpy as np

from storeguard.camera.detector_calls import Detected, LossCause, Undetected
from storeguard.detection.detections import Detections
from storeguard.detection.letterbox import fit
from storeguard.video.frame import Frame
from tests.camera.group_harness import TIMING

START = datetime(2026, 1, 1, tzinfo=UTC)
GREY = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")


def made_frame(index: int, *, scene_cut: bool = False) -> Frame:
    """The frame of one second of a camera named `film`, 16x16 and grey."""
    return Frame(
        camera_id="film",
        index=index,
        captured_at=START + timedelta(seconds=index),
        time_s=float(index),
        picture=GREY,
        scene_cut=scene_cut,
        decode_ms=0.0,
        received_s=0.0,
    )


def detected(frame: Frame) -> Detected:
    """The frame with one person in it."""
    person = Detections.of([[4, 4, 12, 12]], [0.9])
    return Detected(frame, fit(frame.wh, (16, 16)), person, TIMING, queue_ms=0.0)


def undetected(frame: Frame, cause: LossCause = LossCause.DETECTOR_FULL) -> Undetected:
    """The frame without detections."""
    return Undetected(frame, cause)
