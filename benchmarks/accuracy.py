"""How well and how fast the bundled person detector finds people, compared with yolox_nano.

    python benchmarks/accuracy.py [--quick]

Average precision on the validation pictures (one held-out CCTV room, a third of coco_people) and
the median time of one frame in batches of 1, 4 and 8. Both detectors are timed in turn, run by run,
so that other load on the machine affects both; read the ratio. Writes
benchmarks/results/accuracy.json. The pictures are not part of the project: without ../shared/data
the script reports it and ends with status 0.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from storeguard.training.detector.data import LabelledImage, read_boxes
from storeguard.training.detector.evaluate import Forward, evaluate, onnx_forward
from storeguard.training.detector.splits import (
    CCTV_VALIDATION_ROOM,
    cctv_validation_names,
    coco_validation_names,
)
from storeguard.training.detector.train import BUNDLED_DETECTOR

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "accuracy.json"
SIDES_PX = (320, 416)
BATCHES = (1, 4, 8)
NUM_THREADS = 1


def with_free_batch(published: Path, folder: Path) -> Path:
    """Write yolox_nano.onnx with batch, height and width free, and return the copy's path."""
    model = onnx.load(str(published))
    for value in (model.graph.input[0], model.graph.output[0]):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if i != 1 or value.name == "output":
                dim.dim_param = f"{value.name}_{i}"
    baked = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in baked:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0  # "as it came"
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    del model.graph.value_info[:]
    path = folder / "yolox_nano_free.onnx"
    onnx.save(helper.make_model(model.graph, opset_imports=model.opset_import, ir_version=6), path)
    return path


def published_forward(path: Path) -> Forward:
    """Open yolox_nano: pixels in and (N, A, 6) out like the bundled detector, of its class 0."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def forward(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
        (output,) = session.run(None, {"images": planes})
        return np.asarray(output)[..., :6]

    return forward


def interleaved_ms(
    calls: Mapping[str, Callable[[], object]], *, num_runs: int
) -> dict[str, list[float]]:
    """Time the calls in turn, `num_runs` times each after 3 that are left out, milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(num_runs + 3):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if run >= 3:
                times[name].append((time.perf_counter() - begun) * 1000)
    return times


def measure_speed(detectors: dict[str, Forward], *, num_runs: int) -> list[dict[str, object]]:
    """Median time per frame of each detector at each side and batch size, and their ratio."""
    rows: list[dict[str, object]] = []
    rng = np.random.default_rng(0)
    for side in SIDES_PX:
        for batch in BATCHES:
            images = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
            calls = {
                name: functools.partial(forward, images) for name, forward in detectors.items()
            }
            times = interleaved_ms(calls, num_runs=num_runs)
            ms = {name: statistics.median(values) / batch for name, values in times.items()}
            ratio = statistics.median(
                a / b for a, b in zip(times["bundled"], times["yolox_nano"], strict=True)
            )
            rows.append({"input_px": side, "batch": batch, "frame_ms": ms, "ratio": ratio})
            print(f"{side} px, batch {batch}: {ms} ms a frame, bundled/yolox_nano {ratio:.2f}")
    return rows


def validation_sets() -> dict[str, list[LabelledImage]]:
    """The pictures that no training saw, by name."""
    cctv, coco = DATA / "detection" / "cctv_rooms", DATA / "detection" / "coco_people"
    names = {
        f"cctv {CCTV_VALIDATION_ROOM}": (cctv, set(cctv_validation_names(cctv))),
        "coco_people validation": (coco, set(coco_validation_names(coco))),
    }
    return {
        title: [image for image in read_boxes(folder) if image.path.name in chosen]
        for title, (folder, chosen) in names.items()
    }


def main() -> None:
    """Measure, print, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every 8th picture, 5 timed runs")
    quick = parser.parse_args().quick
    published = DATA / "weights" / "yolox_nano.onnx"
    if not published.is_file():
        print(f"skipped: {DATA} is absent, and with it the labelled pictures and yolox_nano.onnx")
        return
    with tempfile.TemporaryDirectory() as folder:
        detectors = {
            "bundled": onnx_forward(BUNDLED_DETECTOR, num_threads=NUM_THREADS),
            "yolox_nano": published_forward(with_free_batch(published, Path(folder))),
        }
        accuracy: list[dict[str, object]] = []
        for title, images in validation_sets().items():
            part = images[::8] if quick else images
            for side in SIDES_PX:
                for name, forward in detectors.items():
                    scores = evaluate(forward, part, input_wh=(side, side))
                    accuracy.append(
                        {"data": title, "detector": name, "input_px": side, **asdict(scores)}
                    )
                    print(f"{title}, {side} px, {name}: AP50 {scores.ap50:.3f} "
                          f"AP50-95 {scores.ap50_95:.3f}")  # fmt: skip
        speed = measure_speed(detectors, num_runs=5 if quick else 40)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {
            "quick": quick,
            "pad": "topleft",
            "num_threads": NUM_THREADS,
            "model_sha256": hashlib.sha256(BUNDLED_DETECTOR.read_bytes()).hexdigest(),
        },
        "versions": {
            "python": platform.python_version(),
            **{n: importlib.metadata.version(n) for n in ("onnxruntime", "numpy", "pillow")},
        },
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.system()},
        "accuracy": accuracy,
        "speed": speed,
    }
    if quick:
        print("quick figures are not kept")
        return
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    partial = RESULT.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.replace(RESULT)
    print(f"wrote {RESULT.relative_to(ROOT)}")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
