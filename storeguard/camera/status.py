"""The state and counters of a camera, as the API and the live table show them."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from storeguard.events.event import Moment


class CameraState(StrEnum):
    """What a camera's reader is doing."""

    CONNECTING = "connecting"
    PLAYING = "playing"
    RECONNECTING = "reconnecting"
    ENDED = "ended"
    FAILED = "failed"
    STOPPED = "stopped"
    DISABLED = "disabled"


class CameraStatus(BaseModel):
    """One camera's state and counters since its start.

    Attributes:
        source: its address, credentials hidden.
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
