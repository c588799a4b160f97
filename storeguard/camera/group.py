"""Several cameras in one process: their frames go to the detector together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from storeguard.camera.detector_calls import DetectCall, DetectorCalls, FrameResult, LossCause
from storeguard.camera.feeds import FRAMES_A_CALL, GIVE_UP_S, MAX_CALLS, feed_of
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.outbox import ObserveCall, Outbox
from storeguard.camera.pipeline import CameraPipeline, new_epoch
from storeguard.camera.running_camera import RunningCamera
from storeguard.camera.second_stage import ClassifyCall, LabelCall, SecondStage
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock, SystemClock
from storeguard.config.models import AttributeSettings, TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.detector import DetectorInfo
from storeguard.errors import NotFoundError
from storeguard.events.commands import RecordCommand
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.recorder import RecordingPlace
from storeguard.rules.verdict import Heartbeat, Verdict
from storeguard.video.frame import Frame
from storeguard.video.jpeg import encode_jpeg

_log = logging.getLogger(__name__)

_LAST_VERDICTS_S = 1.0
_PICTURE_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """Times and numbers that a group keeps to.

    Attributes:
        gather_s: after a frame arrives, wait this long for those of other cameras, if any may come.
        max_calls: detector calls under way at once.
        call_timeout_s: a detector call that takes longer is abandoned: frames of live cameras are
            lost, those of files at full pace are retried.
        give_up_s: a file's frame that the detector has failed to answer for so long is lost.
        recorder_retry_s: between two attempts to open a recorder that could not be opened.
    """

    gather_s: float = 0.01
    max_calls: int = MAX_CALLS
    call_timeout_s: float = 10.0
    give_up_s: float = GIVE_UP_S
    recorder_retry_s: float = 10.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """Frames of one camera in a detector call."""

    camera: RunningCamera
    frames: list[Frame]


class CameraGroup:
    """Runs cameras in one event loop: gathers their frames, calls the detector, distributes.

    Each camera has a feed (see `feeds`) that decides which of its frames may go and in which order
    their results are processed. The group takes frames that are ready from all feeds, sends them
    in one call, and gives each feed its results back; nothing here depends on the kind of feed.

    Args:
        info: the detector's input size and the way frames are fitted into it.
        detect: one detector call for frames of several cameras.
        observe: delivers observations to the rules.
        tracker: settings of the tracker.
        recording: where cameras record to; None records nothing.
        classify: one call of the clip classifier for people of one camera; None leaves
            `shoplifting_suspected` rules without scores.
        attributes: attributes that are predicted for people.
        label: one call of an attribute's classifier; None predicts none.
        clock: time, injected.
        limits: times and numbers to keep to.
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
        limits: GroupLimits | None = None,
    ) -> None:
        self._tracker = tracker
        self._recording = recording
        self._attributes = tuple(attributes)
        self._clock = clock or SystemClock()
        self._limits = limits or GroupLimits()
        self._cameras: dict[str, RunningCamera] = {}
        self._leaving: dict[str, RunningCamera] = {}
        self._changing = asyncio.Lock()
        self._outbox = Outbox(observe, self._on_verdict, heartbeats=self._heartbeats)
        self._free_calls = asyncio.Semaphore(self._limits.max_calls)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        self._detector = DetectorCalls(
            info, detect, pool=self._pool, timeout_s=self._limits.call_timeout_s
        )
        self._second_stage = SecondStage(
            self._pool, classify=classify, label=label, timeout_s=self._limits.call_timeout_s
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to send frames to the detector and observations to the rules."""
        self._spawn(self._dispatch())
        self._spawn(self._outbox.run())

    async def stop(self, *, flush_s: float = 5.0) -> None:
        """Stop all cameras, deliver the observations that are left, and end."""
        await self.remove(list(self._cameras))
        await self._outbox.flush(flush_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._second_stage.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ cameras

    async def set_cameras(self, cameras: Iterable[CameraConfig]) -> None:
        """Run exactly these cameras: stop others, start new ones, change what has changed."""
        requested = {camera.id: camera for camera in cameras}
        async with self._changing:
            await self.remove([name for name in self._cameras if name not in requested])
            for camera in requested.values():
                await (self.update(camera) if camera.id in self._cameras else self.add(camera))

    async def add(self, camera: CameraConfig) -> None:
        """Start a camera; one with the same id is replaced."""
        await self.remove([camera.id])
        feed = feed_of(
            camera,
            wake=self._wake_from_thread,
            now_s=self._loop.time,
            max_calls=self._limits.max_calls,
            give_up_s=self._limits.give_up_s,
        )
        pipeline = CameraPipeline(
            camera,
            self._tracker,
            self._attributes,
            feed=feed,
            epoch=new_epoch(self._clock.now()),
            clock=self._clock,
        )
        running = RunningCamera(pipeline, recording=self._recording, clock=self._clock)
        await running.start()
        self._cameras[camera.id] = running
        if running.lacks_recorder:
            self._spawn(running.retry_recorder(self._limits.recorder_retry_s))

    async def update(self, camera: CameraConfig) -> None:
        """Use new settings. Only a change of how its video is read interrupts the camera."""
        running = self._camera(camera.id)
        if running.pipeline.needs_restart(camera):
            await self.add(camera)
        else:
            running.reconfigure(camera)

    async def remove(self, camera_ids: Iterable[str]) -> None:
        """Stop cameras; unknown ids are ignored."""
        leaving = {name: self._cameras.pop(name) for name in camera_ids if name in self._cameras}
        if not leaving:
            return
        for camera in leaving.values():
            camera.leave()
        # The verdict on the last frames may be an event whose video is to be recorded.
        self._leaving.update(leaving)
        await asyncio.gather(*(asyncio.to_thread(one.stop_reading) for one in leaving.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_VERDICTS_S):
                while any(_has_frames_under_way(one) for one in leaving.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await self._outbox.flush(_LAST_VERDICTS_S)
        for name in leaving:
            self._leaving.pop(name)
        await asyncio.gather(*(asyncio.to_thread(one.finish_recording) for one in leaving.values()))

    def statuses(self) -> list[CameraStatus]:
        """The state and counters of each camera."""
        return [camera.status() for camera in self._cameras.values()]

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        """The last processed frame as JPEG.

        Args:
            camera_id: the camera.
            query: which picture, and how long to wait for it.

        Returns:
            None if there was no such picture in time.

        Raises:
            NotFoundError: the group has no such camera.
        """
        until_s = self._loop.time() + query.wait_s
        while True:
            pipeline = self._camera(camera_id).pipeline
            captured_at = pipeline.last_captured_at()
            if captured_at is not None and query.admits(captured_at):
                break
            if self._loop.time() >= until_s:
                return None
            await asyncio.sleep(_PICTURE_POLL_S)

        def render() -> bytes | None:
            rgb = pipeline.picture() if query.overlay else pipeline.still()
            return None if rgb is None else encode_jpeg(rgb)

        jpeg = await self._loop.run_in_executor(self._pool, render)
        return None if jpeg is None else LivePicture(jpeg, captured_at)

    async def record(self, camera_id: str, command: RecordCommand) -> RecordingAnswer:
        """Carry out a command to record.

        Raises:
            NotFoundError: the group has no such camera.
            QueryError: the span is not possible.
            RecordingError: the camera cannot record, or has nothing to stop.
        """
        return await asyncio.to_thread(self._camera(camera_id).record, command)

    def _camera(self, camera_id: str) -> RunningCamera:
        try:
            return self._cameras[camera_id]
        except KeyError:
            raise NotFoundError(f"camera {camera_id!r} is not in this group") from None

    def _heartbeats(self) -> list[Heartbeat]:
        cameras = {**self._leaving, **self._cameras}
        return [camera.heartbeat() for camera in cameras.values()]

    def _on_verdict(self, verdict: Verdict) -> None:
        camera = self._cameras.get(verdict.camera_id) or self._leaving.get(verdict.camera_id)
        if camera is not None:
            camera.judged(verdict)

    # ------------------------------------------------------------------ frames

    async def _dispatch(self) -> None:
        while True:
            await self._wake.wait()
            if self._more_may_come():
                await asyncio.sleep(self._limits.gather_s)
            await self._free_calls.acquire()
            self._wake.clear()
            if taken := self._gather():
                self._spawn(self._call(taken))
            else:
                self._free_calls.release()

    def _more_may_come(self) -> bool:
        """Whether a camera could still add a frame to the next call."""
        most = self._most_a_call()
        feeds = [camera.pipeline.feed for camera in self._cameras.values()]
        return any(feed.ready() < min(feed.room(), most) for feed in feeds)

    def _most_a_call(self) -> int:
        """Frames of one camera in a call: the cameras that may send several share them out."""
        rooms = [camera.pipeline.feed.room() for camera in self._cameras.values()]
        return max(1, FRAMES_A_CALL // max(1, sum(room > 1 for room in rooms)))

    def _gather(self) -> list[_Taken]:
        """Take the frames for one call, from all cameras."""
        most = self._most_a_call()
        taken = [_Taken(one, one.pipeline.feed.take(most)) for one in self._cameras.values()]
        return [one for one in taken if one.frames]

    async def _call(self, taken: Sequence[_Taken]) -> None:
        try:
            results = await self._detector.results([f for one in taken for f in one.frames])
        finally:
            self._free_calls.release()
        # All at once, so that these cameras can send their next frames in one call too.
        left = iter(results)
        for one in taken:
            self._distribute(one.camera, list(islice(left, len(one.frames))))

    def _distribute(self, camera: RunningCamera, results: Sequence[FrameResult]) -> None:
        for result in camera.pipeline.feed.answer(results):
            try:
                self._process(camera, result)
            except Exception:  # noqa: BLE001 - one frame's fault must not cost the others
                _log.exception("camera %r: a frame could not be processed", result.frame.camera_id)
                camera.pipeline.lose(result.frame, LossCause.DETECTOR_ERROR)

    def _process(self, camera: RunningCamera, result: FrameResult) -> None:
        observation = camera.pipeline.process(result)
        if observation is not None:
            camera.seen(result.frame, observation)
            self._outbox.put(observation)
            self._second_stage.start_due(camera.pipeline)

    def _wake_from_thread(self, after_s: float) -> None:
        wake = self._wake.set

        def wake_later() -> None:
            self._loop.call_later(after_s, wake)

        try:
            self._loop.call_soon_threadsafe(wake_later if after_s else wake)
        except RuntimeError:  # the loop closed while a reader was still stopping
            _log.debug("a frame arrived after the group's end")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_frames_under_way(camera: RunningCamera) -> bool:
    return camera.pipeline.feed.stats().under_way > 0
