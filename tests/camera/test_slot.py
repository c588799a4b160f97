"""Latest wins, and sampling by stream time."""

from __future__ import annotations

import threading

import pytest

from storeguard.camera.slot import LatestSlot, Sampler
from tests.camera.held_clock import PATIENCE_S


def test_the_newest_item_wins_and_replaced_ones_are_counted():
    slot: LatestSlot[int] = LatestSlot()
    assert [slot.put(1), slot.put(2), slot.put(3)] == [None, 1, 2]
    assert slot.take() == 3
    assert slot.take() is None
    stats = slot.stats()
    assert (stats.num_put, stats.num_taken, stats.superseded) == (3, 1, 2)


def test_a_fast_taker_drops_nothing():
    slot: LatestSlot[int] = LatestSlot()
    for number in range(100):
        slot.put(number)
        assert slot.take() == number
    assert slot.stats().superseded == 0


def test_every_item_is_taken_or_superseded_across_threads():
    slot: LatestSlot[int] = LatestSlot()
    taken: list[int] = []

    def take_all() -> None:
        while (item := slot.take(timeout_s=None)) is not None:
            taken.append(item)

    thread = threading.Thread(target=take_all)
    thread.start()
    for number in range(2000):
        slot.put(number)
    slot.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert taken == sorted(taken)
    assert taken[-1] == 1999  # the newest is never lost
    assert len(taken) + slot.stats().superseded == 2000


def test_what_is_replaced_may_leave_something_behind():
    slot: LatestSlot[str] = LatestSlot(superseded_by=lambda old, new: f"{new} after {old}")
    for item in ("a", "b", "c"):
        slot.put(item)
    assert slot.take() == "c after b after a"
    slot.put("d")
    assert slot.take() == "d"


def test_who_waits_for_a_turn_loses_nothing_and_runs_ahead_by_the_turns():
    slot: LatestSlot[int] = LatestSlot(turns=3)
    ahead: list[int] = []

    def put_all() -> None:
        for number in range(200):
            slot.put_in_turn(number)
            ahead.append(number)

    thread = threading.Thread(target=put_all)
    thread.start()
    taken: list[int] = []
    while len(taken) < 200:
        item = slot.take(timeout_s=PATIENCE_S)
        assert item is not None
        taken.append(item)
        assert slot.waiting <= 3
    thread.join(PATIENCE_S)
    assert taken == ahead == list(range(200))
    assert slot.stats().superseded == 0


def test_close_lets_a_waiting_putter_go_and_what_is_there_can_be_taken():
    slot: LatestSlot[int] = LatestSlot(turns=2)
    slot.put_in_turn(1)
    slot.put_in_turn(2)
    thread = threading.Thread(target=slot.put_in_turn, args=(3,))
    thread.start()
    slot.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert [slot.take(), slot.take(), slot.take()] == [1, 2, None]


def test_close_lets_a_waiting_taker_go_and_later_items_are_ignored():
    slot: LatestSlot[int] = LatestSlot()
    thread = threading.Thread(target=slot.take, kwargs={"timeout_s": None})
    thread.start()
    slot.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert slot.put(1) is None
    assert slot.take() is None


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
def test_sampler_keeps_the_rate(camera_fps: float, fps: float, picked: int):
    sampler = Sampler(fps)
    num_frames = round(camera_fps * 10)
    wants = [sampler.wants(round(i / camera_fps, 3)) for i in range(num_frames)]
    assert sum(wants) == pytest.approx(picked, abs=1)
    assert sampler.num_picked + sampler.sampled_out == num_frames


def test_sampler_after_a_gap_starts_a_new_grid():
    # After a minute without the camera it must not pick a minute's worth of frames at once.
    sampler = Sampler(1)
    times_s = [0.0, 0.5, 60.0, 60.1, 60.2, 61.0]
    assert [sampler.wants(t) for t in times_s] == [True, False, True, False, False, True]


def test_sampler_always_picks_the_first_frame_of_a_scene():
    sampler = Sampler(1)
    assert sampler.wants(0.0)
    assert sampler.wants(0.1, scene_cut=True)
    assert not sampler.wants(0.9)
