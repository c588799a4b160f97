"""What a camera's reader is doing, and its counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ReaderState(StrEnum):
    """What a camera is doing."""

    CONNECTING = "connecting"
    PLAYING = "playing"
    NO_PICTURE = "no_picture"
    """Video arrives, but for longer than `read_timeout_s` no picture could be decoded."""
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ReaderStats:
    """Counters of one camera at one moment.

    Attributes:
        state: what it is doing.
        frames_in: video packets read; each is a picture.
        frames_decoded: frames passed to `on_frame`.
        dropped: frames lost, by cause: `decode_lag` (decoding too slow), `undecodable` (damage),
            `before_keyframe` (decoding could not start yet), and those of `LossOfPicture`.
        consumer_errors: times a callback raised.
        reconnects: times the source was lost or could not be opened.
        reanchors: faults of time by cause, see `storeguard.video.timing.Reanchor`.
        last_error: message of the latest error, without credentials; None if there was none.
        codec: None until connected.
        wh: of the newest frame, else as the source declares; None until known.
        fps_in: packets a second over the last 5 s.
        late_s: seconds that a file at real-time pace plays late because the machine was too slow.
        wall_offset_s: seconds that captured_at is ahead of the wall clock: not 0 after the wall
            clock was set during a connection.
        no_picture_s: seconds for which video has arrived without a picture; 0 while pictures come.
        ended_early: why its end is a fault; None while it plays, and at a film's own end.
        live: whether its packets arrive as they are captured; None until connected.
        average_fps: frames a second as the source declares; None when unknown.
    """

    state: ReaderState
    frames_in: int = 0
    frames_decoded: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    consumer_errors: int = 0
    reconnects: int = 0
    reanchors: Mapping[str, int] = field(default_factory=dict)
    last_error: str | None = None
    codec: str | None = None
    wh: tuple[int, int] | None = None
    fps_in: float = 0.0
    late_s: float = 0.0
    wall_offset_s: float = 0.0
    no_picture_s: float = 0.0
    ended_early: str | None = None
    live: bool | None = None
    average_fps: float | None = None
