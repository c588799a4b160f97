"""Latency figures: warm-up apart, old samples give way, what was not measured is None."""

from __future__ import annotations

import pytest

from storeguard.camera.latency import LatencyRecorder, summarise


def test_percentiles_by_linear_interpolation() -> None:
    summary = summarise([float(ms) for ms in range(101)])

    assert summary is not None
    assert (summary.mean, summary.p50, summary.p95, summary.p99, summary.max) == (
        50.0,
        50.0,
        95.0,
        99.0,
        100.0,
    )
    between = summarise([1.0, 2.0])
    assert between is not None
    assert (between.p50, between.p95) == (1.5, 1.95)


def test_a_step_that_was_not_measured_is_none_and_never_zero() -> None:
    latency = LatencyRecorder(warm_up=0)
    latency.add(infer=0.0)

    summaries = latency.summaries()

    assert set(summaries) == set(LatencyRecorder.STEPS)
    assert summaries["infer"] is not None
    assert summaries["infer"].max == 0.0
    assert all(summary is None for step, summary in summaries.items() if step != "infer")


def test_the_first_samples_of_each_step_are_counted_apart() -> None:
    latency = LatencyRecorder(warm_up=2)
    for ms in (900.0, 800.0, 10.0, 20.0):
        latency.add(infer=ms)
    latency.add(encode=700.0)  # a step that begins later warms up by itself

    summaries = latency.summaries()

    assert summaries["infer"] is not None
    assert (summaries["infer"].mean, summaries["infer"].max) == (15.0, 20.0)
    assert summaries["encode"] is None
    assert latency.warm_up_frames == 2


@pytest.mark.parametrize(("frames", "expected"), [(0, 0), (1, 1), (3, 3), (9, 3)])
def test_no_more_frames_are_warm_up_than_there_were(frames: int, expected: int) -> None:
    latency = LatencyRecorder(warm_up=3)
    for _ in range(frames):
        latency.add(total=1.0)

    assert latency.warm_up_frames == expected


def test_past_the_limit_the_oldest_are_dropped() -> None:
    latency = LatencyRecorder(warm_up=0, limit=3)
    for ms in (100.0, 1.0, 2.0, 3.0):
        latency.add(infer=ms)

    summary = latency.summaries()["infer"]
    assert summary is not None
    assert (summary.p50, summary.max) == (2.0, 3.0)


def test_a_step_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        LatencyRecorder().add(inference=1.0)
