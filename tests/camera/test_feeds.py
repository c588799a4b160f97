"""Frame feeds: the newest frame of a live camera, all frames of a file in their order."""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from storeguard.camera.detector_calls import FrameResult, LossCause
from storeguard.camera.feeds import FRAMES_A_CALL, LatestFrame, OrderedFrames, feed_of
from storeguard.config.store import CameraConfig
from storeguard.video.frame import Frame
from tests.camera.held_clock import PATIENCE_S
from tests.camera.made_frames import detected, made_frame, undetected
from tests.waiting import EVERYWHERE

FILM = CameraConfig(id="film", source="film.mp4", pace="fast", detect_fps=240)


class Time:
    """Seconds that a test sets, and the wake-ups a feed has requested."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wakes_s: list[float] = []

    def wake(self, after_s: float) -> None:
        self.wakes_s.append(self.now_s + after_s)


def ordered(
    num_frames: int = 0, *, time: Time | None = None, camera: CameraConfig = FILM, **settings: Any
) -> OrderedFrames:
    """A file's feed in which the first frames wait already."""
    time = time or Time()
    feed = OrderedFrames(camera, wake=time.wake, now_s=lambda: time.now_s, **settings)
    for index in range(num_frames):
        feed.offer(made_frame(index))
    return feed


def indices(frames: Sequence[Frame]) -> list[int]:
    return [frame.index for frame in frames]


def final(results: Sequence[FrameResult]) -> list[int]:
    return [result.frame.index for result in results]


# ------------------------------------------------------------------ live cameras


def test_the_newest_frame_wins_and_replaced_ones_are_counted() -> None:
    feed = LatestFrame(wake=lambda _: None)
    for index in range(3):
        feed.offer(made_frame(index))
    assert indices(feed.take(8)) == [2]
    assert feed.take(8) == []
    assert feed.stats().superseded == 2


def test_at_most_one_live_frame_is_under_way() -> None:
    feed = LatestFrame(wake=lambda _: None)
    assert (feed.room(), feed.ready()) == (1, 0)
    feed.offer(made_frame(0))
    assert (feed.room(), feed.ready()) == (1, 1)
    (frame,) = feed.take(1)
    feed.offer(made_frame(1))
    assert (feed.room(), feed.ready(), feed.take(1)) == (0, 0, [])
    assert feed.stats().under_way == 1
    assert final(feed.answer([detected(frame)])) == [0]
    assert (feed.room(), feed.ready(), feed.stats().under_way) == (1, 1, 0)


@pytest.mark.parametrize("cause", list(LossCause))
def test_a_live_frame_without_detections_is_lost(cause: LossCause) -> None:
    feed = LatestFrame(wake=lambda _: None)
    feed.offer(made_frame(0))
    (frame,) = feed.take(1)
    lost = undetected(frame, cause)
    assert feed.answer([lost]) == [lost]
    assert feed.take(1) == []


def test_a_live_feed_wakes_its_taker_for_each_frame_that_may_go() -> None:
    time = Time()
    feed = LatestFrame(wake=time.wake)
    feed.offer(made_frame(0))
    (frame,) = feed.take(1)
    assert len(time.wakes_s) == 1
    feed.offer(made_frame(1))  # while the first is under way
    time.wakes_s.clear()
    feed.answer([detected(frame)])
    assert len(time.wakes_s) == 1
    feed.answer([detected(frame) for frame in feed.take(1)])
    assert len(time.wakes_s) == 1  # no frame waits


def test_a_replaced_scene_cut_falls_on_the_next_frame() -> None:
    feed = LatestFrame(wake=lambda _: None)
    feed.offer(made_frame(0, scene_cut=True))
    feed.offer(made_frame(1))
    feed.offer(made_frame(2))
    (frame,) = feed.take(1)
    assert (frame.index, frame.scene_cut) == (2, True)
    feed.answer([detected(frame)])
    feed.offer(made_frame(3))
    assert not feed.take(1)[0].scene_cut


