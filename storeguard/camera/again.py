"""Frames of a file at full pace that have to go to the detector once more."""

from __future__ import annotations

from bisect import insort
from typing import Final

from storeguard.video.frame import Frame

_PAUSE_S: Final = 0.1
_PAUSE_MOST_S: Final = 5.0
_GIVE_UP_S: Final = 300.0


class Again:
    """A file loses no frame: one whose detector call failed waits here, and those after it too.

    Frames are followed in their order, so what was detected behind a frame that waits has to wait
    as well. A detector in trouble is spared: after a failure the file pauses, longer each time, and
    has half as many frames under way; with each success one more (as TCP halves its window).

    Args:
        most: frames that may be under way in good times.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.window = most
        """Frames that may be under way now."""
        self._waiting: list[Frame] = []
        self._failed_at_s: dict[int, float] = {}  # by frame, each not yet followed or lost
        self._pause_s = _PAUSE_S
        self._paused_until_s = 0.0

    def limit(self, most: int) -> None:
        """From now on so many frames may be under way in good times."""
        self._most = most
        self.window = min(self.window, most)

    def __len__(self) -> int:
        return len(self._waiting)

    def paused(self, now_s: float) -> bool:
        """Whether nothing is to be sent yet."""
        return now_s < self._paused_until_s

    def is_behind(self, frame: Frame) -> bool:
        """Whether an earlier frame is still to come."""
        return any(index < frame.index for index in self._failed_at_s)

    def put(self, frame: Frame, now_s: float) -> bool:
        """Have a frame wait; False if it has waited in vain for minutes and is to be given up."""
        first_s = self._failed_at_s.setdefault(frame.index, now_s)
        if now_s - first_s >= _GIVE_UP_S:
            return False
        insort(self._waiting, frame, key=lambda one: one.index)
        return True

    def take(self) -> Frame | None:
        """The first that waits."""
        return self._waiting.pop(0) if self._waiting else None

    def settle(self, frame: Frame) -> None:
        """A frame was followed, or is lost."""
        self._failed_at_s.pop(frame.index, None)

    def back_off(self, now_s: float) -> float:
        """A call failed; returns for how many seconds to pause."""
        pause_s = self._pause_s
        self._paused_until_s = now_s + pause_s
        self._pause_s = min(2 * pause_s, _PAUSE_MOST_S)
        self.window = max(1, self.window // 2)
        return pause_s

    def go_on(self) -> None:
        """A call went well."""
        self._pause_s = _PAUSE_S
        self.window = min(self.window + 1, self._most)
