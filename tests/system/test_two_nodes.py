"""Cameras on one Ray node, the detector on another: the same events as in one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from actors.naming import NAMESPACE, actor_name
from serve.runner import running_store
from storeguard.camera.status import CameraState
from storeguard.config.loading import load_zones
from storeguard.config.models import DetectorSettings
from storeguard.config.store import StoreConfig
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.process import ProcessOptions, VideoProcessor
from tests.system.asking import START_S, client, events, port
from tests.waiting import EVERYWHERE, wait_for

ZONES = [
    {
        "id": "road",
        "polygon": EVERYWHERE,
        "rules": [
            # Silence is counted by the wall clock: a busy machine is silent for longer than 10 s.
            {"type": "loitering", "loiter_s": 0.5, "max_gap_s": 40},
            {"type": "intrusion", "anchor": "foot", "max_gap_s": 40},
        ],
    }
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"camera": 4}}
    )
    try:
        nodes.add_node(wait=False, num_cpus=1, resources={"detector": 1})
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


def node_of(part: str, namespace: str) -> str | None:
    """The node an actor runs on, told by itself; None while there is none of that name."""
    names = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if part in actor["name"] and actor["namespace"] == namespace
    ]
    if not names:
        return None
    actor = ray.get_actor(names[0], namespace=namespace)
    asked = actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
    return str(ray.get(asked))


def test_two_nodes_raise_the_events_of_one_process(
    cluster: Cluster, bikes: Path, tmp_path: Path
) -> None:
    zones = tmp_path / "zones.yaml"
    zones.write_text(json.dumps(ZONES))
    out = tmp_path / "events.jsonl"
    VideoProcessor(DetectorSettings()).process(
        bikes, ProcessOptions(zones=load_zones(zones)), ProcessOutputs(events=out)
    )
    newest = {
        (event := json.loads(line))["event_id"]: event for line in out.read_text().splitlines()
    }
    expected = facts(list(newest.values()))
    assert {fact[0] for fact in expected} == {"loitering", "intrusion"}

    config = StoreConfig.model_validate(
        {
            "store": "pair",
            "data_dir": tmp_path / "data",
            "api": {"port": port()},
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
    with (
        running_store(config, ray_address=cluster.address, say=lambda _: None) as store,
        client(store.url) as api,
    ):
        camera = wait_for(lambda: node_of(actor_name("pair", "cameras-"), NAMESPACE))
        detector = wait_for(lambda: node_of("#Detector#", "serve"))
        assert camera != detector

        def ended() -> bool:
            return [one.state for one in store.cameras()] == [CameraState.ENDED]

        wait_for(ended, seconds=START_S, found=store.cameras)

        def stored() -> list[tuple[Any, ...]]:
            return facts(events(api))

        wait_for(lambda: stored() == expected, found=lambda: (store.cameras(), stored()))
