"""The bounded queue between reading packets and decoding them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from enum import Enum

from storeguard.video.packets import EncodedPacket, MediaKind


class Mark(Enum):
    """What the queue holds besides packets."""

    SCENE_CUT = "scene_cut"  # the file starts over
    RESYNC = "resync"  # packets are missing here
    END = "end"  # nothing more will come


class DecodeQueue:
    """Video packets waiting to be decoded, and marks. Thread-safe.

    Bound: `max_packets`. Drop policy, unless lossless: a full queue drops the packets before its
    last keyframe; if there is none behind its first item, it drops all of them, and new ones until
    a keyframe arrives. Marks are never dropped. Drops are counted as `decode_lag`.

    Args:
        max_packets: the bound.
        lossless: `put` waits for room instead of dropping.
    """

    def __init__(self, *, max_packets: int, lossless: bool) -> None:
        self._max_packets = max_packets
        self._lossless = lossless
        self._items: deque[EncodedPacket | Mark] = deque()
        self._num_packets = 0
        self._skipping = False
        self._closed = False
        self._dropped: Counter[str] = Counter()
        self._changed = threading.Condition()

    def put(self, packet: EncodedPacket) -> None:
        """Add a packet. Audio is not decoded and not kept."""
        if packet.kind is not MediaKind.VIDEO:
            return
        with self._changed:
            if self._lossless:
                self._changed.wait_for(
                    lambda: self._closed or self._num_packets < self._max_packets
                )
            elif self._num_packets >= self._max_packets:
                self._make_room(packet)
            if self._closed:
                return
            if self._skipping and not packet.is_keyframe:
                self._dropped["decode_lag"] += 1
                return
            self._skipping = False
            self._items.append(packet)
            self._num_packets += 1
            self._changed.notify_all()

    def mark(self, mark: Mark) -> None:
        """Add a mark."""
        with self._changed:
            self._items.append(mark)
            self._changed.notify_all()

    def take(self, *, timeout_s: float) -> EncodedPacket | Mark | None:
        """The oldest item; None after `timeout_s` without one; `Mark.END` from a closed queue."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)
            if self._closed:
                return Mark.END
            if not self._items:
                return None
            item = self._items.popleft()
            if not isinstance(item, Mark):
                self._num_packets -= 1
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drop all items and wake every waiting caller."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._num_packets = 0
            self._changed.notify_all()

    def dropped(self) -> Counter[str]:
        """Packets dropped so far, by cause."""
        with self._changed:
            return self._dropped.copy()

    def _make_room(self, newest: EncodedPacket) -> None:
        last_key = -1  # position of the last keyframe in the queue
        for position in range(len(self._items) - 1, 0, -1):
            item = self._items[position]
            if not isinstance(item, Mark) and item.is_keyframe:
                last_key = position
                break
        if newest.is_keyframe or last_key < 0:
            last_key = len(self._items)
            self._skipping = True
        kept = list(self._items)[last_key:]
        removed = list(self._items)[:last_key]
        marks = [item for item in removed if isinstance(item, Mark) and item is not Mark.RESYNC]
        self._dropped["decode_lag"] += sum(not isinstance(item, Mark) for item in removed)
        self._items = deque([*marks, Mark.RESYNC, *kept])
        self._num_packets = sum(not isinstance(item, Mark) for item in kept)
