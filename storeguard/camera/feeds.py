"""Frame feeds: where a camera's frames wait for the detector, and in which order they come back.

A live camera has a `LatestFrame`: only its newest frame counts. A file at full pace has
`OrderedFrames`: it waits instead, and loses nothing. The group of cameras treats both alike.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from storeguard.camera.detector_calls import Detected, FrameResult, LossCause, Undetected
from storeguard.config.store import CameraConfig, Pace
from storeguard.video.frame import Frame

MAX_CALLS: Final = 3
"""Detector calls that a group of cameras has under way at most."""
FRAMES_A_CALL: Final = 8
"""Frames of files at full pace in one detector call; new frames of one file that wait at most."""
GIVE_UP_S: Final = 300.0
"""A file's frame that the detector has failed to answer for so long is given up."""
_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0
_MAX_AHEAD_S: Final = 6.0

Wake = Callable[[float], None]
"""Called, from any thread, when a feed may have frames ready in so many seconds."""


@dataclass(frozen=True, slots=True)
class FeedStats:
    """The state of a feed.

    Attributes:
        waiting: frames that wait to be taken.
        under_way: frames that were taken and whose results have not been returned yet.
        superseded: frames that a newer one has replaced before they were taken.
    """

    waiting: int
    under_way: int
    superseded: int = 0


class FrameFeed(Protocol):
    """The frames of one camera on their way to the detector and back.

    `offer` is called by the thread that decodes, everything else by one other thread. Whenever
    frames become ready, by whatever cause, the feed calls its `Wake`: it need not be polled.
    """

    holds_source: bool
    """Whether its source waits for the detector: that no frame comes does not mean anything."""

    def offer(self, frame: Frame) -> None:
        """Add a frame; ignored after `close`."""

    def room(self) -> int:
        """How many frames may go to the detector now, whether they have arrived or not."""

    def ready(self) -> int:
        """How many frames `take` can return now."""

    def take(self, most: int) -> list[Frame]:
        """Take the next frames, in order, `most` at most, for one detector call."""

    def answer(self, results: Sequence[FrameResult]) -> list[FrameResult]:
        """Add the results of one `take`, in its order.

        Returns:
            The results that are final now, in the order of the camera's frames: of these frames
            and of earlier calls' that were held back, without frames that will be retried.
        """

    def reconfigure(self, camera: CameraConfig) -> None:
        """Use the camera's new settings."""

    def close(self) -> None:
        """Accept no more frames, retry none, and release a waiting `offer`."""

    def stats(self) -> FeedStats:
        """The state of the feed."""


def feed_of(
    camera: CameraConfig,
    *,
    wake: Wake,
    now_s: Callable[[], float] = time.monotonic,
    max_calls: int = MAX_CALLS,
    give_up_s: float = GIVE_UP_S,
) -> FrameFeed:
    """The feed for a camera: `OrderedFrames` at pace `fast`, otherwise `LatestFrame`.

    Args:
        camera: its settings.
        wake: see `Wake`.
        now_s: seconds of a monotonic clock, the one that delays of `wake` are measured by.
        max_calls: detector calls under way at once.
        give_up_s: see `GIVE_UP_S`.
    """
    if camera.pace is Pace.FAST:
        return OrderedFrames(
            camera, wake=wake, now_s=now_s, max_calls=max_calls, give_up_s=give_up_s
        )
    return LatestFrame(wake=wake)


class LatestFrame:
    """The feed of a live camera: one frame waits, one is under way.

    Drop policy: the newest wins. `offer` never waits; a frame that has not been taken is replaced
    and counted as superseded, so what is taken is as fresh as it can be. If a replaced frame began
    another scene, its successor begins it instead. A frame without detections is lost.

    Args:
        wake: see `Wake`.
    """

    holds_source = False

    def __init__(self, *, wake: Wake) -> None:
        self._wake = wake
        self._lock = threading.Lock()  # guards the frame, the count and closed
        self._frame: Frame | None = None
        self._superseded = 0
        self._closed = False
        self._under_way = 0

    def offer(self, frame: Frame) -> None:
        with self._lock:
            if self._closed:
                return
            if self._frame is not None:
                self._superseded += 1
                if self._frame.scene_cut:
                    frame = replace(frame, scene_cut=True)
            self._frame = frame
        self._wake(0.0)

    def room(self) -> int:
        return 0 if self._closed else 1 - self._under_way

    def ready(self) -> int:
        return 0 if self._frame is None else self.room()

    def take(self, most: int) -> list[Frame]:
        with self._lock:
            if self._frame is None or min(most, self.room()) < 1:
                return []
            frame, self._frame = self._frame, None
        self._under_way = 1
        return [frame]

    def answer(self, results: Sequence[FrameResult]) -> list[FrameResult]:
        self._under_way = 0
        if self.ready():
            self._wake(0.0)
        return list(results)

    def reconfigure(self, camera: CameraConfig) -> None:
        """Nothing here depends on the settings."""

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def stats(self) -> FeedStats:
        with self._lock:
            return FeedStats(int(self._frame is not None), self._under_way, self._superseded)