def test_every_live_frame_is_taken_or_superseded_across_threads() -> None:
    woken = threading.Semaphore(0)
    feed = LatestFrame(wake=lambda _: woken.release())
    taken: list[int] = []

    def take_all() -> None:
        while not taken or taken[-1] < 1999:
            woken.acquire()
            for frame in feed.take(1):
                taken.append(frame.index)
                feed.answer([detected(frame)])

    thread = threading.Thread(target=take_all, daemon=True)
    thread.start()
    for index in range(2000):
        feed.offer(made_frame(index))
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert taken == sorted(taken)
    assert len(taken) + feed.stats().superseded == 2000


# ------------------------------------------------------------------ files at full pace


def test_a_file_that_waits_loses_nothing_and_runs_a_few_frames_ahead() -> None:
    arrived = threading.Semaphore(0)
    feed = OrderedFrames(FILM, wake=lambda _: arrived.release())

    def offer_all() -> None:
        for index in range(200):
            feed.offer(made_frame(index))

    thread = threading.Thread(target=offer_all, daemon=True)
    thread.start()
    taken: list[int] = []
    while len(taken) < 200:
        assert arrived.acquire(timeout=PATIENCE_S)
        assert feed.stats().waiting <= FRAMES_A_CALL
        frames = feed.take(1)
        taken += indices(frames)
        if frames:
            feed.answer([detected(frame) for frame in frames])
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert taken == list(range(200))


@pytest.mark.parametrize("kind", ["live", "file"])
def test_close_releases_a_waiting_offer_and_ignores_later_frames(kind: str) -> None:
    feed = LatestFrame(wake=lambda _: None) if kind == "live" else ordered(FRAMES_A_CALL)
    thread = threading.Thread(target=feed.offer, args=(made_frame(99),), daemon=True)
    thread.start()
    feed.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    waiting = feed.stats().waiting
    feed.offer(made_frame(100))
    assert feed.stats().waiting == waiting
    assert (feed.room(), feed.take(8)) == (0, [])


def test_results_of_a_later_call_are_held_back() -> None:
    feed = ordered(6)
    first, second, third = feed.take(2), feed.take(2), feed.take(2)
    assert feed.answer([detected(frame) for frame in second]) == []
    assert feed.answer([detected(frame) for frame in third]) == []
    assert feed.stats().under_way == 6
    assert final(feed.answer([detected(frame) for frame in first])) == [0, 1, 2, 3, 4, 5]
    assert feed.stats().under_way == 0


