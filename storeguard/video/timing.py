"""A camera's time line: from the timestamps of its stream to capture times that never go back.

Streams restart, jump, wrap around and leave timestamps out; people and NTP set the wall clock. The
time line turns each packet's timestamps into microseconds, which begin near 0 with the camera's
first picture and never decrease, and into UTC, which is one fixed moment plus these microseconds.
Every fault of the stream's own clock moves the anchor and is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from storeguard.clock import Clock, both_times

FAST_START = datetime(1970, 1, 1, tzinfo=UTC)
"""UTC at which the time line of a file played as fast as possible begins, by default."""

_JUMP_US = 3_000_000  # live: a longer forward step is a fault, unless as much real time has passed
_FILE_STEP_US = 24 * 3600 * 1_000_000  # in a file of unknown length: longer than any recorded pause
_FILE_SLACK_US = 1_000_000  # containers round the length that they declare
_BACK_DTS_US = 500_000  # decoding times go back this far by jitter; presentation times by B-frames
_BACK_PTS_US = 1_000_000
_WRAP_US = (2**33 * 1_000_000) // 90_000  # MPEG's 33-bit, 90 kHz timestamps: 26.5 hours
_WRAP_SLACK_US = 10_000_000
_WALL_STEP_US = 1_000_000
_WINDOW_US = 10_000_000  # lateness is measured over this long
_WINDOW_SLEW_US = 20_000  # ... and corrected by at most this much: 0.2 %, far above any crystal


class Reanchor(StrEnum):
    """Why the time line did not follow the stream's timestamps."""

    PTS_FORWARD = "pts_forward"
    PTS_BACKWARD = "pts_backward"
    PTS_WRAP = "pts_wrap"
    MISSING_PTS = "missing_pts"
    WALL_CLOCK = "wall_clock"


@dataclass(frozen=True, slots=True)
class Stamps:
    """One packet's timestamps as its stream gives them, in microseconds; None where absent."""

    pts_us: int | None
    dts_us: int | None
    duration_us: int


@dataclass(frozen=True, slots=True)
class Placed:
    """One packet's place on the camera's time line.

    Attributes:
        time_us: presentation time.
        decode_us: decoding time.
        captured_at: aware UTC of `time_us`.
        broken: True on the first packet after the stream's timestamps broke.
    """

    time_us: int
    decode_us: int
    captured_at: datetime
    broken: bool