@dataclass(slots=True)
class _Call:
    """Frames that were taken together, and their results once there are any."""

    frames: list[Frame]
    results: Sequence[FrameResult] | None = None


class OrderedFrames:
    """The feed of a file at full pace: it loses no frame, and returns results in frame order.

    `offer` waits while `FRAMES_A_CALL` new frames wait. Several calls may be under way; the results
    of a later one are held back until the earlier ones are answered. A frame whose call failed is
    retried, and so are those behind it, because people are followed in frame order. A detector in
    trouble is spared: after a failure the file pauses, longer each time, and has half as many
    frames under way; with each success one more (as TCP halves its window). A frame that has failed
    for `give_up_s` is given up.

    Args:
        camera: its settings.
        wake, now_s, max_calls, give_up_s: see `feed_of`.
    """

    holds_source = True

    def __init__(
        self,
        camera: CameraConfig,
        *,
        wake: Wake,
        now_s: Callable[[], float] = time.monotonic,
        max_calls: int = MAX_CALLS,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._wake = wake
        self._now_s = now_s
        self._max_calls = max_calls
        self._give_up_s = give_up_s
        self._changed = threading.Condition()  # guards the new frames and closed
        self._new: deque[Frame] = deque()
        self._closed = False
        self._calls: deque[_Call] = deque()
        self._retries: list[Frame] = []  # by index
        self._unfinished_since_s: dict[int, float] = {}  # by index: retried, not yet final
        self._max_window = self._window = self._max_under_way(camera)
        self._pause_s = _PAUSE_S
        self._paused_until_s = 0.0

    def offer(self, frame: Frame) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._new) < FRAMES_A_CALL or self._closed)
            if self._closed:
                return
            self._new.append(frame)
        self._wake(0.0)

    def room(self) -> int:
        if self._closed or self._now_s() < self._paused_until_s:
            return 0
        return max(0, self._window - self._under_way())

    def ready(self) -> int:
        return min(self.room(), self._waiting())

    def take(self, most: int) -> list[Frame]:
        num_frames = min(most, self.ready())
        frames, self._retries = self._retries[:num_frames], self._retries[num_frames:]
        with self._changed:
            frames += [self._new.popleft() for _ in range(num_frames - len(frames))]
            self._changed.notify_all()
        if frames:
            self._calls.append(_Call(frames))
        return frames

    def answer(self, results: Sequence[FrameResult]) -> list[FrameResult]:
        first = results[0].frame.index
        next(call for call in self._calls if call.frames[0].index == first).results = results
        final: list[FrameResult] = []
        while self._calls and (answered := self._calls[0].results) is not None:
            self._calls.popleft()
            final += self._final(answered)
        if self.ready():
            self._wake(0.0)
        return final

    def reconfigure(self, camera: CameraConfig) -> None:
        self._max_window = self._max_under_way(camera)
        self._window = min(self._window, self._max_window)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stats(self) -> FeedStats:
        return FeedStats(self._waiting(), self._under_way())

    def _waiting(self) -> int:
        with self._changed:
            return len(self._new) + len(self._retries)

    def _under_way(self) -> int:
        return sum(len(call.frames) for call in self._calls)

    def _final(self, results: Sequence[FrameResult]) -> list[FrameResult]:
        """Set aside what is retried of the earliest call; returns the rest."""
        now_s, final = self._now_s(), list[FrameResult]()
        for result in results:
            if self._is_retried(result, now_s):
                self._unfinished_since_s.setdefault(result.frame.index, now_s)
                insort(self._retries, result.frame, key=lambda frame: frame.index)
            else:
                self._unfinished_since_s.pop(result.frame.index, None)
                final.append(result)
        if any(_is_detectors_fault(result) for result in results):
            self._back_off(now_s)
        else:
            self._recover()
        return final

    def _is_retried(self, result: FrameResult, now_s: float) -> bool:
        if self._closed:
            return False
        index = result.frame.index
        if any(earlier < index for earlier in self._unfinished_since_s):
            return True
        failed_s = now_s - self._unfinished_since_s.get(index, now_s)
        return _is_detectors_fault(result) and failed_s < self._give_up_s

    def _back_off(self, now_s: float) -> None:
        self._paused_until_s = now_s + self._pause_s
        self._wake(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
        self._window = max(1, self._window // 2)

    def _recover(self) -> None:
        self._pause_s = _PAUSE_S
        self._window = min(self._window + 1, self._max_window)

    def _max_under_way(self, camera: CameraConfig) -> int:
        """With clips to classify, a few seconds of video: pictures are kept no longer."""
        most = self._max_calls * FRAMES_A_CALL
        if camera.classifies:
            most = min(most, int(camera.detect_fps * _MAX_AHEAD_S))
        return max(1, most)


def _is_detectors_fault(result: FrameResult) -> bool:
    match result:
        case Detected():
            return False
        case Undetected(cause=cause):
            return cause is not LossCause.UNDECODABLE