@pytest.mark.parametrize(
    ("failed", "finished", "retried"),
    [
        ({}, [0, 1, 2, 3, 4, 5], []),
        ({0}, [], [0, 1, 2, 3, 4, 5]),
        ({2}, [0, 1], [2, 3, 4, 5]),  # those behind it wait for it
        ({5}, [0, 1, 2, 3, 4], [5]),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_frames_are_retried_in_their_order_whichever_call_is_answered_first(
    failed: set[int], finished: list[int], retried: list[int], backwards: bool
) -> None:
    time = Time()
    feed = ordered(6, time=time)
    calls = [feed.take(3), feed.take(3)]
    done: list[int] = []
    for frames in reversed(calls) if backwards else calls:
        results = [undetected(f) if f.index in failed else detected(f) for f in frames]
        done += final(feed.answer(results))
    assert done == finished
    time.now_s = 10.0
    again = feed.take(8)
    assert indices(again) == retried
    feed.offer(made_frame(6))
    if again:
        assert final(feed.answer([detected(frame) for frame in again])) == retried
    assert indices(feed.take(8)) == [6]


def test_retried_frames_go_before_new_ones() -> None:
    time = Time()
    feed = ordered(4, time=time)
    feed.answer([undetected(frame) for frame in feed.take(2)])
    time.now_s = 10.0
    assert indices(feed.take(3)) == [0, 1, 2]


def test_a_frame_that_cannot_be_scaled_is_lost_alone_and_in_its_place() -> None:
    time = Time()
    feed = ordered(3, time=time)
    zero, one, two = feed.take(3)
    bad = undetected(one, LossCause.UNDECODABLE)
    assert final(feed.answer([undetected(zero), bad, detected(two)])) == []
    time.now_s = 10.0
    assert indices(feed.take(8)) == [0, 1, 2]
    results = feed.answer([detected(zero), bad, detected(two)])
    assert results[1] == bad
    assert final(results) == [0, 1, 2]
    assert feed.room() == 13  # 24, halved once, one more after the success


def test_after_failures_fewer_and_later_after_success_more() -> None:
    time = Time()
    feed = ordered(1, time=time)
    windows, pauses = [], []
    for _ in range(8):
        feed.answer([undetected(frame) for frame in feed.take(1)])
        pauses.append(time.wakes_s[-1] - time.now_s)
        time.now_s = time.wakes_s[-1] - 0.01
        assert (feed.room(), feed.ready()) == (0, 0)
        time.now_s += 0.01
        windows.append(feed.room())
    assert windows == [12, 6, 3, 1, 1, 1, 1, 1]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    for index in range(1, 31):
        feed.offer(made_frame(index))
        feed.answer([detected(frame) for frame in feed.take(1)])
    assert feed.room() == 24
    feed.offer(made_frame(31))
    feed.answer([undetected(frame) for frame in feed.take(8)])
    assert time.wakes_s[-1] - time.now_s == pytest.approx(0.1)


def test_a_frame_is_given_up_after_minutes() -> None:
    time = Time()
    feed = ordered(2, time=time)
    for time.now_s in (0.0, 299.0):
        assert feed.answer([undetected(frame) for frame in feed.take(1)]) == []
    time.now_s = 310.0
    lost = [undetected(frame) for frame in feed.take(1)]
    assert feed.answer(lost) == lost
    time.now_s = 320.0
    (later,) = feed.take(8)
    assert later.index == 1
    assert feed.answer([undetected(later)]) == []  # it has its own minutes


def test_a_closed_feed_retries_nothing() -> None:
    feed = ordered(4)
    first, second = feed.take(2), feed.take(2)
    feed.close()
    assert feed.answer([detected(frame) for frame in second]) == []
    assert final(feed.answer([undetected(frame) for frame in first])) == [0, 1, 2, 3]
    assert feed.stats().under_way == 0


def test_with_clips_to_classify_a_file_is_not_far_ahead_in_time() -> None:
    rules = [{"type": "intrusion"}, {"type": "shoplifting_suspected"}]
    classifying = CameraConfig.model_validate(
        FILM.model_dump()
        | {"detect_fps": 2, "zones": [{"id": "z", "polygon": EVERYWHERE, "rules": rules}]}
    )
    feed = ordered()
    assert feed.room() == 3 * FRAMES_A_CALL
    feed.reconfigure(classifying)
    assert feed.room() == 12  # six seconds
    assert ordered(camera=classifying).room() == 12
    assert ordered(max_calls=1).room() == FRAMES_A_CALL


def test_the_pace_chooses_the_feed() -> None:
    for pace, kind in (("fast", OrderedFrames), ("realtime", LatestFrame)):
        camera = CameraConfig(id="film", source="film.mp4", pace=pace)
        assert isinstance(feed_of(camera, wake=lambda _: None), kind)


# ------------------------------------------------------------------ wake-ups


@pytest.mark.parametrize("seed", range(40))
def test_a_taker_that_acts_only_when_woken_never_stands_still(seed: int) -> None:
    """Calls are answered in any order, fail and get stuck; wake-ups alone move the file on."""
    chance, time = random.Random(seed), Time()
    feed = ordered(time=time)
    under_way: list[list[Frame]] = []
    done: list[int] = []
    offered = 0

    def answer_one() -> None:
        frames = under_way.pop(chance.randrange(len(under_way)))
        fails = len(done) < 80 and chance.random() < 0.3
        done.extend(final(feed.answer([undetected(f) if fails else detected(f) for f in frames])))

    for _ in range(10_000):
        while offered < 100 and feed.stats().waiting < FRAMES_A_CALL and chance.random() < 0.7:
            feed.offer(made_frame(offered))
            offered += 1
        if under_way and chance.random() < 0.5:
            answer_one()
        elif time.wakes_s:
            heapq.heapify(time.wakes_s)
            time.now_s = max(time.now_s, heapq.heappop(time.wakes_s))
            while len(under_way) < 3 and (frames := feed.take(chance.randint(1, 8))):
                under_way.append(frames)
        elif under_way:
            answer_one()
        elif offered == 100:
            break
    assert done == list(range(100))
    assert feed.stats().waiting == feed.stats().under_way == 0
