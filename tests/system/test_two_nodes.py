"""Cameras on one Ray node, the detector on another: the same events as in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from serve.runner import free_port, running_store
from storeguard.config import StoreConfig
from storeguard.loading import load_zones
from storeguard.model_config import DetectorSettings
from storeguard.pipeline.process import ProcessOptions, ProcessOutputs, VideoProcessor
from storeguard.pipeline.status import CameraState
from tests.waiting import EVERYWHERE, wait_for

ZONES = [
    {
        "id": "road",
        "polygon": EVERYWHERE,
        "rules": [
            {"type": "loitering", "loiter_s": 0.5},
            {"type": "intrusion", "anchor": "foot"},
        ],
    }
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"camera": 4}}
    )
    try:
        nodes.add_node(num_cpus=1, resources={"detector": 1})
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def facts(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must be the same wherever it ran: all but ids, which name the run."""
    return sorted(
        (
            event["type"],
            event["zone_id"],
            event["started_at"],
            event["ended_at"],
            event["dwell_s"],
            event["status"],
        )
        for event in events
    )


def nodes_of(*class_names: str) -> list[str] | None:
    """The nodes these actors run on; None while one of them does not run."""
    found = {
        actor.class_name: actor.node_id
        for actor in list_actors(filters=[("state", "=", "ALIVE")], limit=1000)
    }
    return [found[name] for name in class_names] if found.keys() >= set(class_names) else None


def test_two_nodes_raise_the_events_of_one_process(
    cluster: Cluster, bikes: Path, tmp_path: Path
) -> None:
    zones = tmp_path / "zones.yaml"
    zones.write_text(json.dumps(ZONES))
    out = tmp_path / "events.jsonl"
    VideoProcessor(DetectorSettings()).process(
        bikes, ProcessOptions(zones=load_zones(zones)), ProcessOutputs(events=out)
    )
    newest = {(event := json.loads(line))["event_id"]: event for line in out.open()}
    expected = facts(list(newest.values()))
    assert {fact[0] for fact in expected} == {"loitering", "intrusion"}

    config = StoreConfig.model_validate(
        {
            "store": "pair",
            "data_dir": tmp_path / "data",
            "api": {"port": free_port("127.0.0.1", 0)},
            "placement": {"camera_resource": 1, "detector_resources": {"detector": 1}},
            # Every frame, at whatever pace the detector keeps: the file loses none.
            "cameras": [
                {
                    "id": "street",
                    "source": str(bikes),
                    "pace": "fast",
                    "detect_fps": 240,
                    "zones": ZONES,
                }
            ],
        }
    )
    with running_store(config, ray_address=cluster.address, say=lambda _: None) as store:
        where = wait_for(lambda: nodes_of("CameraActor", "ServeReplica:storeguard:Detector"))
        assert len(set(where)) == 2
        wait_for(lambda: [one.state for one in store.cameras()] == [CameraState.ENDED])

        def stored() -> list[tuple[Any, ...]]:
            answer = httpx.get(f"{store.url}/api/v1/events", params={"limit": 1000}, timeout=30)
            return facts(answer.json()["events"])

        wait_for(lambda: stored() == expected)
