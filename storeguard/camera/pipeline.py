"""One camera's pipeline: from frames with detections to observations of people."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np

from storeguard.camera.detector_calls import Detected, FrameResult, LossCause
from storeguard.camera.feeds import FrameFeed
from storeguard.camera.latency import LatencyRecorder
from storeguard.camera.overlay import annotations_of, draw
from storeguard.camera.person_attributes import PersonAttributes
from storeguard.camera.person_clips import PersonClips
from storeguard.camera.rate_watch import Condition, Counts, RateWatch
from storeguard.camera.sampler import Sampler
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.clock import Clock
from storeguard.config.addresses import shown
from storeguard.config.models import AttributeSettings, TrackerSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.config.zones import longest_gap_s
from storeguard.detection.detections import Detections
from storeguard.recording.clip_requests import needed_cache_s
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.verdict import Verdict
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame, Rgb
from storeguard.video.reader_stats import ReaderState, ReaderStats

_RATE_WINDOW_S = 5.0
_MIN_OVERLAY_PX = 288


class CameraPipeline:
    """Offers the frames that are due to the camera's feed, and follows the people in the results.

    `offer` is called by the reader's decode thread, everything else by one other thread.

    Args:
        camera: its settings.
        tracker: settings of the tracker.
        attributes: attributes that are predicted for its people.
        feed: the camera's frames on their way to the detector and back.
        epoch: names this life of the tracker (see `Observation`).
        clock: for rates.
    """

    def __init__(
        self,
        camera: CameraConfig,
        tracker: TrackerSettings,
        attributes: Iterable[AttributeSettings] = (),
        *,
        feed: FrameFeed,
        epoch: str,
        clock: Clock,
    ) -> None:
        self.camera = camera
        self.feed = feed
        self.clips = PersonClips(camera)
        """Clips for the clip classifier."""
        self.attributes = PersonAttributes(camera.id, attributes, forget_s=tracker.max_lost_s)
        """Crops for attribute classifiers, and their predictions."""
        self._tracker = Tracker(
            tracker, max_gap_s=longest_gap_s(rule for _, rule in camera.rules())
        )
        self._epoch = epoch
        self._clock = clock
        self._sampler = Sampler(camera.detect_fps)
        self._seq = 0
        self._rates = RateWatch()
        self._missed_cut = False
        self._sampled = 0
        self._processed = 0
        self._processed_at: deque[float] = deque(maxlen=512)
        self._lost: Counter[str] = Counter()
        self._scores: list[ClipScore] = []
        self._num_classified = 0
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
        """Use other zones, rules or another detection rate; people keep their ids."""
        if camera.detect_fps != self.camera.detect_fps:
            self._sampler = Sampler(camera.detect_fps)
        self.camera = camera
        self._tracker.max_gap_s = longest_gap_s(rule for _, rule in camera.rules())
        self.feed.reconfigure(camera)
        self.clips.reconfigure(camera)

    def offer(self, frame: Frame) -> None:
        """Offer a decoded frame to the feed if it is due at `detect_fps`."""
        self.clips.offer(frame)
        if self._sampler.picks(frame.time_s, scene_cut=frame.scene_cut):
            self._sampled += 1
            self.feed.offer(frame)

    def close(self) -> None:
        """Accept no more frames; releases a waiting `offer`."""
        self.feed.close()

    def process(self, result: FrameResult) -> Observation | None:
        """Follow the people detected in a frame.

        Returns:
            The observation; None if the frame has no detections, which is counted by cause.
        """
        if not isinstance(result, Detected):
            self.lose(result.frame, result.cause)
            return None
        frame = result.frame
        if self._missed_cut:
            self._missed_cut, frame = False, replace(frame, scene_cut=True)
        started = time.perf_counter()
        observation = self._follow(frame, result.fit.to_source(result.detections))
        self._latency.add(
            decode=frame.decode_ms,
            queue=result.queue_ms,
            preprocess=result.timing.preprocess_ms,
            infer=result.timing.infer_ms,
            postprocess=result.timing.postprocess_ms,
            track=(time.perf_counter() - started) * 1e3,
            total=(time.monotonic() - frame.received_s) * 1e3,
        )
        return observation

    def lose(self, frame: Frame, cause: LossCause) -> None:
        """Count a frame that never becomes an observation."""
        self._lost[cause.value] += 1
        self._missed_cut |= frame.scene_cut

    def judged(self, verdict: Verdict) -> None:
        """Keep the verdict of the rules, for the overlay, the status and the clips."""
        self._verdict = verdict
        self.clips.judged(verdict)

    def classified(self, scores: Iterable[ClipScore]) -> None:
        """Add scores of the clip classifier; they go out with the next observation."""
        added = list(scores)
        self._scores += added
        self._num_classified += len(added)

    def picture(self) -> Rgb | None:
        """(height, width, 3) uint8 RGB: the last processed frame with its overlay; None before."""
        if self._last is None:
            return None
        frame, observation = self._last
        width, height = frame.wh
        times = -(-_MIN_OVERLAY_PX // height)  # small pictures have no room for labels
        return draw(
            frame.rgb((width * times, height * times)),
            annotations_of(self.camera, observation, self._verdict, fps=self._rate()),
        )

    def still(self) -> Rgb | None:
        """(height, width, 3) uint8 RGB: the last processed frame as the camera sent it."""
        return None if self._last is None else self._last[0].rgb()

    def last_captured_at(self) -> datetime | None:
        """Capture time of the last processed frame; None before the first."""
        return None if self._last is None else self._last[0].captured_at

    def status(self, reader: ReaderStats, *, all_decoded: bool) -> CameraStatus:
        """The camera's counters, joined with its reader's.

        Args:
            reader: counters of the reader.
            all_decoded: the reader has ended and offered its last frame.
        """
        feed = self.feed.stats()
        lost = Counter(reader.dropped)
        lost.update(self._lost)
        if feed.superseded:
            lost["superseded"] = feed.superseded
        condition = self._rates.judge(
            reader,
            Counts(self._sampled, self._processed, lost),
            requested_fps=self.camera.detect_fps,
            now_s=self._clock.monotonic(),
        )
        if self.camera.pace is Pace.FAST and condition.state is CameraState.OVERLOADED:
            condition = Condition(CameraState.PLAYING)  # it waits for the detector
        if reader.state is ReaderState.ENDED and (
            not all_decoded or feed.waiting or feed.under_way
        ):
            condition = Condition(CameraState.PLAYING)  # its last frames are not processed yet
        summaries = self._latency.summaries()
        return CameraStatus(
            id=self.camera.id,
            source=shown(self.camera.source),
            state=condition.state,
            state_reason=condition.reason,
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
            clips_judged=self._num_classified,
            looks_taken=self.attributes.num_predictions,
            num_events=self._verdict.num_events,
            reconnects=reader.reconnects,
            last_error=reader.last_error,
            last_frame_at=self.last_captured_at(),
            latency_ms={step: s.p50 if s else None for step, s in summaries.items()},
        )

    def _follow(self, frame: Frame, detections: Detections) -> Observation:
        """One tracker step; `detections` in pixels of the frame."""
        if frame.scene_cut:
            self._tracker.reset()
        tracks = self._tracker.step(detections, frame.time_s, wh=frame.wh)
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
    """The tracks in one frame as an observation: ids made unique, boxes as fractions.

    Args:
        tracks: the people in it, in pixels of the frame.
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


def new_epoch(now: datetime) -> str:
    """A name for one life of a tracker, different for each life of the same camera."""
    return format(int(now.timestamp() * 1000), "x")
