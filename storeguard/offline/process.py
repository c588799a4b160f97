"""One video file from start to end: every frame, one process, the same classes as the system."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import av
import numpy as np

from storeguard.camera.attribute_predictions import AttributePredictions
from storeguard.camera.latency import LatencyRecorder
from storeguard.camera.overlay import annotations_of, draw
from storeguard.camera.person_clips import PersonClips
from storeguard.camera.pipeline import observe
from storeguard.classification.attributes.classifier import AttributeClassifier
from storeguard.classification.clips.classifier import ClipClassifier
from storeguard.config.models import (
    AttributeSettings,
    ClassifierSettings,
    DetectorSettings,
    TrackerSettings,
)
from storeguard.config.store import CameraConfig, Pace
from storeguard.config.zones import ZoneConfig
from storeguard.detection.detector import Detector
from storeguard.detection.letterbox import place
from storeguard.errors import EmptySourceError, RecordingError, StorageError
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.offline.report import Frames, RunReport, latency_document
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame, Rgb
from storeguard.video.reader import read_frames

_EPOCH = "0"
FILE_START = datetime(1970, 1, 1, tzinfo=UTC)
"""A file's first frame unless told otherwise: event times then read as positions in the file."""


@dataclass(frozen=True, slots=True)
class ProcessOutputs:
    """Files to write; None leaves one out."""

    events: Path | None = None
    tracks: Path | None = None
    video: Path | None = None
    metrics: Path | None = None


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How to go through the file.

    Attributes:
        zones: zones with their rules.
        every: process each n-th frame only, as if the others had been dropped.
        started_at: capture time of the first frame, aware.
        max_frames: stop after so many processed frames; None goes to the end.
    """

    zones: tuple[ZoneConfig, ...] = ()
    every: int = 1
    started_at: datetime = FILE_START
    max_frames: int | None = None


class VideoProcessor:
    """Runs detection, tracking and rules over one video.

    Args:
        detector: what to look for people with.
        tracker: how people are followed.
        classifier: which clip classifier `shoplifting_suspected` rules are judged by.
        attributes: what image classifiers tell of people besides.
        progress: called with each processed frame's number.
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
        self._detector = Detector(detector)
        self._tracker_settings = tracker or TrackerSettings()
        self._classifier_settings = classifier or ClassifierSettings()
        self._attributes = [(one, AttributeClassifier(one)) for one in attributes]
        self._progress = progress

    def process(
        self, video: Path, options: ProcessOptions, outputs: ProcessOutputs | None = None
    ) -> RunReport:
        """Go through the video and write the outputs.

        Returns:
            The run's figures, as in the metrics file.

        Raises:
            SourceError: the file cannot be read, or holds no video.
        """
        camera = CameraConfig(
            id="video", source=str(video), pace=Pace.FAST, zones=options.zones, detect_fps=240
        )
        classifier = ClipClassifier(self._classifier_settings) if camera.classifies else None
        predictions = AttributePredictions(
            camera.id, self._attributes, forget_s=self._tracker_settings.max_lost_s
        )
        run = _Run(self._detector, self._tracker_settings, camera, classifier, predictions)
        started = time.perf_counter()
        with _Writers(outputs or ProcessOutputs()) as writers:
            for frame in self._chosen(camera, options, run):
                run.step(frame, writers)
                self._progress(run.processed)
            run.finish(writers)
        if not run.processed:
            raise EmptySourceError(f"{video}: no frame of it could be decoded")
        report = run.report(time.perf_counter() - started)
        if outputs is not None and outputs.metrics is not None:
            report.write(outputs.metrics)
        return report

    @staticmethod
    def _chosen(camera: CameraConfig, options: ProcessOptions, run: _Run) -> Iterator[Frame]:
        for frame in read_frames(camera, start=options.started_at):
            run.receive(frame)
            if frame.index % options.every:
                continue
            yield frame
            if options.max_frames is not None and run.processed >= options.max_frames:
                return


