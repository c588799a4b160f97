"""The decode queue's bound, drop policy and counters."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import av
import pytest

from storeguard.video.decode_queue import DecodeQueue, Mark
from storeguard.video.packets import EncodedPacket, MediaKind, StreamFormat

VIDEO = StreamFormat(MediaKind.VIDEO, "h264")


def packet(number: int, *, key: bool) -> EncodedPacket:
    return EncodedPacket(
        data=av.Packet(b"x"),
        format=VIDEO,
        is_keyframe=key,
        time_us=number,
        decode_us=number,
        duration_us=1,
        captured_at=datetime(2026, 1, 1, tzinfo=UTC),
        connection=0,
        segment=0,
        received_s=0.0,
    )


def contents(queue: DecodeQueue) -> list[int | str]:
    found: list[int | str] = []
    while (item := queue.take(timeout_s=0)) is not None:
        found.append(item.value if isinstance(item, Mark) else item.time_us)
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
def test_lag_drops_up_to_a_keyframe(keys: set[int], left: list[object], dropped: int):
    queue = DecodeQueue(max_packets=4, lossless=False)
    for number in range(6):
        queue.put(packet(number, key=number in keys))
    assert queue.dropped()["decode_lag"] == dropped
    assert contents(queue) == left


def test_marks_are_never_dropped():
    queue = DecodeQueue(max_packets=2, lossless=False)
    queue.put(packet(0, key=True))
    queue.mark(Mark.SCENE_CUT)
    for number in range(1, 5):
        queue.put(packet(number, key=False))
    queue.mark(Mark.END)
    assert contents(queue) == ["scene_cut", "resync", "end"]


def test_a_lossless_queue_waits_for_room_until_it_is_closed():
    queue = DecodeQueue(max_packets=2, lossless=True)
    done = threading.Event()

    def fill() -> None:
        for number in range(4):
            queue.put(packet(number, key=False))
        done.set()

    thread = threading.Thread(target=fill)
    thread.start()
    assert not done.wait(0.1)
    assert queue.take(timeout_s=120).time_us == 0
    assert queue.take(timeout_s=120).time_us == 1
    assert done.wait(120)
    second = threading.Thread(target=queue.put, args=(packet(9, key=False),))
    second.start()
    queue.close()
    second.join(120)
    assert not second.is_alive()
    assert queue.dropped() == {}
