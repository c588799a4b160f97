"""Where a camera's frames wait for detection: one place, the newest wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlotStats:
    """How many items were put, taken, and superseded by a newer one before they were taken."""

    num_put: int
    num_taken: int
    superseded: int


class LatestSlot(Generic[T]):
    """A queue of one item, or of a few from sources that wait. Thread-safe.

    Drop policy: latest wins. `put` never waits; an item that nobody has taken is replaced, and
    counted as `superseded`. So the age of what is taken is bounded by the taker's own pace.

    Args:
        superseded_by: what stands in the place of an item (first) that a newer one (second)
            replaces; the newer one without.
        turns: how many items `put_in_turn` lets wait.
    """

    def __init__(
        self, *, superseded_by: Callable[[T, T], T] = lambda _, newer: newer, turns: int = 1
    ) -> None:
        self._superseded_by = superseded_by
        self._turns = turns
        self._items: deque[T] = deque()
        self._closed = False
        self._num_put = 0
        self._num_taken = 0
        self._superseded = 0
        self._changed = threading.Condition()

    def put(self, item: T) -> T | None:
        """Put an item in place of the newest there; returns that one, None if there was none.

        After `close` items are ignored.
        """
        with self._changed:
            if self._closed:
                return None
            replaced = self._items.pop() if self._items else None
            if replaced is not None:
                self._superseded += 1
                item = self._superseded_by(replaced, item)
            self._append(item)
            return replaced

    def take(self, *, timeout_s: float | None = 0.0) -> T | None:
        """Take the oldest item.

        Args:
            timeout_s: how long to wait for one; 0 does not wait, None waits until `close`.

        Returns:
            The item; None if there is none in time, or the slot is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            self._num_taken += 1
            self._changed.notify_all()
            return self._items.popleft()

    def put_in_turn(self, item: T) -> None:
        """Put an item once there is room: for sources that can wait and may lose nothing.

        Returns without putting it when the slot is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._turns or self._closed)
            if not self._closed:
                self._append(item)

    @property
    def waiting(self) -> int:
        """How many items wait to be taken."""
        with self._changed:
            return len(self._items)

    def close(self) -> None:
        """Let go whoever waits; items still there can be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._changed:
            return self._closed

    def stats(self) -> SlotStats:
        """Counters."""
        with self._changed:
            return SlotStats(self._num_put, self._num_taken, self._superseded)

    def _append(self, item: T) -> None:
        self._num_put += 1
        self._items.append(item)
        self._changed.notify_all()


class Sampler:
    """Picks frames so that about `fps` of them a second of stream time go on to detection.

    Frames are due on a fixed grid of stream time, so that the rate comes out right whatever the
    camera's own rate is: a camera of 30 fps sampled at 12 gives 12, not 10 or 15. Frames passed
    over are counted as `sampled_out`; they were not wanted, so they are no drops.

    Args:
        fps: frames a second to pick; at or above the camera's own rate all are picked.
    """

    def __init__(self, fps: float) -> None:
        self._step_s = 1.0 / fps
        self._due_s: float | None = None
        self.num_picked = 0
        self.sampled_out = 0

    def wants(self, time_s: float, *, scene_cut: bool = False) -> bool:
        """Whether to pick the frame at `time_s` seconds of stream time.

        Args:
            time_s: `Frame.time_s`; must not decrease.
            scene_cut: the first frame of another scene is always picked.
        """
        # Half a millisecond of grace: timestamps are rounded, and 10 of 10 fps must be all.
        if self._due_s is not None and time_s < self._due_s - 0.0005 and not scene_cut:
            self.sampled_out += 1
            return False
        if self._due_s is None or scene_cut or time_s >= self._due_s + self._step_s:
            self._due_s = time_s + self._step_s  # first frame, new scene or gap: a new grid
        else:
            self._due_s += self._step_s
        self.num_picked += 1
        return True
