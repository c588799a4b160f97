"""An attribute's classifier on a real local Ray: looks at people to events and analytics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.runner import running_store
from storeguard.config.store import StoreConfig
from tests.classification.attributes.models import save_colour_model
from tests.system.asking import START_S, camera, client, events, health, metric, port
from tests.waiting import EVERYWHERE, wait_for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says `basket` whatever it is shown, by how bright it is."""
    return save_colour_model(
        tmp_path_factory.mktemp("model") / "everybody.onnx",
        labels=("none", "basket"),
        mix=[[0, 5], [0, 5], [0, 5]],
        metadata={"pixels": "unit"},
    )


@pytest.fixture(scope="module")
def api(
    model: Path, visits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    config = StoreConfig.model_validate(
        {
            "store": "attributes",
            "data_dir": tmp_path_factory.mktemp("store"),
            "api": {"port": port()},
            "attributes": [{"name": "basket", "model": str(model), "every_s": 0.3, "min_votes": 2}],
            "tracks": {"flush_s": 1},
            "cameras": [
                {
                    "id": "cabin",
                    "source": str(visits),
                    "loop": True,
                    "recording": {"smart_record": "off"},
                    "zones": [
                        {
                            "id": "seat",
                            "polygon": EVERYWHERE,
                            "rules": [{"type": "intrusion", "cooldown_s": 0}],
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


def test_labels_arrive_on_events_and_in_analytics(api: httpx.Client, model: Path) -> None:
    def labelled() -> list[dict[str, Any]]:
        return [one for one in events(api, status="closed") if "basket" in one["attributes"]]

    event, *_ = wait_for(labelled, seconds=START_S)
    told = event["attributes"]["basket"]
    assert told["label"] == "basket"
    assert told["share"] == 1.0
    assert told["votes"] >= 2
    assert told["model"] == {
        "name": "everybody",
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    assert event["model"]["name"] == "person_yolox_nano"

    wait_for(
        lambda: camera(api, "cabin")["looks_taken"] >= 2
    )  # a camera tells of itself every other second
    wait_for(lambda: health(api, "attribute basket") == "ok")
    wait_for(lambda: metric(api, 'storeguard_attribute_answered_total{attribute="basket"}') >= 2)
    wait_for(lambda: metric(api, 'storeguard_camera_looks_taken_total{camera="cabin"}') >= 2)

    def counted() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get("/api/v1/analytics/baskets").json()
        return found if found["labels"] else None

    found = wait_for(counted)
    assert found["labels"]["basket"] + found["unknown"] == found["visitors"]
    assert api.get("/api/v1/analytics/visitors").json()["visitors"] >= found["visitors"]
    missing = api.get("/api/v1/analytics/baskets", params={"attribute": "hat"})
    assert missing.status_code == 404
    assert "attributes: basket" in missing.json()["detail"]
