"""What of a file has to go to the detector once more: order, pauses, how much at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import av
import numpy as np
import pytest

from storeguard.camera.again import Again
from storeguard.video.frame import Frame

START = datetime(2026, 1, 1, tzinfo=UTC)
GREY = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")


def frame(index: int) -> Frame:
    return Frame(
        camera_id="film",
        index=index,
        captured_at=START + timedelta(seconds=index),
        time_s=float(index),
        picture=GREY,
        scene_cut=False,
        decode_ms=0.0,
        received_s=0.0,
    )


def test_frames_go_again_in_their_order_whichever_call_fails_first() -> None:
    again = Again(24)
    for index in (7, 5, 6):
        assert again.put(frame(index), 0.0)
    assert [one.index for one in iter(again.take, None)] == [5, 6, 7]
    assert again.is_behind(frame(6))  # taken again is not yet followed
    again.settle(frame(5))
    assert not again.is_behind(frame(6))
    for index in (6, 7):
        again.settle(frame(index))
    assert not again.is_behind(frame(8))


def test_after_failures_less_and_later_after_success_more() -> None:
    again = Again(24)
    windows, pauses, now_s = [], [], 100.0
    for _ in range(8):
        pauses.append(again.back_off(now_s))
        windows.append(again.window)
        assert again.paused(now_s + pauses[-1] - 0.01)
        now_s += pauses[-1]
        assert not again.paused(now_s)
    assert windows == [12, 6, 3, 1, 1, 1, 1, 1]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    for _ in range(30):
        again.go_on()
    assert again.window == 24
    assert again.back_off(now_s) == pytest.approx(0.1)


def test_a_frame_is_given_up_after_minutes() -> None:
    again = Again(24)
    assert again.put(frame(1), 0.0)
    again.take()
    assert again.put(frame(1), 299.0)
    again.take()
    assert not again.put(frame(1), 300.0)
    again.settle(frame(1))
    assert again.put(frame(1), 301.0)
