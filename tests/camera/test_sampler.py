"""Sampling by stream time."""

from __future__ import annotations

import pytest

from storeguard.camera.sampler import Sampler


@pytest.mark.parametrize(
    ("camera_fps", "fps", "picked"),
    [
        (30, 5, 50),  # every sixth
        (30, 12, 120),  # no divisor: two of five
        (10, 10, 100),  # all, whatever the rounding of timestamps
        (10, 25, 100),  # more than there are
        (29.97, 5, 50),
    ],
)
def test_sampler_keeps_the_rate(camera_fps: float, fps: float, picked: int) -> None:
    sampler = Sampler(fps)
    num_frames = round(camera_fps * 10)
    picks = [sampler.picks(round(i / camera_fps, 3)) for i in range(num_frames)]
    assert sum(picks) == pytest.approx(picked, abs=1)
    assert sampler.num_picked + sampler.sampled_out == num_frames


def test_sampler_after_a_gap_starts_a_new_grid() -> None:
    # After a minute without the camera it must not pick a minute's worth of frames at once.
    sampler = Sampler(1)
    times_s = [0.0, 0.5, 60.0, 60.1, 60.2, 61.0]
    assert [sampler.picks(t) for t in times_s] == [True, False, True, False, False, True]


def test_sampler_always_picks_the_first_frame_of_a_scene() -> None:
    sampler = Sampler(1)
    assert sampler.picks(0.0)
    assert sampler.picks(0.1, scene_cut=True)
    assert not sampler.picks(0.9)
