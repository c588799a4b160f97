"""Whether people are looked for as often as the settings request."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from storeguard.camera.status import CameraState
from storeguard.video.reader_stats import ReaderState, ReaderStats

_WINDOW_S: Final = 10.0
_WINDOW_FRAMES: Final = 4  # at least so many must have been due
_LEAST: Final = 0.5  # of the requested rate
_STEP_S: Final = 0.5  # between two counts that are kept


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames since the camera's start.

    Attributes:
        picked: decoded frames that were due at `detect_fps`.
        processed: of these, detected and followed.
        lost: frames that were lost on that way and before it, by cause.
    """

    picked: int
    processed: int
    lost: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """A camera's state, and the reason where the state alone does not say it."""

    state: CameraState
    reason: str | None = None


class RateWatch:
    """Compares the rate at which a camera's frames are processed with the requested one.

    A camera is judged by the last 10 s of one connection; at rates below 0.4 a second, by the time
    in which four frames are due. A source that is not live may pause, as its timestamps say; it
    can only be overloaded.
    """

    def __init__(self) -> None:
        self._past: deque[tuple[float, Counts]] = deque()
        self._reconnects = 0

    def judge(
        self, reader: ReaderStats, counts: Counts, *, requested_fps: float, now_s: float
    ) -> Condition:
        """The camera's condition at this moment.

        Args:
            reader: counters of its reader.
            counts: its frames at `now_s`.
            requested_fps: its `detect_fps`.
            now_s: monotonic seconds.
        """
        if reader.state is not ReaderState.PLAYING:
            self._past.clear()
            return _of_reader(reader)
        if reader.reconnects != self._reconnects:
            self._reconnects = reader.reconnects
            self._past.clear()
        if reader.average_fps is not None:
            requested_fps = min(requested_fps, reader.average_fps)
        window_s = max(_WINDOW_S, _WINDOW_FRAMES / requested_fps)
        if not self._past or now_s - self._past[-1][0] >= _STEP_S:
            self._past.append((now_s, counts))
        while len(self._past) > 1 and now_s - self._past[1][0] >= window_s:
            self._past.popleft()
        then_s, then = self._past[0]
        passed_s = now_s - then_s
        if passed_s < window_s:
            return Condition(CameraState.PLAYING)
        return _condition(then, counts, passed_s, requested_fps, live=reader.live is True)


def _of_reader(reader: ReaderStats) -> Condition:
    state = CameraState(reader.state.value)
    match state:
        case CameraState.NO_PICTURE:
            lost = _words({cause: reader.dropped.get(cause, 0) for cause in _UNDECODED})
            return Condition(
                state,
                f"video arrives, but no picture could be decoded for {reader.no_picture_s:.0f} s"
                + (f"; dropped since the start: {lost}" if lost else ""),
            )
        case CameraState.ENDED:
            return Condition(state, reader.ended_early)
        case _:
            return Condition(state)


_UNDECODED: Final = ("before_keyframe", "undecodable", "decode_lag")


def _condition(
    then: Counts, now: Counts, passed_s: float, requested_fps: float, *, live: bool
) -> Condition:
    processed_fps = (now.processed - then.processed) / passed_s
    picked_fps = (now.picked - then.picked) / passed_s
    if processed_fps >= _LEAST * requested_fps:
        return Condition(CameraState.PLAYING)
    lost = Counter(now.lost)
    lost.subtract(then.lost)
    words = (
        f"{requested_fps:.3g} pictures a second are requested, {processed_fps:.2g} were processed "
        f"in the last {passed_s:.0f} s"
    )
    if picked_fps >= _LEAST * requested_fps or lost["decode_lag"] > 0:
        return Condition(CameraState.OVERLOADED, f"{words}; lost: {_words(lost) or 'none yet'}")
    if live:
        reason = f"{words}: the camera sent {picked_fps:.2g} a second that could be used"
        return Condition(CameraState.STARVING, reason)
    return Condition(CameraState.PLAYING)


def _words(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {cause}" for cause, n in sorted(lost.items()) if n > 0)
