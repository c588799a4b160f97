"""Dwell at a table, against what a person reads off the video.

The footage is development data, so this is skipped where it is absent. Read by eye on frames 0.2 s
apart: when the head's point (a fifth down the box) rises into the zone from below, and when the
body's middle leaves it to the right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.naming import NAMESPACE, actor_name
from serve.runner import running_store
from storeguard.camera.status import CameraState
from storeguard.config.loading import load_zones
from storeguard.config.models import DetectorSettings
from storeguard.config.store import StoreConfig
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.process import ProcessOptions, VideoProcessor
from tests.system.asking import START_S, client, events, port
from tests.waiting import wait_for

VISITS_S = [
    (6.4, 18.65),
    (23.0, 43.65),
    (50.55, 68.75),
    (74.95, 85.52),
    (92.55, 118.47),
    (123.85, 134.65),
]
ZONES = [
    {
        "id": "table",
        "polygon": [[0.30, 0.05], [0.72, 0.05], [0.72, 0.60], [0.30, 0.60]],
        "rules": [
            # Silence is counted by the wall clock: a busy machine is silent for longer than 10 s.
            {"type": "loitering", "anchor": "head", "loiter_s": 3, "grace_s": 1, "max_gap_s": 40}
        ],
    }
]


@pytest.fixture
def table(shared_data: Path) -> Path:
    return shared_data / "videos" / "one_by_one_table.mp4"


def check(events: list[dict[str, Any]]) -> None:
    """One loitering event a visit, no duplicates, dwell within half a second of the reading."""
    assert len({event["event_id"] for event in events}) == len(events) == len(VISITS_S)
    assert {event["status"] for event in events} == {"closed"}
    ordered = sorted(events, key=lambda event: event["started_at"])
    for event, (came_s, left_s) in zip(ordered, VISITS_S, strict=True):
        assert event["dwell_s"] == pytest.approx(left_s - came_s, abs=0.5), event


def test_three_of_four_frames_dropped(table: Path, tmp_path: Path) -> None:
    zones, out = tmp_path / "zones.yaml", tmp_path / "events.jsonl"
    zones.write_text(json.dumps(ZONES))
    VideoProcessor(DetectorSettings(num_cpus=2)).process(
        table, ProcessOptions(zones=load_zones(zones), every=4), ProcessOutputs(events=out)
    )
    newest = {
        (event := json.loads(line))["event_id"]: event for line in out.read_text().splitlines()
    }
    check(list(newest.values()))


def test_the_rules_actor_killed_twice_mid_visit(table: Path, tmp_path: Path) -> None:
    config = StoreConfig.model_validate(
        {
            "store": "eye",
            "data_dir": tmp_path / "data",
            "api": {"port": port()},
            "cameras": [
                {
                    "id": "table",
                    "source": str(table),
                    "pace": "fast",
                    "detect_fps": 5,
                    "recording": {"smart_record": "off"},
                    "zones": ZONES,
                }
            ],
        }
    )
    with running_store(config, say=lambda _: None) as store, client(store.url) as api:
        wait_for(store.cameras)
        for frames in (175, 400):  # both in the middle of a visit
            wait_for(lambda: store.cameras()[0].frames_processed >= frames, seconds=START_S)  # noqa: B023
            rules = ray.get_actor(actor_name("eye", "rules"), namespace=NAMESPACE)
            ray.kill(rules, no_restart=False)
        wait_for(lambda: store.cameras()[0].state is CameraState.ENDED, seconds=START_S)
        assert store.cameras()[0].frames_processed == 697  # every second one of 1394

        def closed() -> list[dict[str, Any]]:
            found = events(api)
            over = all(one["status"] == "closed" for one in found)
            return found if over and len(found) >= len(VISITS_S) else []

        check(wait_for(closed))
