"""The decode queue's bound, drop policy and counters."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import pairwise

import av
import pytest

from storeguard.testing import FakeClock
from storeguard.video.decode_queue import DecodeQueue, Mark, QueueLimits
from storeguard.video.packets import EncodedPacket, MediaKind, StreamFormat

VIDEO = StreamFormat(MediaKind.VIDEO, "h264")
STEP_US = 40_000


def packet(number: int, *, key: bool) -> EncodedPacket:
    """The picture at this number of a stream of 25 a second; one byte long."""
    return EncodedPacket(
        data=av.Packet(b"x"),
        format=VIDEO,
        is_keyframe=key,
        time_us=number * STEP_US,
        decode_us=number * STEP_US,
        duration_us=STEP_US,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        connection=0,
        segment=0,
        received_s=0.0,
    )


def contents(queue: DecodeQueue) -> list[int | str]:
    found: list[int | str] = []
    while (item := queue.take(timeout_s=0)) is not None:
        found.append(item.value if isinstance(item, Mark) else item.time_us // STEP_US)
    return found


@pytest.mark.parametrize(
    ("keys", "left", "dropped"),
    [
        # Room for 4; 6 packets arrive. Packets before the keyframe in the queue are dropped.
        ({0, 2}, ["resync", 2, 3, 4, 5], 2),
        # The last keyframe in the queue decides.
        ({0, 1, 3}, ["resync", 3, 4, 5], 3),
        # No keyframe but the first: all are dropped, and all until the next keyframe.
        ({0}, ["resync"], 6),
        # The packet that finds no room is a keyframe itself.
        ({0, 4}, ["resync", 4, 5], 4),
    ],
)
def test_too_many_bytes_drop_up_to_a_keyframe(keys: set[int], left: list[object], dropped: int):
    queue = DecodeQueue(QueueLimits(max_bytes=4), lossless=False, clock=FakeClock())
    for number in range(6):
        queue.put(packet(number, key=number in keys))
    assert queue.dropped()["decode_lag"] == dropped
    assert contents(queue) == left


def test_a_whole_group_of_pictures_at_once_is_kept_while_decoding_catches_up():
    clock = FakeClock()
    queue = DecodeQueue(lossless=False, clock=clock)
    for number in range(1500):  # a minute, sent at the start of the stream
        queue.put(packet(number, key=number in {0, 750}))
    taken = []
    for number in range(1500, 2000):  # then 25 a second, of which 100 are decoded
        clock.advance(0.04)
        queue.put(packet(number, key=number % 250 == 0))
        taken += [item for _ in range(4) if (item := queue.take(timeout_s=0)) is not None]
    assert [item.time_us // STEP_US for item in taken] == list(range(2000))
    assert queue.dropped() == {}


def test_decoding_slower_than_the_stream_skips_to_a_keyframe():
    clock = FakeClock()
    queue = DecodeQueue(QueueLimits(max_wait_s=2), lossless=False, clock=clock)
    taken: list[EncodedPacket | Mark] = []
    for number in range(2000):  # 25 a second arrive, 12.5 are decoded
        clock.advance(0.04)
        queue.put(packet(number, key=number % 50 == 0))
        if number % 2 and (item := queue.take(timeout_s=0)) is not None:
            taken.append(item)
    decoded = [item for item in taken if isinstance(item, EncodedPacket)]
    skips = [b for a, b in pairwise(taken) if a is Mark.RESYNC]
    assert skips
    assert all(isinstance(item, EncodedPacket) and item.is_keyframe for item in skips)
    behind = 2000 - decoded[-1].time_us // STEP_US
    assert behind < 25 * 7  # two waits and a group of pictures
    assert queue.dropped()["decode_lag"] > 500


def test_without_a_keyframe_slow_decoding_goes_on():
    # Nothing to skip to: with the packets dropped, nothing could be decoded until the next keyframe.
    clock = FakeClock()
    queue = DecodeQueue(QueueLimits(max_wait_s=2), lossless=False, clock=clock)
    for number in range(500):
        clock.advance(0.04)
        queue.put(packet(number, key=number == 0))
    assert queue.dropped() == {}
    for number in range(500, 600):
        clock.advance(0.04)
        queue.put(packet(number, key=number == 500))
    assert contents(queue) == ["resync", *range(500, 600)]


def test_marks_are_never_dropped():
    queue = DecodeQueue(QueueLimits(max_bytes=2), lossless=False, clock=FakeClock())
    queue.put(packet(0, key=True))
    queue.mark(Mark.SCENE_CUT)
    for number in range(1, 5):
        queue.put(packet(number, key=False))
    queue.mark(Mark.END)
    assert contents(queue) == ["scene_cut", "resync", "end"]


def test_a_lossless_queue_waits_for_room_until_it_is_closed():
    queue = DecodeQueue(QueueLimits(max_packets=2), lossless=True)
    done = threading.Event()

    def fill() -> None:
        for number in range(4):
            queue.put(packet(number, key=False))
        done.set()

    thread = threading.Thread(target=fill)
    thread.start()
    assert not done.wait(0.1)
    assert queue.take(timeout_s=120).time_us == 0
    assert queue.take(timeout_s=120).time_us == STEP_US
    assert done.wait(120)
    second = threading.Thread(target=queue.put, args=(packet(9, key=False),))
    second.start()
    queue.close()
    second.join(120)
    assert not second.is_alive()
    assert queue.dropped() == {}
