"""One video file from start to end: every frame, one process, the same classes as the system."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from storeguard.camera.attribute_predictions import AttributePredictions
from storeguard.camera.latency import LatencyRecorder
from storeguard.camera.overlay import annotations_of, draw
from storeguard.camera.person_clips import PersonClips
from storeguard.classification.clips.classifier import ClipClassifier
from storeguard.config.addresses import shown
from storeguard.config.models import (
    AttributeSettings,
    ClassifierSettings,
    DetectorSettings,
    TrackerSettings,
)
from storeguard.config.store import CameraConfig
from storeguard.config.zones import ZoneConfig
from storeguard.detection.detector import DetectorInfo
from storeguard.engines.loading import (
    load_attribute_classifier,
    load_clip_classifier,
    load_detector,
)
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.offline.following import FILE_START, FollowedFrame, file_camera, follow
from storeguard.offline.outputs import OutputFiles, ProcessOutputs
from storeguard.offline.report import Frames, RunReport, latency_document
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """Which frames of the file are processed, and by which rules.

    Attributes:
        zones: zones with their rules.
        every: process each n-th frame only, as if the others had been dropped.
        started_at: capture time of the first frame, aware.
        max_frames: stop after so many processed frames; None processes the whole file.
    """

    zones: tuple[ZoneConfig, ...] = ()
    every: int = 1
    started_at: datetime = FILE_START
    max_frames: int | None = None


class VideoProcessor:
    """Runs detection, tracking and rules over video files.

    Args:
        detector: finds people.
        tracker: how people are tracked.
        classifier: scores clips for `shoplifting_suspected` rules; loaded if a zone has one.
        attributes: label the people.
        progress: called with the number of frames processed so far.
    """

    def __init__(
        self,
        detector: DetectorSettings,
        tracker: TrackerSettings | None = None,
        classifier: ClassifierSettings | None = None,
        attributes: Iterable[AttributeSettings] = (),
        *,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._detector = load_detector(detector)
        self._tracker_settings = tracker or TrackerSettings()
        self._classifier_settings = classifier or ClassifierSettings()
        self._attributes = [(one, load_attribute_classifier(one)) for one in attributes]
        self._progress = progress

    def process(
        self, video: Path | str, options: ProcessOptions, outputs: ProcessOutputs | None = None
    ) -> RunReport:
        """Process a video and write the outputs.

        Returns:
            The run's figures, as in the metrics file.

        Raises:
            SourceError: the file cannot be read, or holds no video.
            StorageError, RecordingError: an output cannot be written.
        """
        camera = file_camera(video, zones=options.zones)
        classifier = load_clip_classifier(self._classifier_settings) if camera.classifies else None
        predictions = AttributePredictions(
            camera.id, self._attributes, forget_s=self._tracker_settings.max_lost_s
        )
        run = _Run(camera, self._detector.info, classifier, predictions)
        frames = run.chosen_frames(options)
        started = time.perf_counter()
        with OutputFiles(outputs or ProcessOutputs()) as files:
            for followed in follow(camera, self._detector, self._tracker_settings, frames=frames):
                run.step(followed, files)
                self._progress(run.processed)
            run.finish(files)
        report = run.report(time.perf_counter() - started)
        if outputs is not None and outputs.metrics is not None:
            report.write(outputs.metrics)
        return report


class _Run:
    """The state of one video's run: rules, clips, attributes, figures."""

    def __init__(
        self,
        camera: CameraConfig,
        detector: DetectorInfo,
        classifier: ClipClassifier | None,
        predictions: AttributePredictions,
    ) -> None:
        self._camera = camera
        self._detector = detector
        self._classifier = classifier
        self._predictions = predictions
        self._clips = PersonClips(camera)
        self._scores: list[ClipScore] = []
        self._num_cls_calls = 0
        model = ModelRef(name=detector.name, sha256=detector.sha256)
        self._rules = CameraRules("video", camera, model)
        self._latency = LatencyRecorder(limit=1_000_000)
        self._open: dict[str, OpenEvent] = {}
        self._events: Counter[str] = Counter()
        self._last_at = FILE_START
        self._fps: float | None = None
        self._decoded = 0
        self._dropped: Counter[str] = Counter()
        self.processed = 0

    def chosen_frames(self, options: ProcessOptions) -> Iterator[Frame]:
        """The frames to process; clips are cut from the others too."""
        for frame in read_frames(self._camera, start=options.started_at, dropped=self._dropped):
            self._decoded += 1
            if self._classifier is not None:
                self._clips.offer(frame)
            if frame.index % options.every:
                continue
            yield frame
            if options.max_frames is not None and self.processed >= options.max_frames:
                return

    def step(self, followed: FollowedFrame, files: OutputFiles) -> None:
        """Apply the rules to one frame, have its people classified, and write the outputs."""
        started = time.perf_counter()
        frame = followed.frame
        observation = replace(
            followed.observation,
            clip_scores=tuple(self._scores),
            attributes=self._predictions.known(),
        )
        self._emit(self._rules.step(observation), files)
        self._scores = self._classify(frame, observation)
        self._predictions.seen(frame, observation)
        files.tracks(frame.index + 1, followed.tracks)
        self._draw(frame, observation, files)
        self.processed += 1
        self._last_at = frame.captured_at
        self._count_times(followed, (time.perf_counter() - started) * 1e3)

    def finish(self, files: OutputFiles) -> None:
        """Close the events that are still open."""
        self._emit(self._rules.close_all(self._last_at), files)

    def report(self, seconds: float) -> RunReport:
        """The run's figures.

        Args:
            seconds: that the run took.
        """
        dropped = self._dropped.copy()
        dropped["every"] = self._decoded - self.processed
        return RunReport(
            source_kind="video",
            source=Path(shown(self._camera.source)).name,
            detector=self._detector,
            target_fps=None,
            drop_policy="none",
            frames=Frames(
                received=self._decoded + self._dropped.total(),
                processed=self.processed,
                dropped_by_cause=dict(+dropped),
            ),
            fps_effective=round(self.processed / seconds, 2),
            latency_ms=latency_document(self._latency),
            warm_up_frames=self._latency.warm_up_frames,
            cls_calls=None if self._classifier is None else self._num_cls_calls,
            events_by_type=dict(self._events),
            zones=self._camera.zones,
        )

    def _emit(self, events: list[Event], files: OutputFiles) -> None:
        for event in events:
            if event.version == 1:
                self._events[event.type.value] += 1
            if event.status is EventStatus.OPEN:
                self._open[event.event_id] = OpenEvent(
                    event.event_id, event.type, event.zone_id, event.person_id
                )
            else:
                self._open.pop(event.event_id, None)
            files.event(event)

    def _classify(self, frame: Frame, observation: Observation) -> list[ClipScore]:
        """The scores of the clips that are due; the rules get them with the next frame."""
        if self._classifier is None:
            return []
        started = time.perf_counter()
        info = self._classifier.info
        self._clips.seen(frame, observation)
        self._clips.judged(self._verdict())
        requests = self._clips.due()
        if not requests:
            return []
        scores = self._classifier.score([request.cut() for request in requests])
        self._num_cls_calls += 1
        self._latency.add(cls=(time.perf_counter() - started) * 1e3)
        return [
            request.scored(float(score), info)
            for request, score in zip(requests, scores, strict=True)
        ]

    def _draw(self, frame: Frame, observation: Observation, files: OutputFiles) -> None:
        if not files.wants_video:
            return
        started = time.perf_counter()
        annotations = annotations_of(self._camera, observation, self._verdict(), fps=self._fps)
        files.frame(frame, draw(frame.rgb(), annotations))
        self._latency.add(encode=(time.perf_counter() - started) * 1e3)

    def _count_times(self, followed: FollowedFrame, step_ms: float) -> None:
        took_ms = followed.total_ms + step_ms
        self._fps = 1e3 / took_ms if self._fps is None else 0.9 * self._fps + 0.1e3 / took_ms
        decode_ms, timing = followed.frame.decode_ms, followed.timing
        self._latency.add(
            decode=decode_ms,
            preprocess=timing.preprocess_ms,
            infer=timing.infer_ms,
            postprocess=timing.postprocess_ms,
            track=followed.track_ms,
            total=took_ms + decode_ms,
        )

    def _verdict(self) -> Verdict:
        return Verdict(
            camera_id=self._camera.id,
            dwell=tuple(self._rules.dwell()),
            open_events=tuple(self._open.values()),
        )
