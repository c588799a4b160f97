"""Several cameras in one process: their frames go to the detector together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from storeguard.camera.outbox import ObserveCall, Outbox
from storeguard.camera.overlay import encode_jpeg
from storeguard.camera.pipeline import FAST_FRAMES, MAX_CALLS, CameraPipeline, new_epoch
from storeguard.camera.second_stage import ClassifyCall, LabelCall, SecondStage
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock, SystemClock
from storeguard.config.models import AttributeSettings, TrackerSettings
from storeguard.config.store import CameraConfig, Pace, SmartRecord
from storeguard.detection.detector import DetectorInfo
from storeguard.detection.letterbox import Fit, place
from storeguard.detection.service import Found, FrameBatch
from storeguard.errors import NotFoundError, RecordingError
from storeguard.events.commands import RecordCommand
from storeguard.recording.camera_recorder import CameraRecorder, RecordingPlace
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader

_log = logging.getLogger(__name__)

_LAST_VERDICTS_S = 1.0
_AGAIN_S = 0.2
_EQUIP_S = 10.0

DetectCall = Callable[[FrameBatch], Awaitable[Sequence[Found]]]


@dataclass(slots=True)
class _Member:
    pipeline: CameraPipeline
    reader: CameraReader
    recorder: CameraRecorder | None
    fault: str | None = None
    """Why there is no recorder though one is wanted."""
    last_share: asyncio.Event | None = None
    """Set once its frames in the latest detector call are through."""

    def finish_recording(self) -> None:
        """Finish what is being recorded."""
        if self.recorder is not None:
            self.recorder.close()

    def status(self) -> CameraStatus:
        """Its counters, those of the reader and of the recorder."""
        status = self.pipeline.status(self.reader.stats(), all_decoded=self.reader.join(0))
        if self.recorder is None:
            return status.model_copy(update={"recording_error": self.fault})
        state = self.recorder.state()
        return status.model_copy(
            update={
                "recording": state.recording,
                "clips": state.clips,
                "recording_paused": state.paused,
                "recording_error": state.error,
            }
        )


class _Share:
    """Frames of one camera in a detector call.

    Args:
        pipeline: the camera's.
        frames: in order.
        before: set once its share in the call before is through.
    """

    def __init__(
        self, pipeline: CameraPipeline, frames: list[Frame], *, before: asyncio.Event | None
    ) -> None:
        self.pipeline = pipeline
        self.frames = frames
        self.fits: list[Fit | None] = [None] * len(frames)
        self.is_rendered = False
        self.found: list[Found | None] = [None] * len(frames)
        self.done = asyncio.Event()
        self._before = before

    @property
    def is_next(self) -> bool:
        """Whether all earlier frames of the camera are through."""
        return self._before is None or self._before.is_set()

    async def turn(self) -> None:
        """Wait until they are."""
        if self._before is not None:
            await self._before.wait()

    def end(self) -> None:
        """These are through."""
        if not self.done.is_set():
            self.done.set()
            self.pipeline.on_their_way -= len(self.frames)


class CameraGroup:
    """Runs cameras in one event loop: reads, samples, detects, follows, reports.

    The group has at most `max_calls` detector calls under way. Each camera's answers are taken in
    the order of the calls, whatever becomes of the others', so its frames stay in order. A live
    camera has at most one frame on its way, so that the next is fresh; a file at full pace has some
    in each call, and whatever of it is refused, fails or hangs goes again (see `Again`). What
    arrives meanwhile waits in the cameras' latest-wins slots and goes out together.

    Args:
        info: what pictures the detector wants.
        detect: one detector call for frames of several cameras.
        observe: hands observations to the rules.
        tracker: how people are followed.
        recording: where cameras record to; None records nothing.
        classify: one call of the clip classifier for people of one camera; None leaves
            `shoplifting_suspected` rules without scores.
        attributes: what is told of people besides; label: one call of an attribute's classifier.
        clock: time, injected.
        gather_s: after a frame arrives, wait this long for those of other cameras, if any may come.
        max_calls: detector calls under way at once.
        call_timeout_s: a detector call that takes longer is given up, its frames counted lost;
            those of files at full pace go again.
    """

    def __init__(
        self,
        *,
        info: DetectorInfo,
        detect: DetectCall,
        observe: ObserveCall,
        tracker: TrackerSettings,
        recording: RecordingPlace | None = None,
        classify: ClassifyCall | None = None,
        attributes: Sequence[AttributeSettings] = (),
        label: LabelCall | None = None,
        clock: Clock | None = None,
        gather_s: float = 0.01,
        max_calls: int = MAX_CALLS,
        call_timeout_s: float = 10.0,
    ) -> None:
        self._info = info
        self._detect = detect
        self._tracker = tracker
        self._recording = recording
        self._attributes = tuple(attributes)
        self._clock = clock or SystemClock()
        self._gather_s = gather_s
        self._call_timeout_s = call_timeout_s
        self._members: dict[str, _Member] = {}
        self._leaving: dict[str, _Member] = {}
        self._changing = asyncio.Lock()
        self._outbox = Outbox(observe, self._on_verdict)
        self._max_calls = max_calls
        self._slots = asyncio.Semaphore(max_calls)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        self._second_stage = SecondStage(
            self._pool, classify=classify, label=label, timeout_s=call_timeout_s
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to dispatch frames and to deliver observations."""
        for work in (self._dispatch(), self._outbox.run()):
            self._spawn(work)

    async def stop(self, *, flush_s: float = 5.0) -> None:
        """Stop all cameras, deliver what is left, and end."""
        await self.remove(list(self._members))
        await self._outbox.flush(flush_s)
        await self._second_stage.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def add(self, camera: CameraConfig) -> None:
        """Start a camera; one with the same id is replaced."""
        await self.remove([camera.id])
        pipeline = CameraPipeline(
            camera,
            self._tracker,
            self._attributes,
            epoch=new_epoch(self._clock.now()),
            clock=self._clock,
            wake=self._wake_from_thread,
        )
        recorder, fault = await asyncio.to_thread(self._recorder_of, camera)
        recorded = recorder is not None or fault is not None

        def on_packet(packet: EncodedPacket) -> None:
            if member.recorder is not None:
                member.recorder.on_packet(packet)

        reader = CameraReader(
            camera,
            clock=self._clock,
            on_frame=pipeline.offer,
            on_packet=on_packet if recorded else None,
        )
        member = self._members[camera.id] = _Member(pipeline, reader, recorder, fault)
        reader.start()
        if fault is not None:
            self._spawn(self._equip(member))

    async def _equip(self, member: _Member) -> None:
        """Try again for a recorder that could not be had, until the camera goes."""
        camera = member.pipeline.camera
        while member.recorder is None:
            await asyncio.sleep(_EQUIP_S)
            recorder, member.fault = await asyncio.to_thread(self._recorder_of, camera)
            if self._members.get(camera.id) is not member:
                if recorder is not None:
                    await asyncio.to_thread(recorder.close)
                return
            if recorder is not None:
                recorder.reconfigure(member.pipeline.camera)  # it may have changed meanwhile
                member.recorder = recorder

    async def set_cameras(self, cameras: Iterable[CameraConfig]) -> None:
        """Run exactly these cameras: stop others, start new ones, change what has changed."""
        wanted = {camera.id: camera for camera in cameras}
        async with self._changing:
            await self.remove([name for name in self._members if name not in wanted])
            for camera in wanted.values():
                await (self.update(camera) if camera.id in self._members else self.add(camera))

    async def update(self, camera: CameraConfig) -> None:
        """Take new settings. Only a change of how its video is read interrupts the camera."""
        member = self._member(camera.id)
        if member.pipeline.needs_restart(camera):
            await self.add(camera)
        else:
            member.pipeline.reconfigure(camera)
            if member.recorder is not None:
                member.recorder.reconfigure(camera)

    async def remove(self, camera_ids: Iterable[str]) -> None:
        """Stop cameras; unknown ids are passed over."""
        gone = {name: self._members.pop(name) for name in camera_ids if name in self._members}
        if not gone:
            return
        for member in gone.values():
            member.pipeline.close()
        # What the rules say about the last pictures seen may be an event that wants its video.
        self._leaving.update(gone)
        await asyncio.gather(*(asyncio.to_thread(one.reader.stop) for one in gone.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_VERDICTS_S):
                while any(one.pipeline.on_their_way for one in gone.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await self._outbox.flush(_LAST_VERDICTS_S)
        for name in gone:
            self._leaving.pop(name)
        await asyncio.gather(*(asyncio.to_thread(one.finish_recording) for one in gone.values()))

    def statuses(self) -> list[CameraStatus]:
        """How each camera is doing."""
        return [member.status() for member in self._members.values()]

    async def jpeg(self, camera_id: str, *, overlay: bool = True) -> bytes | None:
        """The last processed frame as JPEG; None before the first.

        Raises:
            NotFoundError: the group has no such camera.
        """
        pipeline = self._member(camera_id).pipeline

        def render() -> bytes | None:
            rgb = pipeline.picture() if overlay else pipeline.still()
            return None if rgb is None else encode_jpeg(rgb)

        return await self._loop.run_in_executor(self._pool, render)

    async def record(self, camera_id: str, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record.

        Raises:
            NotFoundError: the group has no such camera.
            QueryError: the span is not possible.
            RecordingError: the camera cannot record, or has nothing to stop.
        """
        member = self._member(camera_id)
        if member.recorder is None:
            why = member.fault or "its recording.smart_record is off"
            raise RecordingError(f"camera {camera_id!r} does not record: {why}")
        return await asyncio.to_thread(member.recorder.command, command)

    def _recorder_of(self, camera: CameraConfig) -> tuple[CameraRecorder | None, str | None]:
        if self._recording is None or camera.recording.smart_record is SmartRecord.OFF:
            return None, None
        try:
            return CameraRecorder(camera, self._recording, clock=self._clock), None
        except RecordingError as error:  # it is watched all the same
            _log.error("%s", error)
            return None, str(error)

    def _member(self, camera_id: str) -> _Member:
        try:
            return self._members[camera_id]
        except KeyError:
            raise NotFoundError(f"camera {camera_id!r} is not in this group") from None

    def _on_verdict(self, verdict: Verdict) -> None:
        member = self._members.get(verdict.camera_id) or self._leaving.get(verdict.camera_id)
        if member is not None:
            member.pipeline.judged(verdict)
            if member.recorder is not None:
                member.recorder.judged(verdict)

    def _wake_from_thread(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop closed while a reader was still stopping
            _log.debug("a frame arrived after the group's end")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            if self._more_may_come():
                await asyncio.sleep(self._gather_s)
            await self._slots.acquire()
            self._wake.clear()
            shares = self._take_newest()
            if not shares:
                self._slots.release()
                continue
            self._spawn(self._process(shares))

    def _more_may_come(self) -> bool:
        """Whether a camera could still send a frame along."""
        return any(
            self._has_room(member.pipeline)
            and member.pipeline.waiting < self._frames_a_call(member)
            for member in self._members.values()
        )

    def _frames_a_call(self, member: _Member) -> int:
        """How many of a camera's frames may go in one call."""
        if member.pipeline.camera.pace is not Pace.FAST:
            return 1
        fast = sum(one.pipeline.camera.pace is Pace.FAST for one in self._members.values())
        return max(1, min(FAST_FRAMES // fast, member.pipeline.again.window))

    def _has_room(self, pipeline: CameraPipeline) -> bool:
        if pipeline.camera.pace is not Pace.FAST:
            return pipeline.on_their_way < 1
        again = pipeline.again
        most = min(self._max_calls * FAST_FRAMES, again.window)
        return pipeline.on_their_way < most and not again.paused(self._loop.time())

    def _take_newest(self) -> list[_Share]:
        shares = []
        for member in self._members.values():
            pipeline, frames = member.pipeline, list[Frame]()
            while len(frames) < self._frames_a_call(member) and self._has_room(pipeline):
                if (frame := pipeline.take()) is None:
                    break
                pipeline.on_their_way += 1
                frames.append(frame)
            if frames:
                shares.append(_Share(pipeline, frames, before=member.last_share))
                member.last_share = shares[-1].done
        return shares

    async def _process(self, shares: list[_Share]) -> None:
        try:
            try:
                cause = await self._detect_all(shares)
                # At one go, so that these cameras can send their next frames in one call too.
                for share in shares:
                    if share.is_next:
                        self._take_in(share, cause)
                        self._end(share)
            finally:
                self._slots.release()
            # The others each by itself: nobody waits for the earlier frames of somebody else.
            late = [share for share in shares if not share.done.is_set()]
            await asyncio.gather(*(self._finish(share, cause) for share in late))
        finally:
            for share in shares:
                self._end(share)

    async def _finish(self, share: _Share, cause: str) -> None:
        try:
            await share.turn()
            self._take_in(share, cause)
        finally:
            self._end(share)

    def _end(self, share: _Share) -> None:
        """Its camera may send others."""
        share.end()
        if share.pipeline.waiting:
            self._wake.set()

    async def _detect_all(self, shares: list[_Share]) -> str:
        """Have the frames of a call detected; returns why those are lost that have no answer."""
        try:
            images = await self._loop.run_in_executor(self._pool, self._render, shares)
            names = tuple(one.pipeline.camera.id for one in shares for fit in one.fits if fit)
            if not names:
                return "undecodable"
            batch = FrameBatch(names, images)
            found = await asyncio.wait_for(self._detect(batch), self._call_timeout_s)
            if len(found) != len(names):
                raise ValueError(f"{len(found)} answers to {len(names)} frames")  # noqa: TRY301
        except TimeoutError:
            return "detector_timeout"
        except Exception as error:  # noqa: BLE001 - a replica's death has many names
            cameras = ", ".join(share.pipeline.camera.id for share in shares)
            _log.warning("a detector call failed for %s: %s", cameras, error)
            await asyncio.sleep(_AGAIN_S)  # a dead detector is not hammered
            return "detector_error"
        answers = iter(found)
        for share in shares:
            share.found = [next(answers) if fit else None for fit in share.fits]
        return "detector_full"

    def _take_in(self, share: _Share, cause: str) -> None:
        """Follow whom the detector has found in a camera's frames, in their order."""
        pipeline, now_s = share.pipeline, self._loop.time()
        num_failed = 0
        for frame, where, answer in zip(share.frames, share.fits, share.found, strict=True):
            if where is None and share.is_rendered:  # by its own fault, but in its place
                behind = self._loses_nothing(pipeline) and pipeline.again.is_behind(frame)
                if not (behind and pipeline.again.put(frame, now_s)):
                    pipeline.lose(frame, "undecodable")
                continue
            found = None if answer is None or answer.detections is None else answer
            num_failed += found is None
            if self._loses_nothing(pipeline) and (found is None or pipeline.again.is_behind(frame)):
                if pipeline.again.put(frame, now_s):
                    continue
                found = None  # tried for minutes
            if found is None or where is None:
                pipeline.lose(frame, cause)
            else:
                self._follow(pipeline, frame, where, found)
        if num_failed:
            self._loop.call_later(pipeline.again.back_off(now_s), self._wake.set)
        else:
            pipeline.again.go_on()

    def _follow(self, pipeline: CameraPipeline, frame: Frame, where: Fit, found: Found) -> None:
        try:
            observation = pipeline.accept(frame, where, found)
            if observation is not None:
                self._show(frame, observation)
                self._outbox.put(observation)
                self._second_stage.ask(pipeline)
        except Exception:  # noqa: BLE001 - one frame's fault is not the others'
            _log.exception("camera %r: a frame could not be followed", pipeline.camera.id)
            pipeline.lose(frame, "detector_error")

    def _loses_nothing(self, pipeline: CameraPipeline) -> bool:
        """Whether a camera's frames wait for a detector in trouble: files at full pace."""
        member = self._members.get(pipeline.camera.id)
        here = member is not None and member.pipeline is pipeline
        return here and pipeline.camera.pace is Pace.FAST

    def _show(self, frame: Frame, observation: Observation) -> None:
        member = self._members.get(frame.camera_id)
        if member is not None and member.recorder is not None:
            member.recorder.seen(frame, observation)

    def _render(self, shares: list[_Share]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Frames at the detector's size, without those that cannot be scaled."""
        width, height = self._info.input_wh
        num_frames = sum(len(share.frames) for share in shares)
        images = np.empty((num_frames, height, width, 3), dtype=np.uint8)
        num_scaled = 0
        for share in shares:
            fits: list[Fit | None] = []
            for frame in share.frames:
                try:
                    where = self._info.fit(frame.wh)
                    place(frame, where, images[num_scaled])
                except Exception:  # noqa: BLE001 - one frame's fault is not the others'
                    _log.exception("camera %r: a frame cannot be scaled", frame.camera_id)
                    fits.append(None)
                else:
                    fits.append(where)
                    num_scaled += 1
            share.fits, share.is_rendered = fits, True
        return images[:num_scaled]
