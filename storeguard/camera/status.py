"""The state and counters of a camera, as the API and the live table show them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from storeguard.events.event import Moment


class CameraState(StrEnum):
    """What a camera is doing, judged by the pictures in which people are looked for."""

    CONNECTING = "connecting"
    PLAYING = "playing"
    NO_PICTURE = "no_picture"
    """Video arrives, but no picture could be decoded for `read_timeout_s`."""
    STARVING = "starving"
    """It sends too few pictures: for 10 s, fewer than half the requested ones were processed."""
    OVERLOADED = "overloaded"
    """It sends enough pictures; fewer than half the requested ones were processed for 10 s."""
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"
    DISABLED = "disabled"


_WELL: Final = frozenset({CameraState.PLAYING, CameraState.DISABLED})


class CameraStatus(BaseModel):
    """One camera's state and counters since its start.

    Attributes:
        source: its address, credentials hidden.
        state_reason: why the state is a fault, where the state alone does not say it: for
            `no_picture`, `starving` and `overloaded`, and for the `ended` of a source that was
            meant to last. None otherwise.
        fps_in: frames a second arriving, over the last seconds; fps_processed: frames a second
            that went through detection, tracking and rules. None before the first frame.
        frames_in: frames read from the source; frames_decoded: of these, decoded; frames_sampled:
            of these, picked at `detect_fps`; frames_processed: of these, detected and followed.
        dropped: frames lost on that way, by cause; a frame that is not picked is not lost.
        clips_judged: clips that the clip classifier has scored; looks_taken: crops that attribute
            classifiers have labelled.
        recording: whether a clip is being written now; clips: files finished.
        recording_paused: whether nothing is recorded because the disk is nearly full.
        recording_error: why recording does not work; None if it does.
        latency_ms: median milliseconds by step over the last frames; None where not measured.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    state: CameraState
    state_reason: str | None = None
    enabled: bool = True
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    detect_fps: float | None = None
    fps_in: float | None = None
    fps_processed: float | None = None
    frames_in: int = 0
    frames_decoded: int = 0
    frames_sampled: int = 0
    frames_processed: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    people_in_view: int = 0
    num_events: int = 0
    clips_judged: int = 0
    looks_taken: int = 0
    reconnects: int = 0
    last_error: str | None = None
    last_frame_at: Moment | None = None
    recording: bool = False
    clips: int = 0
    recording_paused: bool = False
    recording_error: str | None = None
    latency_ms: dict[str, float | None] = Field(default_factory=dict)

    @property
    def fault(self) -> str | None:
        """The state and its reason if the camera is not watched as it should be; None if it is."""
        if self.state in _WELL or (self.state is CameraState.ENDED and self.state_reason is None):
            return None
        return f"{self.state} ({self.state_reason})" if self.state_reason else str(self.state)