class Timeline:
    """One camera's time line, over all its connections. Used by the demuxing thread alone.

    Live sources are anchored at arrival: the least delayed of the packets around one gives the
    delay between its capture and its arrival. No capture time is in the future. Each connection
    gets its own anchor, so that time without the camera is a gap of the right length. Files are
    anchored where they begin to play; a file that starts over continues without a gap. A file's
    own timestamps are the truth, however far apart, except where they lie past its declared end.

    The wall clock is read once. A step of the wall clock (counted as `wall_clock`) does not affect
    the running connection. The next connection follows a step forward; a step back is never
    followed, because captures would then lie before earlier ones.

    Args:
        clock: wall and monotonic time.
        live: whether packets arrive as they are captured.
        start: UTC of the beginning; None takes the moment of the first packet.
    """

    def __init__(self, clock: Clock, *, live: bool, start: datetime | None = None) -> None:
        self._clock = clock
        self._live = live
        self._utc0 = start
        self._offset: int | None = None  # time line = stream + offset
        self._frame_us = 40_000
        self._length_us: int | None = None
        self._latest: int | None = None  # timestamp that a file cannot pass
        self._last_ref = 0  # decoding time of the last packet, as the stream gives it
        self._last_decode = -(2**62)
        self._end: int | None = None  # end of the latest picture on the time line
        self._last_arrival = 0
        self._reordered = False
        self._window_from = 0
        self._window_least: int | None = None
        self._mono0: float | None = None
        self._wall0 = datetime.min.replace(tzinfo=UTC)
        self._wall_ahead = 0  # wall clock minus monotonic clock since the first packet
        self._drift = 0  # the part of it that the time line has followed
        self.reanchors: Counter[Reanchor] = Counter()

    def connect(
        self, *, frame_us: int, origin_us: int | None = None, length_us: int | None = None
    ) -> None:
        """Begin a connection, or another pass over a file.

        Args:
            frame_us: the usual time between two pictures.
            origin_us: the stream's timestamp that a first pass over a file starts at; None takes
                that of its first packet.
            length_us: how long a file declares to be; None where it does not.
        """
        self._frame_us = max(1, frame_us)
        self._length_us = length_us
        self._latest = None
        self._offset = None
        self._last_ref = -self._frame_us
        self._reordered = False
        self._window_least = None
        if origin_us is not None and self._end is None and not self._live:
            self._offset = -origin_us
            self._last_ref = origin_us
            self._last_arrival = 0
            self._start_clocks()
        if self._live and self._mono0 is not None:
            self.arrival_us(self._clock.monotonic())  # detects a step during the outage
            self._drift += max(0, self._wall_ahead - self._drift)

    def arrival_us(self, received_s: float) -> int:
        """The time on the line of an arrival at `received_s` (monotonic seconds)."""
        if self._mono0 is None:
            self._start_clocks(received_s)
        assert self._mono0 is not None  # noqa: S101  # for the type checker: just set
        now, mono = both_times(self._clock)
        wall = (now - self._wall0) // timedelta(microseconds=1)
        since = int((mono - self._mono0) * 1_000_000)
        step = wall - since - self._wall_ahead
        self._wall_ahead += step
        if abs(step) > _WALL_STEP_US:
            self.reanchors[Reanchor.WALL_CLOCK] += 1
        else:
            self._drift += step  # NTP slews the clock: small enough to follow
        return int((received_s - self._mono0) * 1_000_000) + self._drift

    def anchor(self, first: Stamps, delays_us: int) -> None:
        """Anchor a live connection.

        Args:
            first: timestamps of its first packet.
            delays_us: the least of (arrival - presentation time) over its first packets.
        """
        pts, dts = self._complete(first)
        self._offset = self._offset_after_latest(pts, dts, delays_us)
        self._last_ref = dts

    def place(self, stamps: Stamps, received_s: float) -> Placed:
        """Place a video packet on the time line; call in decoding order."""
        arrival = self.arrival_us(received_s)
        if stamps.pts_us is None and stamps.dts_us is None:
            self.reanchors[Reanchor.MISSING_PTS] += 1
        pts, dts = self._complete(stamps)
        broken = self._anchor_at(pts, dts, arrival, has_dts=stamps.dts_us is not None)
        assert self._offset is not None  # noqa: S101  # for the type checker: just anchored
        if self._live:
            self._slew(pts, arrival)
        if pts != dts:
            self._reordered = True
        time_us = pts + self._offset
        decode_us = max(dts + self._offset, self._last_decode + 1)
        self._last_ref, self._last_arrival = dts, arrival
        self._last_decode = decode_us
        end = time_us + (stamps.duration_us or self._frame_us)
        self._end = end if self._end is None else max(self._end, end)
        return Placed(time_us, min(decode_us, time_us), self.utc(time_us), broken)

    def place_audio(self, stamps: Stamps) -> Placed | None:
        """Place an audio packet on the time line; None before the first video packet."""
        stamp = stamps.pts_us if stamps.pts_us is not None else stamps.dts_us
        if self._offset is None or self._end is None or stamp is None:
            return None
        time_us = stamp + self._offset
        return Placed(time_us, time_us, self.utc(time_us), broken=False)

    def utc(self, time_us: int) -> datetime:
        """UTC of a time on the line."""
        if self._utc0 is None:
            self._start_clocks()
        assert self._utc0 is not None  # noqa: S101  # for the type checker: just set
        return self._utc0 + timedelta(microseconds=time_us)

    def wall_offset_s(self) -> float:
        """Seconds by which the time line's UTC is ahead of the wall clock; 0 without a step."""
        return (self._drift - self._wall_ahead) / 1_000_000

    def _start_clocks(self, received_s: float | None = None) -> None:
        if self._mono0 is None:
            now, mono = both_times(self._clock)
            self._mono0 = mono if received_s is None else received_s
            self._wall0 = now - timedelta(seconds=mono - self._mono0)
            if self._utc0 is None:
                self._utc0 = self._wall0

    def _complete(self, stamps: Stamps) -> tuple[int, int]:
        """Presentation and decoding time; absent ones are estimated."""
        dts = stamps.dts_us if stamps.dts_us is not None else stamps.pts_us
        if dts is None:
            dts = self._last_ref + self._frame_us
        pts = stamps.pts_us if stamps.pts_us is not None else dts
        return pts, dts

    def _anchor_at(self, pts: int, dts: int, arrival: int, *, has_dts: bool) -> bool:
        if self._latest is None and self._length_us is not None:
            self._latest = pts + self._length_us + _FILE_SLACK_US + 5 * self._frame_us
        if self._offset is None:
            delay = arrival - pts if self._live else None
            self._offset = self._offset_after_latest(pts, dts, delay)
            return False
        step = dts - self._last_ref
        if abs(step + _WRAP_US) < _WRAP_SLACK_US:
            self._offset += _WRAP_US
            self.reanchors[Reanchor.PTS_WRAP] += 1
            return False
        if self._is_forward_fault(dts, step, arrival):
            cause = Reanchor.PTS_FORWARD
        elif step < -(_BACK_DTS_US if has_dts else _BACK_PTS_US):
            cause = Reanchor.PTS_BACKWARD
        else:
            return False
        self.reanchors[cause] += 1
        self._latest = None if self._latest is None else self._latest + dts - self._last_ref
        self._offset = self._offset_after_latest(pts, dts, arrival - pts if self._live else None)
        return True

    def _is_forward_fault(self, dts: int, step: int, arrival: int) -> bool:
        if self._live:
            real = arrival - self._last_arrival
            threshold = max(_JUMP_US, 5 * self._frame_us)
            return step > threshold and step - real > threshold // 2
        if self._latest is None:
            return step > _FILE_STEP_US
        return dts > self._latest and step > max(_JUMP_US, 5 * self._frame_us)

    def _offset_after_latest(self, pts: int, dts: int, delay: int | None) -> int:
        """The offset that places `pts` at its arrival, but not before the latest picture's end."""
        if self._end is None:
            return -pts if delay is None else delay
        after = max(self._end - pts, self._last_decode + 1 - dts)
        return after if delay is None else max(after, delay)

    def _slew(self, pts: int, arrival: int) -> None:
        assert self._offset is not None  # noqa: S101  # for the type checker
        late = arrival - (pts + self._offset)
        if late < 0:
            # In the future: the anchor was late. Correct it without changing the order of frames.
            most = self._frame_us // 8 if self._reordered else self._frame_us * 9 // 10
            self._offset -= min(-late, most)
            late = 0
        if self._window_least is None or arrival < self._window_from:
            self._window_from, self._window_least = arrival, late
        self._window_least = min(self._window_least, late)
        if arrival - self._window_from > _WINDOW_US:
            self._offset += min(self._window_least, _WINDOW_SLEW_US)
            self._window_least = None
