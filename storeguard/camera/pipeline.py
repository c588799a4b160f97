"""One camera's way from decoded frames to observations of people."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np

from storeguard.camera.again import Again
from storeguard.camera.latency import LatencyRecorder
from storeguard.camera.overlay import PersonMark, Rgb, Scene, draw
from storeguard.camera.person_attributes import PersonAttributes
from storeguard.camera.person_clips import PersonClips
from storeguard.camera.slot import LatestSlot, Sampler
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.clock import Clock
from storeguard.config.addresses import redact
from storeguard.config.models import AttributeSettings, TrackerSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.detection.detections import Detections
from storeguard.detection.letterbox import Fit
from storeguard.detection.service import Found
from storeguard.events.event import rfc3339
from storeguard.recording.clip_requests import needed_cache_s
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.verdict import Verdict
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame
from storeguard.video.reader import ReaderStats

_RATE_WINDOW_S = 5.0
_MIN_OVERLAY_PX = 288
_MOST_AHEAD_S = 6.0
MAX_CALLS = 3
"""Detector calls that a group of cameras has under way at most."""
FAST_FRAMES = 8
"""Frames of files at full pace in one detector call; a file's that wait at most."""


class CameraPipeline:
    """Takes the newest frame, has people followed, and says who is where.

    `offer` is called by the reader's decode thread, everything else by one other thread.

    Args:
        camera: its settings.
        tracker: how people are followed.
        attributes: what is told of them besides.
        epoch: names this life of the tracker (see `Observation`).
        clock: for rates.
        wake: called, from the decode thread, when a frame is ready to be taken.
    """

    def __init__(
        self,
        camera: CameraConfig,
        tracker: TrackerSettings,
        attributes: Iterable[AttributeSettings] = (),
        *,
        epoch: str,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self.camera = camera
        self.on_their_way = 0
        """Frames of this camera that are on their way through the detector."""
        self.again = Again(_most_under_way(camera))
        """Those that have to go there once more; only of files at full pace."""
        self.clips = PersonClips(camera)
        """What the clip classifier is given."""
        self.attributes = PersonAttributes(camera.id, attributes, forget_s=tracker.max_lost_s)
        """What attribute classifiers are given, and have said."""
        self._tracker = Tracker(tracker)
        self._epoch = epoch
        self._clock = clock
        self._wake = wake
        self._slot: LatestSlot[Frame] = LatestSlot(
            superseded_by=_keeping_the_cut, turns=FAST_FRAMES
        )
        self._sampler = Sampler(camera.detect_fps)
        self._seq = 0
        self._missed_cut = False
        self._sampled = 0
        self._processed = 0
        self._processed_at: deque[float] = deque(maxlen=512)
        self._lost: Counter[str] = Counter()
        self._scores: list[ClipScore] = []
        self._clips_judged = 0
        self._latency = LatencyRecorder(limit=512)
        self._last: tuple[Frame, Observation] | None = None
        self._verdict = Verdict(camera.id)

    def needs_restart(self, camera: CameraConfig) -> bool:
        """Whether these settings change how the video is read, or how much of it is kept."""
        live = {"zones", "person", "detect_fps"}
        if camera.model_dump(exclude=live) != self.camera.model_dump(exclude=live):
            return True
        return needed_cache_s(camera) > needed_cache_s(self.camera)  # a longer pre-roll

    def reconfigure(self, camera: CameraConfig) -> None:
        """Go on with other zones, rules or detection rate; people keep their ids."""
        if camera.detect_fps != self.camera.detect_fps:
            self._sampler = Sampler(camera.detect_fps)
        self.camera = camera
        self.again.limit(_most_under_way(camera))
        self.clips.reconfigure(camera)

    def offer(self, frame: Frame) -> None:
        """Keep a frame if it is due at `detect_fps`, in place of one still waiting.

        At pace `fast` it waits instead until that one was taken: files lose nothing.
        """
        self.clips.offer(frame)
        if not self._sampler.wants(frame.time_s, scene_cut=frame.scene_cut):
            return
        self._sampled += 1
        if self.camera.pace is Pace.FAST:
            self._slot.put_in_turn(frame)
        else:
            self._slot.put(frame)
        self._wake()

    def close(self) -> None:
        """Take no more frames; lets a waiting `offer` go."""
        self._slot.close()

    def take(self) -> Frame | None:
        """The newest frame not yet taken, or None; of files, the first that has to go again."""
        return self.again.take() or self._slot.take()

    @property
    def waiting(self) -> int:
        """How many frames wait to be taken."""
        return self._slot.waiting + len(self.again)

    def lose(self, frame: Frame, cause: str) -> None:
        """Count a taken frame that never comes to an observation."""
        self.again.settle(frame)
        self._lost[cause] += 1
        self._missed_cut |= frame.scene_cut

    def accept(self, frame: Frame, where: Fit, found: Found) -> Observation | None:
        """Follow the people found in a frame.

        Returns:
            Who is where; None if the detector refused the frame, which is counted.
        """
        if found.detections is None or found.timing is None:
            self.lose(frame, "detector_full")
            return None
        if self._missed_cut:
            self._missed_cut, frame = False, replace(frame, scene_cut=True)
        started = time.perf_counter()
        observation = self.follow(frame, where.to_source(found.detections))
        self._latency.add(
            decode=frame.decode_ms,
            queue=found.queue_ms,
            preprocess=found.timing.preprocess_ms,
            infer=found.timing.infer_ms,
            postprocess=found.timing.postprocess_ms,
            track=(time.perf_counter() - started) * 1e3,
            total=(time.monotonic() - frame.received_s) * 1e3,
        )
        return observation

    def follow(self, frame: Frame, detections: Detections) -> Observation:
        """One tracker step; `detections` in pixels of the frame."""
        if frame.scene_cut:
            self._tracker.reset()
        tracks = self._tracker.step(detections, frame.time_s)
        observation = observe(
            tracks,
            frame,
            camera_id=self.camera.id,
            epoch=self._epoch,
            seq=self._seq,
            step_s=self._step_s(frame),
            clip_scores=self._scores,
            attributes=self.attributes.known(),
        )
        self._scores = []
        self.clips.seen(frame, observation)
        self.attributes.seen(frame, observation)
        self.again.settle(frame)
        self._seq += 1
        self._processed += 1
        self._processed_at.append(self._clock.monotonic())
        self._last = (frame, observation)
        return observation

    def _step_s(self, frame: Frame) -> float:
        """Stream time since the frame processed before; 0 on the first and on a scene cut."""
        if self._last is None or frame.scene_cut:
            return 0.0
        return max(0.0, frame.time_s - self._last[0].time_s)

    def judged(self, verdict: Verdict) -> None:
        """Keep what the rules said, for the overlay, the status and the clips."""
        self._verdict = verdict
        self.clips.judged(verdict)

    def classified(self, scores: Iterable[ClipScore]) -> None:
        """Take in what the clip classifier said; it goes on with the next observation."""
        fresh = list(scores)
        self._scores += fresh
        self._clips_judged += len(fresh)

    def picture(self) -> Rgb | None:
        """(height, width, 3) uint8 RGB: the last processed frame with its overlay; None before."""
        if self._last is None:
            return None
        frame, observation = self._last
        width, height = frame.wh
        times = -(-_MIN_OVERLAY_PX // height)  # labels need room that small pictures do not have
        return draw(
            frame.rgb((width * times, height * times)),
            scene_of(self.camera, observation, self._verdict, fps=self._rate()),
        )

    def still(self) -> Rgb | None:
        """(height, width, 3) uint8 RGB: the last processed frame as the camera sent it."""
        return None if self._last is None else self._last[0].rgb()

    def status(self, reader: ReaderStats, *, all_decoded: bool) -> CameraStatus:
        """The camera's counters, joined with its reader's.

        Args:
            reader: what the reader says.
            all_decoded: the reader has ended and handed on its last frame.
        """
        state = CameraState(reader.state.value)
        if state is CameraState.ENDED and (not all_decoded or self.waiting or self.on_their_way):
            state = CameraState.PLAYING  # its last frames are still on their way
        lost = Counter(reader.dropped)
        lost.update(self._lost)
        if superseded := self._slot.stats().superseded:
            lost["superseded"] = superseded
        summaries = self._latency.summaries()
        return CameraStatus(
            id=self.camera.id,
            source=redact(self.camera.source),
            state=state,
            width=reader.wh[0] if reader.wh else None,
            height=reader.wh[1] if reader.wh else None,
            codec=reader.codec,
            detect_fps=self.camera.detect_fps,
            fps_in=reader.fps_in,
            fps_processed=self._rate(),
            frames_in=reader.frames_in,
            frames_decoded=reader.frames_decoded,
            frames_sampled=self._sampled,
            frames_processed=self._processed,
            dropped=dict(lost),
            people_in_view=len(self._last[1].person_id) if self._last else 0,
            clips_judged=self._clips_judged,
            looks_taken=self.attributes.num_looks,
            num_events=self._verdict.num_events,
            reconnects=reader.reconnects,
            last_error=reader.last_error,
            last_frame_at=self._last[0].captured_at if self._last else None,
            latency_ms={step: s.p50 if s else None for step, s in summaries.items()},
        )

    def _rate(self) -> float | None:
        now = self._clock.monotonic()
        recent = [at for at in self._processed_at if now - at <= _RATE_WINDOW_S]
        if not self._processed_at:
            return None
        since = min(_RATE_WINDOW_S, max(now - self._processed_at[0], 1e-3))
        return round(len(recent) / since, 2)


def observe(
    tracks: Tracks,
    frame: Frame,
    *,
    camera_id: str,
    epoch: str,
    seq: int,
    step_s: float,
    clip_scores: Iterable[ClipScore] = (),
    attributes: Mapping[str, tuple[AttributePrediction, ...]] | None = None,
) -> Observation:
    """A tracker's answer for one frame as an observation: ids made unique, boxes as fractions.

    Args:
        tracks: who was seen, in pixels of the frame.
        frame: the frame.
        camera_id, epoch, seq, step_s, clip_scores, attributes: as in `Observation`.
    """
    width, height = frame.wh
    size = np.array([width, height, width, height], dtype=np.float32)
    return Observation(
        camera_id=camera_id,
        epoch=epoch,
        seq=seq,
        captured_at=frame.captured_at,
        person_id=tuple(f"{camera_id}-{epoch}-{track_id}" for track_id in tracks.track_id),
        xyxy=np.clip(tracks.xyxy / size, 0, 1),
        score=tracks.score,
        step_s=step_s,
        age_s=tracks.age_s,
        clip_scores=tuple(clip_scores),
        attributes=attributes or {},
    )


def _keeping_the_cut(superseded: Frame, newer: Frame) -> Frame:
    """People do not go on over a cut whose own frame was passed over."""
    return replace(newer, scene_cut=True) if superseded.scene_cut else newer


def new_epoch(now: datetime) -> str:
    """A name for a tracker's life that no later life of the same camera will have."""
    return format(int(now.timestamp() * 1000), "x")


def scene_of(
    camera: CameraConfig, observation: Observation, verdict: Verdict, *, fps: float | None
) -> Scene:
    """What to draw for one frame and what the rules said about it."""
    longest: dict[str, float] = {}
    for dwell in verdict.dwell:
        longest[dwell.person_id] = max(dwell.dwell_s, longest.get(dwell.person_id, 0.0))
    alerting = {event.person_id for event in verdict.open_events}
    people = tuple(
        PersonMark(
            label=" ".join(
                (
                    short_label(person_id),
                    *(a.label for a in observation.attributes.get(person_id, ())),
                )
            ),
            xyxy=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            dwell_s=longest.get(person_id),
            alert=person_id in alerting,
        )
        for person_id, box in zip(observation.person_id, observation.xyxy, strict=True)
    )
    banner = tuple(
        "  ".join(
            part
            for part in (
                event.type.upper().replace("_", " "),
                event.zone_id,
                short_label(event.person_id) if event.person_id else None,
                f"{longest[event.person_id]:.1f} s" if event.person_id in longest else None,
            )
            if part
        )
        for event in verdict.open_events
    )
    rate = "" if fps is None else f"   {fps:.1f} fps"
    return Scene(
        zones=camera.zones,
        people=people,
        alert_zones=frozenset(e.zone_id for e in verdict.open_events if e.zone_id),
        banner=banner[:4],
        footer=f"{camera.id}   {rfc3339(observation.captured_at)}{rate}",
    )


def short_label(person_id: str) -> str:
    """``#12`` for the person id ``table-19a0b1c2d3e-12``."""
    return f"#{person_id.rsplit('-', 1)[-1]}"


def _most_under_way(camera: CameraConfig) -> int:
    """Frames of a file at full pace in the detector at once. Where clips are judged it may not be
    far ahead in time: the pictures that these are cut from are kept for seconds.
    """
    most = MAX_CALLS * FAST_FRAMES
    return max(1, min(most, int(camera.detect_fps * _MOST_AHEAD_S))) if camera.classifies else most
