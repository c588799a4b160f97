"""One camera that runs: its reader, its pipeline and its recorder."""

from __future__ import annotations

import asyncio
import logging

from storeguard.camera.pipeline import CameraPipeline
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock
from storeguard.config.store import CameraConfig, SmartRecord
from storeguard.errors import RecordingError
from storeguard.events.commands import RecordCommand
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.recorder import RecordingPlace
from storeguard.recording.recorder_thread import RecorderThread
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader

_log = logging.getLogger(__name__)


class RunningCamera:
    """Reads a camera into its pipeline, and records it if its settings say so.

    A recorder that cannot be opened (another process still writes there, the disk is full) costs
    the camera nothing but its recordings; `retry_recorder` opens it later.

    Args:
        pipeline: the camera's; frames are offered to it.
        recording: where the camera records to; None records nothing.
        clock: time, injected.
    """

    def __init__(
        self, pipeline: CameraPipeline, *, recording: RecordingPlace | None, clock: Clock
    ) -> None:
        camera = pipeline.camera
        self.pipeline = pipeline
        self.recorder: RecorderThread | None = None
        self._place = None if camera.recording.smart_record is SmartRecord.OFF else recording
        self._clock = clock
        self._recording_error: str | None = None
        self._is_leaving = False
        self._reader = CameraReader(
            camera,
            clock=clock,
            on_frame=pipeline.offer,
            on_packet=None if self._place is None else self._on_packet,
        )

    @property
    def camera(self) -> CameraConfig:
        """Its settings."""
        return self.pipeline.camera

    @property
    def lacks_recorder(self) -> bool:
        """Whether it should record and cannot yet."""
        return self._place is not None and self.recorder is None

    async def start(self) -> None:
        """Open the recorder, then begin to read."""
        self.recorder = await asyncio.to_thread(self._opened_recorder)
        self._reader.start()

    async def retry_recorder(self, every_s: float) -> None:
        """Try to open the recorder until it works or the camera leaves."""
        while self.lacks_recorder:
            await asyncio.sleep(every_s)
            recorder = await asyncio.to_thread(self._opened_recorder)
            if self._is_leaving:
                if recorder is not None:
                    await asyncio.to_thread(recorder.close)
                return
            if recorder is not None:
                recorder.reconfigure(self.camera)  # the settings may have changed meanwhile
                self.recorder = recorder

    def reconfigure(self, camera: CameraConfig) -> None:
        """Use settings that do not change how the video is read."""
        self.pipeline.reconfigure(camera)
        if self.recorder is not None:
            self.recorder.reconfigure(camera)

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Give the recorder a processed frame, for the snapshots of events."""
        if self.recorder is not None and not self._is_leaving:
            self.recorder.seen(frame, observation)

    def heartbeat(self) -> Heartbeat:
        """What to request of the rules now."""
        by_events = self.camera.recording.smart_record is SmartRecord.EVENTS
        recorder = self.recorder if by_events else None
        return Heartbeat(
            self.camera.id,
            reads_changes=recorder is not None,
            cursor=None if recorder is None else recorder.state().cursor,
            is_waiting=self.pipeline.feed.holds_source and not self._reader.join(0),
        )

    def judged(self, verdict: Verdict) -> None:
        """Give the pipeline and the recorder a verdict of the rules."""
        self.pipeline.judged(verdict)
        if self.recorder is not None:
            self.recorder.judged(verdict)

    def record(self, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record. Blocks.

        Raises:
            QueryError: the span is not possible.
            RecordingError: the camera cannot record, or has nothing to stop.
        """
        if self.recorder is None:
            why = self._recording_error or "its recording.smart_record is off"
            raise RecordingError(f"camera {self.camera.id!r} does not record: {why}")
        return self.recorder.command(command)

    def status(self) -> CameraStatus:
        """Counters of the pipeline, the reader and the recorder."""
        status = self.pipeline.status(self._reader.stats(), all_decoded=self._reader.join(0))
        if self.recorder is None:
            return status.model_copy(update={"recording_error": self._recording_error})
        state = self.recorder.state()
        return status.model_copy(
            update={
                "recording": state.recording,
                "clips": state.clips,
                "recording_paused": state.paused,
                "recording_error": state.error,
            }
        )

    def leave(self) -> None:
        """Accept no more frames; what is under way is still processed."""
        self._is_leaving = True
        self.pipeline.close()

    def stop_reading(self) -> None:
        """Stop the reader. Blocks."""
        self._reader.stop()

    def finish_recording(self) -> None:
        """Finish the files that are being recorded. Blocks."""
        if self.recorder is not None:
            self.recorder.close()

    def _on_packet(self, packet: EncodedPacket) -> None:
        if self.recorder is not None:
            self.recorder.on_packet(packet)

    def _opened_recorder(self) -> RecorderThread | None:
        if self._place is None or self._is_leaving:
            return None
        try:
            recorder = RecorderThread(self.camera, self._place, clock=self._clock)
        except RecordingError as error:  # the camera is watched all the same
            _log.error("%s", error)
            self._recording_error = str(error)
            return None
        self._recording_error = None
        return recorder
