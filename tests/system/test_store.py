"""The whole system on a real local Ray: cameras to events over HTTP, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray

from actors.naming import NAMESPACE, actor_name
from serve.runner import RunningStore, running_store
from storeguard.config.store import StoreConfig
from tests.system.asking import (
    PATIENT_TRACKER,
    START_S,
    add_camera,
    camera,
    client,
    events,
    port,
    remove_camera,
)
from tests.waiting import EVERYWHERE, wait_for

JUDGED = [
    {
        "id": "seat",
        "polygon": EVERYWHERE,
        "rules": [{"type": "intrusion"}, {"type": "shoplifting_suspected"}],
    }
]


def config_of(folder: Path, bikes: Path, visit: Path) -> StoreConfig:
    rules = [
        {"type": "loitering", "loiter_s": 2, "max_gap_s": 60},
        {"type": "intrusion", "anchor": "hit_ratio", "max_gap_s": 60},
    ]
    return StoreConfig.model_validate(
        {
            "store": "test",
            "data_dir": folder,
            "api": {"port": port()},
            "tracker": PATIENT_TRACKER,
            "placement": {"cameras_per_actor": 2},
            "cameras": [
                {
                    "id": "cabin",
                    "source": str(visit),
                    "zones": [{"id": "seat", "polygon": EVERYWHERE, "rules": rules}],
                },
                {
                    "id": "street",
                    "source": str(bikes),
                    "loop": True,
                    "zones": [{"id": "road", "polygon": EVERYWHERE, "rules": rules}],
                },
            ],
        }
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, bikes: Path, long_visit: Path) -> StoreConfig:
    return config_of(tmp_path_factory.mktemp("store"), bikes, long_visit)


@pytest.fixture(scope="module")
def before_restart(config: StoreConfig) -> set[str]:
    """The store ran before: events happened, a camera was changed, another removed."""
    with (
        running_store(config, say=lambda _: None) as running,
        client(running.url) as api,
    ):
        wait_for(lambda: events(api, camera="street", type="intrusion"), seconds=START_S)
        extra = {"id": "brief", "source": config.cameras[1].source, "loop": True}
        add_camera(api, extra)
        api.patch("/api/v1/cameras/street", json={"detect_fps": 4}).raise_for_status()
        return {event["event_id"] for event in events(api)}


@pytest.fixture(scope="module")
def store(config: StoreConfig, before_restart: set[str]) -> Iterator[RunningStore]:
    assert before_restart
    said: list[str] = []
    with running_store(config, say=said.append) as running:
        yield running
    assert said[-1] == "stopping"
    assert any("'street' was changed at run time" in line for line in said)


@pytest.fixture
def api(store: RunningStore) -> Iterator[httpx.Client]:
    with client(store.url) as asked:
        yield asked


def open_events(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    return events(api, status="open", **query)


def test_what_was_stored_and_changed_survives_a_restart(
    api: httpx.Client, before_restart: set[str]
) -> None:
    wait_for(lambda: before_restart <= {one["event_id"] for one in events(api)})
    assert api.get("/api/v1/cameras/street").json()["settings"]["detect_fps"] == 4
    remove_camera(api, "brief")


def test_real_video_raises_queryable_events(api: httpx.Client) -> None:
    loitering, *_ = wait_for(
        lambda: open_events(api, camera="cabin", type="loitering"), seconds=START_S
    )
    assert loitering["store_id"] == "test"
    assert loitering["zone_id"] == "seat"
    assert loitering["status"] == "open"
    assert loitering["dwell_s"] >= 2
    assert loitering["model"]["name"] == "person_yolox_nano"
    assert loitering["rule"]["loiter_s"] == 2
    assert loitering["started_at"].endswith("Z")
    assert (
        api.get(f"/api/v1/events/{loitering['event_id']}").json()["event_id"]
        == (loitering["event_id"])
    )
    assert wait_for(lambda: events(api, camera="street", type="intrusion"))


def test_the_rules_actor_killed_mid_dwell_goes_on_counting(api: httpx.Client) -> None:
    before, *_ = wait_for(
        lambda: open_events(api, camera="cabin", type="loitering"), seconds=START_S
    )

    def theirs() -> list[str]:
        return sorted(one["event_id"] for one in events(api, person=before["person_id"]))

    raised = theirs()
    rules = ray.get_actor(actor_name("test", "rules"), namespace=NAMESPACE)
    ray.kill(rules, no_restart=False)

    def grown() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"/api/v1/events/{before['event_id']}").json()
        return found if found["dwell_s"] > before["dwell_s"] + 4 else None

    after = wait_for(grown)
    assert after["status"] == "open"
    assert after["started_at"] == before["started_at"]
    assert theirs() == raised  # of any type: nothing was raised a second time


def test_pictures_health_metrics_and_docs(api: httpx.Client) -> None:
    for known in ("cabin", "street"):
        wait_for(lambda known=known: camera(api, known)["frames_processed"], seconds=START_S)
    for path in ("/api/v1/cameras/cabin/snapshot", "/api/v1/cameras/street/snapshot"):
        answer = api.get(path)
        assert answer.status_code == 200
        assert answer.content[:2] == b"\xff\xd8"
    with api.stream("GET", "/api/v1/cameras/cabin/live") as live:
        assert live.headers["content-type"].startswith("multipart/x-mixed-replace")
        assert any(b"\xff\xd8" in chunk for chunk in live.iter_bytes())
    wait_for(lambda: api.get("/healthz").status_code == 200)
    wait_for(lambda: 'camera="cabin"' in api.get("/metrics").text)
    assert "/api/v1/events" in api.get("/docs").text


def test_events_stream_as_they_happen(api: httpx.Client) -> None:
    def change() -> str | None:
        """The first that is told; the stream ends without one while the event store is silent."""
        with api.stream("GET", "/api/v1/events/stream") as stream:
            return next((line for line in stream.iter_lines() if line.startswith("data:")), None)

    assert '"event_id"' in wait_for(change)


def test_cameras_change_at_run_time_without_stopping_others(api: httpx.Client, bikes: Path) -> None:
    before = camera(api, "cabin")
    add_camera(api, {"id": "late", "source": f"{bikes}", "loop": True, "detect_fps": 2})
    wait_for(lambda: camera(api, "late")["frames_processed"], seconds=START_S)
    assert api.post("/api/v1/cameras", json={"id": "late", "source": "x"}).status_code == 409
    zones = [
        {
            "id": "seat",
            "polygon": EVERYWHERE,
            "rules": [{"type": "loitering", "loiter_s": 2, "update_s": 3}],
        }
    ]
    changed = api.patch("/api/v1/cameras/cabin", json={"zones": zones})
    assert changed.status_code == 200, changed.text
    remove_camera(api, "late")
    assert api.get("/api/v1/cameras/late").status_code == 404
    after = wait_for(
        lambda: (
            (now := camera(api, "cabin"))["frames_processed"] > before["frames_processed"] and now
        )
    )
    assert after["reconnects"] == before["reconnects"]
    assert after["frames_in"] >= before["frames_in"]  # a restart would have begun at 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/events?limit=0", None, 422),
        ("GET", "/api/v1/events?start=yesterday", None, 422),
        ("GET", "/api/v1/events/none-such", None, 404),
        ("GET", "/api/v1/cameras/none-such/live", None, 404),
        ("POST", "/api/v1/cameras", {"id": "x"}, 422),
        ("PATCH", "/api/v1/cameras/cabin", {"detect_fps": -1}, 422),
        ("PATCH", "/api/v1/cameras/cabin", {"zones": JUDGED}, 422),  # by a classifier not started
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    api: httpx.Client, method: str, path: str, body: object, status: int
) -> None:
    answer = api.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_dead_detector_comes_back(api: httpx.Client) -> None:
    """The replica's process is killed: frames are lost and counted, then all goes on."""
    replicas = [
        actor
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if "Detector" in actor["name"] and actor["namespace"] == "serve"
    ]
    assert replicas
    for replica in replicas:
        ray.kill(ray.get_actor(replica["name"], namespace="serve"))
    before = camera(api, "street")["frames_processed"]
    wait_for(lambda: camera(api, "street")["frames_processed"] > before + 10)
