"""Where a camera's frames wait for detection: one place, the newest wins."""

from __future__ import annotations

import threading
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
    """A queue of one item. Thread-safe.

    Drop policy: latest wins. `put` never waits; an item that nobody has taken is replaced, and
    counted as `superseded`. So the age of what is taken is bounded by the taker's own pace.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._full = False
        self._closed = False
        self._num_put = 0
        self._num_taken = 0
        self._superseded = 0
        self._changed = threading.Condition()

    def put(self, item: T) -> T | None:
        """Put an item in place of the one there; returns the replaced item, None if there was none.

        After `close` items are ignored.
        """
        with self._changed:
            if self._closed:
                return None
            replaced = self._item if self._full else None
            self._superseded += self._full
            self._num_put += 1
            self._item, self._full = item, True
            self._changed.notify_all()
            return replaced

    def take(self, *, timeout_s: float | None = 0.0) -> T | None:
        """Take the item.

        Args:
            timeout_s: how long to wait for one; 0 does not wait, None waits until `close`.

        Returns:
            The item; None if there is none in time, or the slot is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._full or self._closed, timeout_s)
            if not self._full:
                return None
            item, self._item, self._full = self._item, None, False
            self._num_taken += 1
            self._changed.notify_all()
            return item

    def put_in_turn(self, item: T) -> None:
        """Put an item once the one there was taken: for sources that can wait and may lose nothing.

        Returns without putting it when the slot is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._full or self._closed)
            self.put(item)

    @property
    def full(self) -> bool:
        """Whether an item waits to be taken."""
        with self._changed:
            return self._full

    def close(self) -> None:
        """Let go whoever waits; an item still there can be taken."""
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
