"""The thread that owns one camera's recording, and its mailbox."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from storeguard.clock import Clock, SystemClock
from storeguard.config.store import CameraConfig
from storeguard.errors import RecordingError
from storeguard.events.commands import RecordCommand
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.messages import Command, FrameSeen, Message, Reconfigure, Stop, Tick
from storeguard.recording.recorder import Recorder, RecordingPlace, RecordingState
from storeguard.recording.recovery import recover
from storeguard.recording.spool import Spool, key_prefix
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket

_log = logging.getLogger(__name__)

_MAX_FRAMES: Final = 8
_MAX_COMMANDS: Final = 16


@dataclass(frozen=True, slots=True)
class RecorderTiming:
    """Seconds that a recorder's thread waits.

    Attributes:
        tick_s: between two rounds while nothing is recorded.
        write_s: between two rounds of writing; woken for each packet, a recorder costs three times
            as much. What waits meanwhile is in the ring.
        answer_s: for the answer to a command.
        close_s: for the last packets on a slow disk; the thread then goes on by itself.
        take_over_s: for another recorder of the folder that is still finishing.
    """

    tick_s: float = 1.0
    write_s: float = 0.4
    answer_s: float = 15.0
    close_s: float = 40.0
    take_over_s: float = 5.0


class Mailbox:
    """What waits for a recorder. Thread-safe.

    Bounded: of verdicts only the newest stays, because it brings all changes since the recorder's
    cursor; of frames the newest `_MAX_FRAMES`, which the event's pictures are chosen from; commands
    past `_MAX_COMMANDS` are refused; of settings only the newest stay.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: deque[FrameSeen] = deque(maxlen=_MAX_FRAMES)
        self._verdict: Verdict | None = None
        self._commands: deque[Command] = deque()
        self._settings: Reconfigure | None = None
        self._stopped = False
        self._is_urgent = False

    def put(self, message: Message) -> bool:
        """Add a message; False if it was refused."""
        with self._changed:
            if self._stopped:
                return False
            match message:
                case FrameSeen():
                    self._frames.append(message)
                    self._is_urgent |= len(self._frames) >= _MAX_FRAMES // 2
                case Verdict():
                    self._verdict, self._is_urgent = message, True
                case Command():
                    if len(self._commands) >= _MAX_COMMANDS:
                        return False
                    self._commands.append(message)
                    self._is_urgent = True
                case Reconfigure():
                    self._settings, self._is_urgent = message, True
                case Stop():
                    self._stopped = self._is_urgent = True
                case Tick():
                    self._is_urgent = True
            if self._is_urgent:
                self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> list[Message]:
        """All that waits, frames first; a `Tick` alone when nothing comes in time.

        Args:
            timeout_s: how long to wait; 0 does not wait.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_urgent, timeout_s)
            messages: list[Message] = [*self._frames]
            if self._settings is not None:
                messages.append(self._settings)
            if self._verdict is not None:
                messages.append(self._verdict)
            messages += self._commands
            messages.append(Stop() if self._stopped else Tick())
            self._frames.clear()
            self._commands.clear()
            self._verdict = self._settings = None
            self._is_urgent = False
            return messages


class RecorderThread:
    """A `Recorder` and the one thread that steps it. Thread-safe.

    No method but `command` and `close` waits for the disk.

    Args:
        camera: its settings; `smart_record` is not `off`.
        place: where to record to.
        clock: the recorder's.
        timing: how long to wait for what.

    Raises:
        RecordingError: the spool folder cannot be used, or another recorder still writes there.
    """

    def __init__(
        self,
        camera: CameraConfig,
        place: RecordingPlace,
        *,
        clock: Clock | None = None,
        timing: RecorderTiming = RecorderTiming(),
    ) -> None:
        self._camera_id = camera.id
        self._timing = timing
        self._mailbox = Mailbox()
        self._lock = ExitStack()
        folder = place.root / camera.id
        prefix = key_prefix(place.store_id, camera.id, camera.recording.folder)
        try:
            spool = Spool(folder, prefix=prefix)
            locked = self._lock.enter_context(spool.writing(within_s=timing.take_over_s))
            if not locked:
                raise RecordingError(
                    f"camera {camera.id!r}: another recorder still writes in {folder}"
                )
            checkpoint = recover(spool, goes_on=True)
            self._recorder = Recorder(
                camera, place, spool=spool, checkpoint=checkpoint, clock=clock or SystemClock()
            )
        except OSError as error:
            self._lock.close()
            if isinstance(error, RecordingError):
                raise
            raise RecordingError(f"camera {camera.id!r}: spool {folder}: {error}") from error
        self._thread = threading.Thread(
            target=self._run, name=f"camera-{camera.id}-recorder", daemon=True
        )
        self._thread.start()

    def on_packet(self, packet: EncodedPacket) -> None:
        """Remember a packet. Called on the reading thread."""
        self._recorder.ring.append(packet)

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Send a processed frame; for the events' pictures."""
        self._mailbox.put(FrameSeen(frame, observation))

    def judged(self, verdict: Verdict) -> None:
        """Send the rules' answer if it brings changes, or is of another journal."""
        batch, cursor = verdict.changes, self.state().cursor
        if batch is None:
            return
        if batch.changes or cursor is None or cursor.journal_id != batch.journal_id:
            self._mailbox.put(verdict)

    def reconfigure(self, camera: CameraConfig) -> None:
        """Go on with other zones and rules."""
        self._mailbox.put(Reconfigure(camera))

    def state(self) -> RecordingState:
        """How it is doing, and how far it has read the event journal."""
        return self._recorder.state

    def command(self, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command; the recordings it starts are events of type `manual`.

        Raises:
            QueryError: the span is not possible.
            RecordingError: it is paused, there is no video yet, nothing to stop, or no answer in
                time.
        """
        answer: Future[RecordingAnswer] = Future()
        if not self._mailbox.put(Command(command, answer)):
            raise RecordingError(f"camera {self._camera_id!r}: its recorder takes no commands now")
        try:
            return answer.result(self._timing.answer_s)
        except TimeoutError:
            raise RecordingError(
                f"camera {self._camera_id!r}: its recorder has not answered for "
                f"{self._timing.answer_s:.0f} s, its disk is slow; the command may still be done"
            ) from None

    def close(self) -> None:
        """Finish what is being written and end the thread.

        On a slow disk the thread goes on by itself, and keeps the folder's lock until it is done.
        """
        self._mailbox.put(Stop())
        self._thread.join(self._timing.close_s)
        if self._thread.is_alive():
            _log.error("camera %r: a clip is not finished yet, its disk is slow", self._camera_id)

    def _run(self) -> None:
        timeout_s, stopping = 0.0, False
        try:
            while not stopping:
                for message in self._mailbox.take(timeout_s):
                    stopping = isinstance(message, Stop)
                    more = self._step(message)
                    is_recording = self._recorder.state.recording
                    timeout_s = self._timing.write_s if is_recording else self._timing.tick_s
                    timeout_s = 0.0 if more else timeout_s
        finally:
            self._lock.close()

    def _step(self, message: Message) -> bool:
        try:
            return self._recorder.step(message)
        except Exception as error:  # noqa: BLE001 - one event must not end all recording
            _log.exception("camera %r: the recorder's step failed", self._camera_id)
            if isinstance(message, Command) and not message.answer.done():
                message.answer.set_exception(RecordingError(f"it failed: {error!r}"))
            return False
