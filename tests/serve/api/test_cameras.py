"""Cameras over HTTP: settings, pictures, recording commands."""

from __future__ import annotations

from typing import Any

import pytest

from serve.api.cameras import patched
from storeguard.config.store import CameraConfig
from storeguard.errors import ConfigError
from tests.serve.api.memory_system import (
    SECRET_SOURCE,
    Client,
    MemorySystem,
    assert_problem,
)


def test_credentials_are_never_shown(client: Client) -> None:
    for path in ("/api/v1/cameras", "/api/v1/cameras/table", "/metrics", "/healthz"):
        text = client.get(path).text
        assert "secret" not in text, path
    assert (
        client.get("/api/v1/cameras/table").json()["settings"]["source"]
        == "rtsp://***@10.0.0.7/stream1"
    )


def test_cameras_come_and_go(system: MemorySystem, client: Client) -> None:
    body = {"id": "door", "source": "rtsp://a:b@10.0.0.8/1", "detect_fps": 3}
    created = client.post("/api/v1/cameras", json=body)
    assert created.status_code == 201
    assert created.headers["location"] == "/api/v1/cameras/door"
    assert system.cameras.settings["door"].source == "rtsp://a:b@10.0.0.8/1"
    assert "a:b" not in created.text
    assert_problem(client.post("/api/v1/cameras", json=body), 409, "door")
    assert client.delete("/api/v1/cameras/door").status_code == 204
    assert_problem(client.delete("/api/v1/cameras/door"), 404)


ZONE = {"id": "z", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]}


def test_patch_merges_and_keeps_credentials(system: MemorySystem, client: Client) -> None:
    shown = client.get("/api/v1/cameras/table").json()["settings"]
    changes = {"source": shown["source"], "detect_fps": 2, "zones": [ZONE], "enabled": False}
    response = client.patch("/api/v1/cameras/table", json=changes)
    assert response.status_code == 200, response.text
    now = system.cameras.settings["table"]
    assert now.source == SECRET_SOURCE
    assert (now.detect_fps, now.enabled, now.zones[0].id) == (2, False, "z")
    # null takes a key back to its default, nested keys are merged
    client.patch("/api/v1/cameras/table", json={"recording": {"cache_s": 60}})
    client.patch("/api/v1/cameras/table", json={"detect_fps": None, "recording": {"folder": "x"}})
    now = system.cameras.settings["table"]
    assert now.detect_fps == 5
    assert (now.recording.cache_s, now.recording.folder) == (60, "x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detect_fps": -1}, ["detect_fps", "-1"]),
        ({"detect_fsp": 1}, ["detect_fsp"]),
        ({"id": "other"}, ["id", "table"]),
        ({"source": None}, ["source"]),
        ({"source": "rtsp://***@10.0.0.9/2"}, ["source", "hidden"]),
        ({"zones": [{**ZONE, "polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}]}, ["zone", "'z'"]),
        ({"zones": [ZONE, ZONE]}, ["zone", "2 times"]),
        ({"zones": 3}, ["zones"]),
        ([1, 2], ["body"]),
        ("x", ["body"]),
    ],
)
def test_bad_patches_change_nothing(
    system: MemorySystem, client: Client, changes: Any, words: list[str]
) -> None:
    response = client.patch("/api/v1/cameras/table", json=changes)
    assert_problem(response, 422, *words)
    assert system.cameras.patches == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"command": "start-recording"}, 202),
        ({"command": "stop-recording", "sensor": {"id": "table"}}, 202),
        (
            {
                "command": "start-recording",
                "start": "2026-01-31T09:30:00Z",
                "end": "2026-01-31T09:31:00.500+00:00",
            },
            202,
        ),
        ({"command": "start-recording", "duration_s": 5}, 202),
        ({"command": "explode"}, 422),
        ({"command": "start-recording", "sensor": {"id": "door"}}, 422),
        ({"command": "start-recording", "start": "2026-01-31T09:30:00"}, 422),
        (
            {
                "command": "start-recording",
                "start": "2026-01-31T09:30:00Z",
                "end": "2026-01-31T09:30:00Z",
            },
            422,
        ),
        ({"command": "start-recording", "duration_s": -5}, 422),
        ({"command": "start-recording", "end": "2026-01-31T09:30:00Z", "duration_s": 5}, 422),
    ],
)
def test_recording_commands(
    system: MemorySystem, client: Client, body: dict[str, Any], status: int
) -> None:
    response = client.post("/api/v1/cameras/table/recordings", json=body)
    assert response.status_code == status, response.text
    assert len(system.cameras.commands) == (status == 202)
    if status != 202:
        assert_problem(response, 422)


def test_patched_is_pure() -> None:
    before = CameraConfig(id="table", source=SECRET_SOURCE)
    assert patched(before, {}) == before
    with pytest.raises(ConfigError, match="never changes"):
        patched(before, {"id": "x"})
