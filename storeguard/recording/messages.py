"""The messages to one camera's recorder."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from storeguard.config.store import CameraConfig
from storeguard.events.commands import RecordCommand
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; packets may have come."""


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A processed frame and the people in it."""

    frame: Frame
    observation: Observation


@dataclass(frozen=True, slots=True)
class Command:
    """A command to record; its answer, or a StoreguardError, goes into `answer`."""

    command: RecordCommand
    answer: Future[RecordingAnswer]


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Other zones and rules."""

    camera: CameraConfig


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is being recorded."""


Message = Verdict | FrameSeen | Command | Reconfigure | Tick | Stop
