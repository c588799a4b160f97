"""The metrics file: what a run was given, what it did and how long its steps took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from storeguard.camera.latency import LatencyRecorder
from storeguard.config.zones import ZoneConfig
from storeguard.detection.detector import DetectorInfo
from storeguard.errors import StorageError


class Frames(BaseModel):
    """Frame counts of a run: read, processed, and lost by cause."""

    model_config = ConfigDict(frozen=True)

    received: int
    processed: int
    dropped_by_cause: dict[str, int]


class RunReport(BaseModel):
    """Contents of a metrics file. A figure that was not measured is None, never 0.

    Attributes:
        source: the video or configuration that was run.
        target_fps: frames a second aimed at; None where every frame is processed.
        drop_policy: what happens to frames that come too fast.
        fps_effective: processed frames over the run's wall-clock seconds.
        cls_calls: calls of the clip classifier; None without one.
    """

    model_config = ConfigDict(frozen=True)

    source_kind: str
    source: str
    detector: DetectorInfo | None
    target_fps: float | None
    drop_policy: str
    frames: Frames
    fps_effective: float | None
    latency_ms: dict[str, dict[str, float] | None]
    warm_up_frames: int
    cls_calls: int | None
    events_by_type: dict[str, int]
    zones: tuple[ZoneConfig, ...]

    def document(self) -> dict[str, Any]:
        """The file's JSON document."""
        info = self.detector
        model = info and {
            "name": info.name,
            "sha256": info.sha256,
            "backend": info.backend,
            "precision": info.precision,
        }
        detector_input = info and {
            "width": info.input_wh[0],
            "height": info.input_wh[1],
            "resize": info.resize.value,
            "layout": info.layout.value,
        }
        return {
            self.source_kind: self.source,
            "model": model,
            "input": detector_input,
            "realtime": {"target_fps": self.target_fps, "drop_policy": self.drop_policy},
            "frames": {
                "in": self.frames.received,
                "processed": self.frames.processed,
                "dropped_by_cause": self.frames.dropped_by_cause,
            },
            "fps_effective": self.fps_effective,
            "latency_ms": self.latency_ms,
            "warm_up_frames": self.warm_up_frames,
            "cls_calls": self.cls_calls,
            "events": self.events_by_type,
            "roi": [zone.model_dump(mode="json") for zone in self.zones],
        }

    def write(self, path: Path) -> None:
        """Write the metrics file."""
        try:
            path.write_text(json.dumps(self.document(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path}: cannot write: {error.strerror}") from None


def latency_document(latency: LatencyRecorder) -> dict[str, dict[str, float] | None]:
    """Latency summaries as JSON: mean, p50, p95, p99 and max by step, None if not measured."""
    summaries: Mapping[str, Any] = latency.summaries()
    return {step: asdict(summary) if summary else None for step, summary in summaries.items()}