class _Run:
    """The hot loop of one video: detect, follow, judge, write."""

    def __init__(
        self,
        detector: Detector,
        tracker: TrackerSettings,
        camera: CameraConfig,
        classifier: ClipClassifier | None,
        predictions: AttributePredictions,
    ) -> None:
        self._detector = detector
        self._predictions = predictions
        self._classifier = classifier
        self._clips = PersonClips(camera)
        self._scores: list[ClipScore] = []
        self._num_cls_calls = 0
        self._camera = camera
        self._tracker = Tracker(tracker)
        info = detector.info
        model = ModelRef(name=info.name, sha256=info.sha256)
        self._rules = CameraRules("video", camera, model)
        width, height = info.input_wh
        self._canvas = np.empty((1, height, width, 3), np.uint8)
        self._latency = LatencyRecorder(limit=1_000_000)
        self._open: dict[str, OpenEvent] = {}
        self._events: Counter[str] = Counter()
        self._last_at = FILE_START
        self._last_s: float | None = None
        self._fps: float | None = None
        self.received = 0
        self.processed = 0

    def receive(self, frame: Frame) -> None:
        """Every decoded frame, also one that is passed over: clips are cut from all."""
        self.received += 1
        if self._classifier is not None:
            self._clips.offer(frame)

    def step(self, frame: Frame, writers: _Writers) -> None:
        started = time.perf_counter()
        tracks = self._follow(frame)
        followed = time.perf_counter()
        observation = observe(
            tracks,
            frame,
            camera_id=self._camera.id,
            epoch=_EPOCH,
            seq=self.processed,
            step_s=0.0 if self._last_s is None else frame.time_s - self._last_s,
            clip_scores=self._scores,
            attributes=self._predictions.known(),
        )
        self._emit(self._rules.step(observation), writers)
        self._scores = self._judge(frame, observation)
        self._predictions.seen(frame, observation)
        writers.tracks(frame.index + 1, tracks)
        if writers.wants_video:
            writers.frame(frame, self._picture(frame, observation))
            self._latency.add(encode=(time.perf_counter() - followed) * 1e3)
        self.processed += 1
        self._last_at = frame.captured_at
        self._last_s = frame.time_s
        took_s = time.perf_counter() - started
        self._fps = 1 / took_s if self._fps is None else 0.9 * self._fps + 0.1 / took_s
        self._latency.add(total=took_s * 1e3 + frame.decode_ms)

    def finish(self, writers: _Writers) -> None:
        self._emit(self._rules.close_all(self._last_at), writers)

    def report(self, seconds: float) -> RunReport:
        skipped = self.received - self.processed
        return RunReport(
            source_kind="video",
            source=Path(self._camera.source).name,
            detector=self._detector.info,
            target_fps=None,
            drop_policy="none",
            frames=Frames(
                received=self.received,
                processed=self.processed,
                dropped_by_cause={"every": skipped} if skipped else {},
            ),
            fps_effective=round(self.processed / seconds, 2),
            latency_ms=latency_document(self._latency),
            warm_up_frames=self._latency.warm_up_frames,
            cls_calls=None if self._classifier is None else self._num_cls_calls,
            events_by_type=dict(self._events),
            zones=self._camera.zones,
        )

    def _follow(self, frame: Frame) -> Tracks:
        started = time.perf_counter()
        where = self._detector.info.fit(frame.wh)
        place(frame, where, self._canvas[0])
        placed_ms = (time.perf_counter() - started) * 1e3
        found, timing = self._detector.detect(self._canvas)
        detected = time.perf_counter()
        tracks = self._tracker.step(where.to_source(found[0]), frame.time_s)
        self._latency.add(
            decode=frame.decode_ms,
            preprocess=placed_ms + timing.preprocess_ms,
            infer=timing.infer_ms,
            postprocess=timing.postprocess_ms,
            track=(time.perf_counter() - detected) * 1e3,
        )
        return tracks

    def _judge(self, frame: Frame, observation: Observation) -> list[ClipScore]:
        """The clips that are due, judged at once; the rules hear of it with the next frame."""
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

    def _verdict(self) -> Verdict:
        return Verdict(
            camera_id=self._camera.id,
            dwell=tuple(self._rules.dwell()),
            open_events=tuple(self._open.values()),
        )

    def _emit(self, events: list[Event], writers: _Writers) -> None:
        for event in events:
            if event.version == 1:
                self._events[event.type.value] += 1
            if event.status is EventStatus.OPEN:
                self._open[event.event_id] = OpenEvent(
                    event.event_id, event.type, event.zone_id, event.person_id
                )
            else:
                self._open.pop(event.event_id, None)
            writers.event(event)

    def _picture(self, frame: Frame, observation: Observation) -> Rgb:
        annotations = annotations_of(self._camera, observation, self._verdict(), fps=self._fps)
        return draw(frame.rgb(), annotations)


class _Writers:
    """The output files, opened when first needed and closed together."""

    def __init__(self, outputs: ProcessOutputs) -> None:
        self._outputs = outputs
        self._stack = ExitStack()
        self._events = self._text(outputs.events)
        self._tracks = self._text(outputs.tracks)
        self._video: _OverlayVideo | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def wants_video(self) -> bool:
        return self._outputs.video is not None

    def event(self, event: Event) -> None:
        if self._events is not None:
            self._events.write(event.model_dump_json() + "\n")

    def tracks(self, frame_number: int, tracks: Tracks) -> None:
        """MOTChallenge rows: frame (from 1), id, left, top, width, height, confidence, -1 x 3."""
        if self._tracks is None:
            return
        for track_id, box, score in zip(tracks.track_id, tracks.xyxy, tracks.score, strict=True):
            x1, y1, x2, y2 = box
            self._tracks.write(
                f"{frame_number},{track_id},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},"
                f"{score:.4f},-1,-1,-1\n"
            )

    def frame(self, frame: Frame, rgb: Rgb) -> None:
        if self._outputs.video is None:
            return
        if self._video is None:
            self._video = _OverlayVideo(self._outputs.video, frame.wh)
            self._stack.callback(self._video.close)
        self._video.add(rgb, frame.time_s)

    def _text(self, path: Path | None) -> TextIO | None:
        if path is None:
            return None
        try:
            return self._stack.enter_context(path.open("w", encoding="utf-8"))
        except OSError as error:
            raise StorageError(f"{path}: cannot write: {error.strerror}") from None


class _OverlayVideo:
    """An H.264 file whose frames keep the times of the source."""

    _TICKS_PER_S = 90_000

    def __init__(self, path: Path, wh: tuple[int, int]) -> None:
        # 4:2:0 colour needs even sides.
        self._wh = wh[0] - wh[0] % 2, wh[1] - wh[1] % 2
        try:
            self._container = av.open(str(path), "w")
            self._stream = self._container.add_stream("libx264", rate=30)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path}: cannot write the overlay video: {error}") from None
        self._stream.width, self._stream.height = self._wh
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "veryfast", "crf": "23"}
        self._stream.codec_context.time_base = Fraction(1, self._TICKS_PER_S)

    def add(self, rgb: Rgb, time_s: float) -> None:
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        picture = picture.reformat(width=self._wh[0], height=self._wh[1], format="yuv420p")
        picture.pts = round(time_s * self._TICKS_PER_S)
        picture.time_base = Fraction(1, self._TICKS_PER_S)
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
