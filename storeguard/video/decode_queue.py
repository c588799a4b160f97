"""The bounded queue between reading packets and decoding them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from storeguard.clock import Clock, SystemClock
from storeguard.video.packets import EncodedPacket, MediaKind

_CATCHES_UP = 0.1  # seconds of lag that decoding must gain a second, or it is too slow


class Mark(Enum):
    """What the queue holds besides packets."""

    SCENE_CUT = "scene_cut"  # the file starts over
    RESYNC = "resync"  # packets are missing here
    END = "end"  # nothing more will come


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The bounds of a decode queue.

    Attributes:
        max_wait_s: how long a packet may wait while decoding is slower than the stream.
        max_bytes: encoded bytes that may wait.
        max_packets: packets that may wait in a lossless queue.
    """

    max_wait_s: float = 2.0
    max_bytes: int = 64 * 2**20
    max_packets: int = 64


class _Waiting(NamedTuple):
    item: EncodedPacket | Mark
    put_s: float


class _Lag(NamedTuple):
    """How far decoding was behind at one moment."""

    at_s: float
    behind_s: float  # only differences count: the two clocks have different zeros


class DecodeQueue:
    """Video packets waiting to be decoded, and marks. Thread-safe.

    Bounds: time and bytes. Many packets that arrive together (a group of pictures at the start of a
    stream, a segment, the end of a stall) all stay: decoding is faster than the stream and catches
    up. Only where it does not catch up, the packets before the last keyframe are dropped; without a
    keyframe behind the first packet all wait for one. A queue that reaches `max_bytes` drops the
    packets before its last keyframe too; without one, it drops all, and new ones until a
    keyframe arrives. Marks are never dropped. Drops are counted as `decode_lag`.

    Args:
        limits: its bounds.
        lossless: `put` waits for room instead of dropping.
        clock: measures how long packets wait.
    """

    def __init__(
        self, limits: QueueLimits | None = None, *, lossless: bool, clock: Clock | None = None
    ) -> None:
        self._limits = limits or QueueLimits()
        self._lossless = lossless
        self._clock = clock or SystemClock()
        self._items: deque[_Waiting] = deque()
        self._num_packets = 0
        self._num_bytes = 0
        self._lag: _Lag | None = None  # when packets first waited too long
        self._skipping = False
        self._closed = False
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()

    def put(self, packet: EncodedPacket) -> None:
        """Add a packet. Audio is not decoded and not kept."""
        if packet.kind is not MediaKind.VIDEO:
            return
        with self._changed:
            now_s = self._clock.monotonic()
            if self._lossless:
                self._changed.wait_for(
                    lambda: self._closed or self._num_packets < self._limits.max_packets
                )
            elif self._num_bytes + packet.data.size > self._limits.max_bytes:
                self._make_room(packet, may_empty=True)
            elif self._is_too_slow(now_s):
                self._make_room(packet, may_empty=False)
            if self._closed:
                return
            if self._skipping and not packet.is_keyframe:
                self._dropped["decode_lag"] += 1
                return
            self._skipping = False
            self._items.append(_Waiting(packet, now_s))
            self._num_packets += 1
            self._num_bytes += packet.data.size
            self._changed.notify_all()

    def mark(self, mark: Mark) -> None:
        """Add a mark."""
        with self._changed:
            self._items.append(_Waiting(mark, self._clock.monotonic()))
            self._changed.notify_all()

    def take(self, *, timeout_s: float) -> EncodedPacket | Mark | None:
        """The oldest item; None after `timeout_s` without one; `Mark.END` from a closed queue."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)
            if self._closed:
                return Mark.END
            if not self._items:
                return None
            item = self._items.popleft().item
            if not isinstance(item, Mark):
                self._num_packets -= 1
                self._num_bytes -= item.data.size
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drop all items and wake every waiting caller."""
        with self._changed:
            self._closed = True
            self._keep([])
            self._changed.notify_all()

    def dropped(self) -> Counter[str]:
        """Packets dropped so far, by cause."""
        with self._changed:
            return self._dropped.copy()

    def _is_too_slow(self, now_s: float) -> bool:
        """Whether packets wait too long, and decoding did not gain on the stream meanwhile."""
        first = next((one for one in self._items if not isinstance(one.item, Mark)), None)
        if first is None or now_s - first.put_s <= self._limits.max_wait_s:
            self._lag = None
            return False
        assert isinstance(first.item, EncodedPacket)  # noqa: S101  # for the type checker
        lag = _Lag(now_s, now_s - first.item.decode_us / 1_000_000)
        if self._lag is None:
            self._lag = lag
            return False
        passed_s = now_s - self._lag.at_s
        if passed_s < self._limits.max_wait_s:
            return False
        gained_s = self._lag.behind_s - lag.behind_s
        self._lag = lag
        return gained_s < _CATCHES_UP * passed_s

    def _make_room(self, newest: EncodedPacket, *, may_empty: bool) -> None:
        last_key = -1  # position of the last keyframe in the queue
        for position in range(len(self._items) - 1, 0, -1):
            item = self._items[position].item
            if not isinstance(item, Mark) and item.is_keyframe:
                last_key = position
                break
        if newest.is_keyframe or last_key < 0:
            if not (newest.is_keyframe or may_empty):
                return
            last_key = len(self._items)
            self._skipping = True
        waiting = list(self._items)
        removed, kept = waiting[:last_key], waiting[last_key:]
        marks = [
            one for one in removed if isinstance(one.item, Mark) and one.item is not Mark.RESYNC
        ]
        self._dropped["decode_lag"] += sum(not isinstance(one.item, Mark) for one in removed)
        self._keep([*marks, _Waiting(Mark.RESYNC, self._clock.monotonic()), *kept])
        self._lag = None

    def _keep(self, items: list[_Waiting]) -> None:
        self._items = deque(items)
        packets = [one.item for one in items if not isinstance(one.item, Mark)]
        self._num_packets = len(packets)
        self._num_bytes = sum(packet.data.size for packet in packets)
