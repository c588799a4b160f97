"""The API on a real socket, a real store and a real object store."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from serve.api.converted import ConvertedClips
from serve.api.protocols import HealthReport
from serve.api.routes import create_api
from storeguard.config.store import ApiSettings
from storeguard.events.event import ClipRef
from storeguard.events.store import EventReader, EventStore
from storeguard.storage.objects import ObjectStore
from tests.events.factories import event
from tests.serve.api.memory_system import MemoryCameras
from tests.storage.objects import put
from tests.valkey import ValkeyProcess, running_valkey

CLIP = bytes(range(256)) * 4000


async def no_report() -> HealthReport:
    return HealthReport(shipper=None)


@contextmanager
def served(valkey: ValkeyProcess, objects: ObjectStore, folder: Path) -> Iterator[str]:
    """The API's address while it runs in a thread."""
    reader = EventReader(valkey.url, poll_s=0.02, timeout_s=60)
    app = create_api(
        events=reader,
        cameras=MemoryCameras(),
        objects=objects,
        converted=ConvertedClips(folder, objects),
        settings=ApiSettings(),
        health=no_report,
    )
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    )

    async def run() -> None:
        await server.serve()
        await reader.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with running_valkey(tmp_path_factory.mktemp("valkey"), append_only=True) as server:
        yield server


def test_a_reader_that_reconnects_misses_nothing(valkey: ValkeyProcess, tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path / "clips"))
    stored = put(objects, CLIP, "table/clip.mp4")
    with (
        served(valkey, objects, tmp_path / "converted") as address,
        EventStore(valkey.url, timeout_s=60) as store,
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        with client.stream("GET", "/api/v1/events/stream") as response:
            # The response has begun, so every change stored from here on is sent.
            store.upsert([(event(1), 12.5)])
            lines = response.iter_lines()
            assert next(lines) == "retry: 2000"
            first = next(line for line in lines if line.startswith("id: "))
            data = json.loads(next(lines).removeprefix("data: "))
            assert data["event_id"] == "event-1"
            assert data["latency_ms"] == {"capture_to_store": 12.5}
        clip = ClipRef(uri=stored.uri, sha256=stored.sha256)
        store.upsert([(event(1, 2, clip=clip), None), (event(2), None)])
        headers = {"Last-Event-ID": first.removeprefix("id: ")}
        with client.stream("GET", "/api/v1/events/stream", headers=headers) as response:
            bodies = (line[6:] for line in response.iter_lines() if line.startswith("data: "))
            found = [json.loads(body) for body in itertools.islice(bodies, 2)]
        assert [(one["event_id"], one["version"]) for one in found] == [
            ("event-1", 2),
            ("event-2", 1),
        ]
        part = client.get("/api/v1/events/event-1/clip", headers={"Range": "bytes=1000-300999"})
        assert (part.status_code, part.content) == (206, CLIP[1000:301_000])
        page = client.get("/api/v1/events", params={"limit": 1}).json()
        rest = client.get("/api/v1/events", params={"cursor": page["next_cursor"]}).json()
        assert [one["event_id"] for one in page["events"] + rest["events"]] == [
            "event-2",
            "event-1",
        ]


def test_the_api_outlives_its_store(valkey: ValkeyProcess, tmp_path: Path) -> None:
    with (
        served(valkey, ObjectStore(str(tmp_path)), tmp_path / "converted") as address,
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        before = client.get("/api/v1/events").json()
        valkey.kill()
        down = client.get("/api/v1/events")
        assert (down.status_code, down.json()["status"]) == (503, 503)
        assert client.get("/healthz").json()["parts"]["store"]["status"] == "failed"
        valkey.start()
        assert client.get("/api/v1/events").json() == before
