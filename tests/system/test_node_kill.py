"""The camera node is lost with all its processes while clips are written; another takes over."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray._private.node import Node
from ray.cluster_utils import Cluster

from serve.runner import running_store
from storeguard.config.store import StoreConfig
from tests.clip_truth import check_clips
from tests.system.asking import START_S, client, events, port, remove_camera
from tests.system.clip_progress import second_fragment_written, unfinished
from tests.waiting import EVERYWHERE, wait_for

QUICKLY = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": QUICKLY})
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def config_of(folder: Path, bikes: Path, visit: Path) -> StoreConfig:
    roll = {"pre_roll_s": 1, "post_roll_s": 1}
    intrusion = {"type": "intrusion", "anchor": "foot", "grace_s": 0.3, "cooldown_s": 0}
    return StoreConfig.model_validate(
        {
            "store": "nodes",
            "data_dir": folder,
            "api": {"port": port()},
            "storage": {"min_free_bytes": 0},
            "placement": {"camera_resource": 1},
            "cameras": [
                {
                    "id": "street",
                    "source": str(bikes),
                    "loop": True,
                    "zones": [
                        {"id": "road", "polygon": EVERYWHERE, "rules": [{**intrusion, **roll}]}
                    ],
                },
                {
                    "id": "cabin",  # recorded all the time, in files of six seconds
                    "source": str(visit),
                    "loop": True,
                    "recording": {"max_duration_s": 6},
                    "zones": [
                        {
                            "id": "seat",
                            "polygon": EVERYWHERE,
                            "rules": [{"type": "loitering", "loiter_s": 1, **roll}],
                        }
                    ],
                },
            ],
        }
    )


def kill_node(node: Node) -> None:
    """`kill -9` of the raylet and of everything it started, at once."""
    raylets = [one.process.pid for one in node.all_processes["raylet"]]
    workers = [child for raylet in raylets for child in children(raylet)]
    for pid in [*raylets, *workers]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """All processes below one, at any depth."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def whole(api: httpx.Client) -> set[str]:
    """Ids of the street's events with all of their video."""
    return {
        one["event_id"]
        for one in events(api, camera="street", status="closed")
        if (clip := one.get("clip") or {}).get("uri")
        and not clip.get("error")
        and clip["end"] >= clip["requested_end"]
    }


def test_kill_9_of_the_camera_node_while_clips_are_written(
    cluster: Cluster, bikes: Path, long_visit: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, bikes, long_visit)
    with (
        running_store(config, ray_address=cluster.address, say=lambda _: None) as store,
        client(store.url) as api,
    ):
        # Only now: everything else is on the head, and stays.
        first = cluster.add_node(wait=False, num_cpus=1, resources={"camera": 1})
        wait_for(lambda: whole(api), seconds=START_S)
        wait_for(lambda: second_fragment_written(tmp_path, "cabin"))

        kill_node(first)
        before = {one["event_id"] for one in events(api)}
        cluster.remove_node(first, allow_graceful=False)
        cluster.add_node(wait=False, num_cpus=1, resources={"camera": 1})
        wait_for(lambda: whole(api) - before, seconds=START_S)

        for camera_id in ("cabin", "street"):
            remove_camera(api, camera_id)

        def left() -> list[Any]:
            return unfinished(api, tmp_path, "cabin", "street")

        wait_for(lambda: not left(), seconds=START_S, found=left)
        check_clips(events(api), tmp_path / "objects")
