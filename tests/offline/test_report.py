"""The metrics file's shape, which other people's scripts read."""

from __future__ import annotations

import json
from pathlib import Path

from storeguard.camera.latency import LatencyRecorder
from storeguard.config.models import LayoutName, Resize
from storeguard.config.zones import ZoneConfig
from storeguard.detection.detector import DetectorInfo
from storeguard.offline.report import Frames, RunReport, latency_document

ZONE = ZoneConfig(id="z", polygon=((0.1, 0.1), (0.9, 0.1), (0.9, 0.9)))
INFO = DetectorInfo(
    name="m",
    sha256="00ff",
    backend="onnxruntime-cpu",
    precision="fp32",
    layout=LayoutName.YOLOX,
    input_wh=(416, 320),
    resize=Resize.LETTERBOX,
    centred=False,
)


def report(detector: DetectorInfo | None = INFO) -> RunReport:
    latency = LatencyRecorder(warm_up=1)
    for ms in (500.0, 10.0, 20.0):
        latency.add(infer=ms)
    return RunReport(
        source_kind="video",
        source="a.mp4",
        detector=detector,
        target_fps=None,
        drop_policy="none",
        frames=Frames(received=10, processed=5, dropped_by_cause={"every": 5}),
        fps_effective=12.5,
        latency_ms=latency_document(latency),
        warm_up_frames=latency.warm_up_frames,
        cls_calls=None,
        events_by_type={"intrusion": 2},
        zones=(ZONE,),
    )


def test_the_file_holds_what_the_design_promises(tmp_path: Path) -> None:
    report().write(tmp_path / "m.json")

    document = json.loads((tmp_path / "m.json").read_text())

    assert document["video"] == "a.mp4"
    assert document["model"] == {
        "name": "m",
        "sha256": "00ff",
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
    }
    assert (document["input"]["width"], document["input"]["height"]) == (416, 320)
    assert document["realtime"] == {"target_fps": None, "drop_policy": "none"}
    assert document["frames"] == {"in": 10, "processed": 5, "dropped_by_cause": {"every": 5}}
    assert document["fps_effective"] == 12.5
    assert document["events"] == {"intrusion": 2}
    assert document["roi"][0]["id"] == "z"
    steps = {"decode", "preprocess", "queue", "infer", "postprocess", "track", "cls", "encode"}
    assert set(document["latency_ms"]) == steps | {"total", "capture_to_event"}
    assert document["latency_ms"]["infer"]["mean"] == 15.0
    assert set(document["latency_ms"]["infer"]) == {"mean", "p50", "p95", "p99", "max"}
    assert document["warm_up_frames"] == 1


def test_what_was_not_measured_is_null() -> None:
    document = report(detector=None).document()

    assert document["model"] is None
    assert document["input"] is None
    assert document["cls_calls"] is None
    assert document["latency_ms"]["queue"] is None
