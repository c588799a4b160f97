"""States of a camera that is not watched as often as requested."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storeguard.camera.feeds import LatestFrame
from storeguard.camera.pipeline import CameraPipeline
from storeguard.camera.rate_watch import Condition, Counts, RateWatch
from storeguard.camera.status import CameraState
from storeguard.config.models import TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.testing import FakeClock
from storeguard.video.reader_stats import ReaderState, ReaderStats

LIVE = ReaderStats(state=ReaderState.PLAYING, live=True, average_fps=25.0)
FILM = replace(LIVE, live=False)


def watch(
    reader: ReaderStats,
    *,
    picked_fps: float,
    processed_fps: float,
    cause: str = "superseded",
    requested_fps: float = 5.0,
    seconds: int = 12,
) -> Condition:
    """The condition after so many seconds in which frames are picked, processed and lost."""
    rates = RateWatch()
    for second in range(seconds + 1):
        picked, processed = int(second * picked_fps), int(second * processed_fps)
        condition = rates.judge(
            reader,
            Counts(picked, processed, {cause: picked - processed}),
            requested_fps=requested_fps,
            now_s=1000.0 + second,
        )
    return condition


@pytest.mark.parametrize(
    ("reader", "picked_fps", "processed_fps", "state", "words"),
    [
        (LIVE, 5.0, 5.0, CameraState.PLAYING, None),
        (LIVE, 5.0, 2.6, CameraState.PLAYING, None),
        (
            LIVE,
            5.0,
            0.3,
            CameraState.OVERLOADED,
            "lost: 47 superseded",
        ),
        # The camera sends one picture in two seconds.
        (
            LIVE,
            0.5,
            0.5,
            CameraState.STARVING,
            "0.5 were processed in the last 10 s: the camera sent 0.5 a second that could be used",
        ),
        (LIVE, 0.0, 0.0, CameraState.STARVING, None),
        # What it declares to send is all that can be requested of it.
        (replace(LIVE, average_fps=1.0), 1.0, 1.0, CameraState.PLAYING, None),
        (replace(LIVE, average_fps=1.0), 0.4, 0.4, CameraState.STARVING, None),
        # A film may pause; the machine may not be too slow for it.
        (FILM, 0.0, 0.0, CameraState.PLAYING, None),
        (FILM, 5.0, 0.3, CameraState.OVERLOADED, None),
    ],
)
def test_half_the_requested_rate_over_ten_seconds_decides(
    reader: ReaderStats,
    picked_fps: float,
    processed_fps: float,
    state: CameraState,
    words: str | None,
):
    condition = watch(reader, picked_fps=picked_fps, processed_fps=processed_fps)
    assert condition.state is state
    assert words is None or words in (condition.reason or "")
    assert (condition.reason is None) == (state is CameraState.PLAYING)


def test_ten_seconds_must_have_passed():
    assert watch(LIVE, picked_fps=5, processed_fps=0, seconds=9).state is CameraState.PLAYING
    assert watch(LIVE, picked_fps=5, processed_fps=0, seconds=10).state is CameraState.OVERLOADED


def test_rare_pictures_are_judged_over_the_time_of_four():
    rarely = {"picked_fps": 0.0, "processed_fps": 0.0, "requested_fps": 0.1}
    assert watch(LIVE, **rarely, seconds=39).state is CameraState.PLAYING
    assert watch(LIVE, **rarely, seconds=40).state is CameraState.STARVING


def test_decoding_that_lags_is_overload_too():
    condition = watch(LIVE, picked_fps=2, processed_fps=0.5, cause="decode_lag")
    assert condition.state is CameraState.OVERLOADED
    assert "decode_lag" in (condition.reason or "")


def test_a_new_connection_is_judged_anew():
    rates, none = RateWatch(), Counts(0, 0, {})
    for second in range(0, 30, 5):
        reader = replace(LIVE, reconnects=second // 10)
        condition = rates.judge(reader, none, requested_fps=5, now_s=second)
        assert condition.state is CameraState.PLAYING


@pytest.mark.parametrize(
    ("reader", "state", "words"),
    [
        (ReaderStats(state=ReaderState.RECONNECTING), CameraState.RECONNECTING, None),
        (ReaderStats(state=ReaderState.ENDED), CameraState.ENDED, None),
        (
            ReaderStats(state=ReaderState.ENDED, ended_early="truncated"),
            CameraState.ENDED,
            "truncated",
        ),
        (
            ReaderStats(
                state=ReaderState.NO_PICTURE, no_picture_s=7.2, dropped={"before_keyframe": 90}
            ),
            CameraState.NO_PICTURE,
            "no picture could be decoded for 7 s; dropped since the start: 90 before_keyframe",
        ),
    ],
)
def test_the_readers_own_states_come_first(
    reader: ReaderStats, state: CameraState, words: str | None
):
    condition = watch(reader, picked_fps=0, processed_fps=0)
    assert condition.state is state
    assert (condition.reason is None) == (words is None)
    assert words is None or words in (condition.reason or "")


def test_the_status_of_a_camera_without_pictures():
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    camera = CameraConfig(id="till", source="rtsp://127.0.0.1/")
    pipeline = CameraPipeline(
        camera,
        TrackerSettings(),
        feed=LatestFrame(wake=lambda _: None),
        epoch="1",
        clock=clock,
    )
    assert pipeline.status(LIVE, all_decoded=False).fault is None
    clock.advance(10.0)
    status = pipeline.status(LIVE, all_decoded=False)
    assert status.state is CameraState.STARVING
    assert (status.fault or "").startswith("starving (5 pictures a second are requested, 0 were")


@pytest.mark.parametrize(
    ("pace", "state"),
    [
        ("realtime", CameraState.OVERLOADED),
        ("fast", CameraState.PLAYING),  # it waits for the detector and loses nothing
    ],
)
def test_the_status_of_a_film_that_is_decoded_too_slowly(pace: str, state: CameraState):
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    pipeline = CameraPipeline(
        CameraConfig(id="till", source="film.mp4", pace=pace),
        TrackerSettings(),
        feed=LatestFrame(wake=lambda _: None),
        epoch="1",
        clock=clock,
    )
    pipeline.status(FILM, all_decoded=False)
    clock.advance(10.0)
    status = pipeline.status(replace(FILM, dropped={"decode_lag": 90}), all_decoded=False)
    assert status.state is state
