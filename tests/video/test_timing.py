"""The time line: capture times only go forward and stay true, whatever timestamps and clocks do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from storeguard.testing import FakeClock
from storeguard.video.timing import Reanchor, Stamps, Timeline
from tests.held_up_clock import HeldUpClock

FRAME_US = 100_000
START = datetime(2026, 1, 1, tzinfo=UTC)


def stamps(time_s: float | None, dts_s: float | None = None) -> Stamps:
    pts = None if time_s is None else round(time_s * 1_000_000)
    dts = pts if dts_s is None else round(dts_s * 1_000_000)
    return Stamps(pts, dts, FRAME_US)


def play_live(
    line: Timeline, clock: FakeClock, times_s: list[float | None], *, step_s: float = 0.1
) -> list[float]:
    """Capture times of packets that arrive one a step, in seconds since START."""
    captured = []
    for time_s in times_s:
        clock.advance(step_s)
        placed = line.place(stamps(time_s), clock.monotonic())
        captured.append((placed.captured_at - START).total_seconds())
    return captured


def live(clock: FakeClock) -> Timeline:
    line = Timeline(clock, live=True)
    line.connect(frame_us=FRAME_US)
    return line


@pytest.mark.parametrize(
    ("times_s", "cause"),
    [
        # The camera restarts its counter at an hour, or at nothing.
        ([50.0, 50.1, 3650.0, 3650.1], Reanchor.PTS_FORWARD),
        ([50.0, 50.1, 0.0, 0.1], Reanchor.PTS_BACKWARD),
        # MPEG's 33-bit counter runs over: 2^33 / 90000 = 95443.7177 s.
        ([95_443.6, 95_443.7, 0.0823, 0.1823], Reanchor.PTS_WRAP),
        # A camera that leaves timestamps out now and then.
        ([50.0, 50.1, None, 50.3], Reanchor.MISSING_PTS),
    ],
)
@pytest.mark.parametrize("is_live", [True, False])
def test_broken_timestamps_are_counted_and_not_passed_on(
    times_s: list[float | None], cause: Reanchor, is_live: bool
):
    clock = FakeClock(START)
    line = Timeline(clock, live=is_live)
    line.connect(frame_us=FRAME_US, length_us=None if is_live else 400_000)
    captured = play_live(line, clock, times_s)
    steps = [b - a for a, b in pairwise(captured)]
    assert steps == pytest.approx([0.1, 0.1, 0.1], abs=0.001)
    assert line.reanchors == {cause: 1}


@pytest.mark.parametrize(
    ("times_s", "length_s"),
    [
        ([50.0, 50.1, 54.9, 55.0], 5.1),  # a recorder that stops while nothing moves
        ([50.0, 50.1, 3650.0, 3650.1], 3600.2),
        ([50.0, 50.1, 3650.0, 3650.1], None),  # written by a recorder that was switched off
    ],
)
def test_a_files_own_timestamps_are_the_truth_however_far_apart(
    times_s: list[float], length_s: float | None
):
    line = Timeline(FakeClock(START), live=False, start=START)
    length_us = None if length_s is None else round(length_s * 1_000_000)
    line.connect(frame_us=FRAME_US, length_us=length_us)
    placed = [line.place(stamps(time_s), 0.0).time_us for time_s in times_s]
    assert placed == [round((time_s - 50) * 1_000_000) for time_s in times_s]
    assert not line.reanchors


def test_past_an_impossible_step_a_files_timestamps_are_the_truth_again():
    line = Timeline(FakeClock(START), live=False, start=START)
    line.connect(frame_us=FRAME_US, length_us=20_000_000)
    times_s = [0.0, 0.1, 5000.0, 5000.1, 5008.1]
    placed = [line.place(stamps(time_s), 0.0).time_us for time_s in times_s]
    assert placed == [0, 100_000, 200_000, 300_000, 8_300_000]
    assert line.reanchors == {Reanchor.PTS_FORWARD: 1}


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_wall_clock_step_is_counted_and_not_passed_on(step_s: float):
    clock = FakeClock(START)
    line = live(clock)
    before = play_live(line, clock, [1.0, 1.1])
    clock.step_wall_clock(step_s)
    after = play_live(line, clock, [1.2, 1.3])
    assert after[0] - before[-1] == pytest.approx(0.1, abs=0.001)
    assert line.reanchors == {Reanchor.WALL_CLOCK: 1}
    assert line.wall_offset_s() == pytest.approx(-step_s, abs=0.001)


@pytest.mark.parametrize(
    ("step_s", "gap_s"),
    [
        (3600.0, 3605.1),  # a step forward is followed from the next connection on
        (-3600.0, 5.1),  # a step back never: captures would lie before earlier ones
        (0.0, 5.1),  # without a step, the gap is the time spent without the camera
    ],
)
def test_reconnect_shows_the_real_gap(step_s: float, gap_s: float):
    clock = FakeClock(START)
    line = live(clock)
    before = play_live(line, clock, [1.0, 1.1])
    clock.step_wall_clock(step_s)
    clock.advance(5.0)
    line.connect(frame_us=FRAME_US)
    after = play_live(line, clock, [700.0, 700.1])
    assert after[0] - before[-1] == pytest.approx(gap_s, abs=0.01)
    assert after[1] - after[0] == pytest.approx(0.1, abs=0.001)


def test_real_silence_is_a_gap_and_no_fault():
    # A camera that sends nothing for 4 s, and whose timestamps agree: no fault.
    clock = FakeClock(START)
    line = live(clock)
    first = play_live(line, clock, [1.0])
    second = play_live(line, clock, [5.0], step_s=4.0)
    assert second[0] - first[0] == pytest.approx(4.0)
    assert not line.reanchors


def test_late_burst_keeps_its_own_times():
    # The network stalls for 2 s and then delivers all at once: capture went on meanwhile.
    clock = FakeClock(START)
    line = live(clock)
    captured = play_live(line, clock, [1.0, 1.1])
    clock.advance(2.0)
    captured += play_live(line, clock, [1.2 + i / 10 for i in range(20)], step_s=0.001)
    steps = [b - a for a, b in pairwise(captured)]
    assert steps == pytest.approx([0.1] * 21, abs=0.001)
    assert not line.reanchors


def test_a_backlog_on_connecting_is_anchored_by_its_least_delayed_packet():
    clock = FakeClock(START)
    line = live(clock)
    # Ten packets of the last second arrive together: the newest is the one just captured.
    line.anchor(stamps(7.0), line.arrival_us(clock.monotonic()) - 7_900_000)
    captured = play_live(line, clock, [7.0 + i / 10 for i in range(10)], step_s=0.0)
    assert captured == pytest.approx([-0.9 + i / 10 for i in range(10)], abs=0.001)


def test_captures_never_lie_in_the_future_and_follow_a_drifting_camera():
    # A camera clock 0.1 % slow: without slewing, an hour would leave captures 3.6 s behind.
    clock = FakeClock(START)
    line = live(clock)
    behind = []
    for index in range(36_000):
        clock.advance(0.1)
        placed = line.place(stamps(index * 0.0999), clock.monotonic())
        behind.append((clock.now() - placed.captured_at).total_seconds())
    assert min(behind) >= 0
    assert max(behind) < 0.1


def test_b_frames_keep_presentation_order_and_decoding_times_rise():
    clock = FakeClock(START)
    line = Timeline(clock, live=False, start=START)
    line.connect(frame_us=FRAME_US)
    pairs = [(0.0, -0.2), (0.3, -0.1), (0.1, 0.0), (0.2, 0.1), (0.6, 0.2), (0.4, 0.3), (0.5, 0.4)]
    placed = [line.place(stamps(pts, dts), 0.0) for pts, dts in pairs]
    assert [p.time_us for p in placed] == [round(pts * 1_000_000) for pts, _ in pairs]
    decode = [p.decode_us for p in placed]
    assert decode == sorted(decode)
    assert not line.reanchors


def test_file_passes_continue_without_a_gap():
    line = Timeline(FakeClock(START), live=False, start=START)
    times = []
    for _ in range(2):
        line.connect(frame_us=FRAME_US)
        times += [line.place(stamps(10 + i / 10), 0.0).captured_at - START for i in range(3)]
    assert times == [timedelta(milliseconds=100 * i) for i in range(6)]


def test_a_thread_held_up_between_the_clocks_is_no_step_of_the_wall_clock() -> None:
    clock = HeldUpClock(START)
    line = live(clock)
    play_live(line, clock, [0.0, 0.1])
    clock.hold_up(1.6, 0.3)
    play_live(line, clock, [0.2 + 1.9, 0.3 + 1.9])
    assert line.reanchors == {}
    assert line.wall_offset_s() == 0
