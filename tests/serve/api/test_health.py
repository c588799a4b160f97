"""/healthz and /metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storeguard.camera.status import CameraState
from storeguard.events.journal import Backlog, JournalDrops
from storeguard.events.shipper import ShipperStats
from storeguard.inference.batcher import BatcherStats
from tests.serve.api.memory_system import (
    Client,
    MemorySystem,
)


@pytest.mark.parametrize(
    ("change", "status", "part", "state"),
    [
        ({}, 200, "journal", "ok"),
        ({"shipper": None}, 503, "journal", "failed"),
        ({"detector": None, "detector_error": "replica died"}, 503, "detector", "failed"),
        ({"classifier": BatcherStats(*([0] * 6))}, 200, "classifier", "ok"),
        ({"classifier_error": "replica died"}, 200, "classifier", "degraded"),
        ({"shipper": ShipperStats(backlog=Backlog(9, 9, 600.0))}, 200, "journal", "degraded"),
        ({"drops": JournalDrops({"loitering": 2}, {})}, 200, "journal", "degraded"),
    ],
)
def test_health(  # noqa: PLR0917 - the columns of the table
    system: MemorySystem, client: Client, change: dict[str, Any], status: int, part: str, state: str
) -> None:
    system.report = replace(system.report, **change)
    response = client.get("/healthz")
    assert response.status_code == status
    assert response.json()["parts"][part]["status"] == state


@pytest.mark.parametrize(
    ("state", "reason", "detail"),
    [
        (CameraState.PLAYING, None, None),
        (CameraState.ENDED, None, None),  # a film that was played to its end
        (CameraState.ENDED, "truncated", "table: ended (truncated)"),
        (CameraState.NO_PICTURE, "damaged", "table: no_picture (damaged)"),
        (CameraState.STARVING, "0.3 of 5", "table: starving (0.3 of 5)"),
        (CameraState.OVERLOADED, "0.3 of 5", "table: overloaded (0.3 of 5)"),
        (CameraState.RECONNECTING, None, "table: reconnecting"),
    ],
)
def test_a_camera_that_is_not_watched_as_requested_is_a_fault(
    system: MemorySystem,
    client: Client,
    state: CameraState,
    reason: str | None,
    detail: str | None,
) -> None:
    system.cameras.state, system.cameras.state_reason = state, reason
    part = client.get("/healthz").json()["parts"]["cameras"]
    assert part["status"] == ("ok" if detail is None else "degraded")
    assert part["detail"] == (detail or "1 cameras")
    lines = client.get("/metrics").text.splitlines()
    plays = float(state is CameraState.PLAYING)
    assert f'storeguard_camera_up{{camera="table"}} {plays}' in lines
    assert f'storeguard_camera_state{{camera="table",state="{state}"}} 1.0' in lines


def test_a_store_without_a_classifier_has_no_such_part(client: Client) -> None:
    assert "classifier" not in client.get("/healthz").json()["parts"]
    assert "storeguard_classifier" not in client.get("/metrics").text


def test_the_classifiers_queue_is_measured(system: MemorySystem, client: Client) -> None:
    system.report = replace(system.report, classifier=BatcherStats(9, 5, 1, 0, 2, 3))
    lines = client.get("/metrics").text.splitlines()
    for expected in (
        "storeguard_classifier_submitted_total 9.0",
        "storeguard_classifier_refused_total 1.0",
        "storeguard_classifier_batches_total 2.0",
        "storeguard_classifier_waiting 3.0",
        'storeguard_camera_clips_judged_total{camera="table"} 11.0',
    ):
        assert expected in lines


def test_health_with_the_store_down(system: MemorySystem, client: Client) -> None:
    system.events.down = True
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["parts"]["store"]["status"] == "failed"


def test_metrics(system: MemorySystem, client: Client) -> None:
    system.report = replace(system.report, drops=JournalDrops({"loitering": 4}, {}))
    lines = client.get("/metrics").text.splitlines()
    for expected in (
        "storeguard_store_up 1.0",
        'storeguard_camera_up{camera="table"} 1.0',
        'storeguard_camera_frames_dropped_total{camera="table",cause="late"} 3.0',
        'storeguard_camera_step_seconds{camera="table",step="infer"} 0.0125',
        "storeguard_journal_backlog_events 2.0",
        "storeguard_shipper_shipped_total 7.0",
        'storeguard_journal_dropped_total{type="loitering",what="entries"} 4.0',
    ):
        assert expected in lines
    assert not any("person-" in line for line in lines)
