"""The clip classifier on a real local Ray: a person's clips to a suspicion over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.runner import running_store
from storeguard.config.store import StoreConfig
from tests.classification.clips.clip_models import save_suspicious
from tests.clip_truth import moment
from tests.system.asking import START_S, camera, client, events, health, metric, port
from tests.waiting import EVERYWHERE, wait_for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_suspicious(tmp_path_factory.mktemp("model") / "suspicious.onnx")


@pytest.fixture(scope="module")
def api(
    model: Path, visits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    kept = {"pre_roll_s": 1, "post_roll_s": 1}
    config = StoreConfig.model_validate(
        {
            "store": "judged",
            "data_dir": tmp_path_factory.mktemp("store"),
            "api": {"port": port()},
            "classifier": {"model": str(model)},
            "cameras": [
                {
                    "id": "cabin",
                    "source": str(visits),
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
        client(running.url) as asked,
    ):
        yield asked


def test_a_suspicion_arrives_with_its_score_its_model_and_a_clip(
    api: httpx.Client, model: Path
) -> None:
    def with_clip() -> list[dict[str, Any]]:
        found = events(api, type="shoplifting_suspected", status="closed")
        return [one for one in found if (one["clip"] or {}).get("uri")]

    event, *_ = wait_for(with_clip, seconds=START_S)
    hashed = hashlib.sha256(model.read_bytes()).hexdigest()
    assert event["score"] == pytest.approx(0.9526, abs=1e-3)
    assert event["model"] == {"name": "suspicious", "sha256": hashed}
    assert event["attributes"]["threshold"] == 0.6
    assert event["attributes"]["decision"] == "suspected"
    assert event["attributes"]["clips"] >= event["rule"]["top_clips"] == 2

    # the event that the classifier went by carries it, too
    (loitering,) = [
        one
        for one in events(api, type="loitering", status="closed", person=event["person_id"])
        if moment(one["started_at"]) <= moment(event["started_at"]) <= moment(one["ended_at"])
    ]
    assert loitering["attributes"]["shoplifting"]["decision"] == "suspected"
    assert loitering["attributes"]["shoplifting"]["model"]["sha256"] == hashed
    assert loitering["model"]["name"] == "person_yolox_nano"

    clip = api.get(f"/api/v1/events/{event['event_id']}/clip")
    assert clip.status_code == 200
    assert clip.content[4:8] == b"ftyp"

    wait_for(lambda: camera(api, "cabin")["clips_judged"] >= 2)
    wait_for(lambda: health(api, "classifier") == "ok")
    wait_for(lambda: metric(api, 'storeguard_camera_clips_judged_total{camera="cabin"}') >= 2)
    wait_for(lambda: metric(api, "storeguard_classifier_answered_total") >= 2)
