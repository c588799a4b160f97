"""The clip classifier on a real local Ray: a person's clips to a suspicion over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.runner import free_port, running_store
from storeguard.config import StoreConfig
from tests.classification.clip_models import save_suspicious
from tests.system.asking import health, metric
from tests.waiting import EVERYWHERE, wait_for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_suspicious(tmp_path_factory.mktemp("model") / "suspicious.onnx")


@pytest.fixture(scope="module")
def api(
    model: Path, cabin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    kept = {"pre_roll_s": 1, "post_roll_s": 1}
    config = StoreConfig.model_validate(
        {
            "store": "judged",
            "data_dir": tmp_path_factory.mktemp("store"),
            "api": {"port": free_port("127.0.0.1", 0)},
            "classifier": {"model": str(model)},
            "cameras": [
                {
                    "id": "cabin",
                    "source": str(cabin),  # four seconds, again and again
                    "loop": True,
                    "zones": [
                        {
                            "id": "seat",
                            "polygon": EVERYWHERE,
                            "rules": [
                                {"type": "loitering", "loiter_s": 1, "record": False},
                                {
                                    "type": "shoplifting_suspected",
                                    "cls_every_s": 0.4,
                                    "top_clips": 2,
                                    **kept,
                                },
                            ],
                        }
                    ],
                }
            ],
        }
    )
    with (
        running_store(config, say=lambda _: None) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        yield client


def events(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = api.get("/api/v1/events", params={"camera": "cabin", **query})
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def test_a_suspicion_arrives_with_its_score_its_model_and_a_clip(
    api: httpx.Client, model: Path
) -> None:
    event, *_ = wait_for(lambda: events(api, type="shoplifting_suspected", status="closed"))
    hashed = hashlib.sha256(model.read_bytes()).hexdigest()
    assert event["score"] == pytest.approx(0.9526, abs=1e-3)
    assert event["model"] == {"name": "suspicious", "sha256": hashed}
    assert event["attributes"]["threshold"] == 0.6
    assert event["attributes"]["decision"] == "suspected"
    assert event["attributes"]["clips"] >= event["rule"]["top_clips"] == 2

    # the event that the classifier went by carries it, too
    (loitering,) = [
        one for one in events(api, type="loitering") if one["person_id"] == event["person_id"]
    ]
    assert loitering["attributes"]["shoplifting"]["decision"] == "suspected"
    assert loitering["attributes"]["shoplifting"]["model"]["sha256"] == hashed
    assert loitering["model"]["name"] == "person_yolox_nano"

    path = f"/api/v1/events/{event['event_id']}"
    wait_for(lambda: (api.get(path).json()["clip"] or {}).get("uri"))
    clip = api.get(f"{path}/clip")
    assert clip.status_code == 200
    assert clip.content[4:8] == b"ftyp"

    wait_for(lambda: api.get("/api/v1/cameras").json()["cameras"][0]["clips_judged"] >= 2)
    wait_for(lambda: health(api, "classifier") == "ok")
    wait_for(lambda: metric(api, 'storeguard_camera_clips_judged_total{camera="cabin"}') >= 2)
    wait_for(lambda: metric(api, "storeguard_classifier_answered_total") >= 2)
