"""`storeguard clips` against the API's real routes, the real event store and real files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner

from serve.api.converted import ConvertedClips
from serve.api.events import events_router
from serve.api.problems import install
from storeguard.cli.clips import app
from storeguard.errors import NotFoundError
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, EventType
from storeguard.events.store import EventReader, EventStore
from storeguard.storage.objects import ObjectStore
from tests.valkey import running_valkey
from tests.waiting import wait_for

START = datetime(2026, 1, 31, tzinfo=UTC)
FILES = [b"first", b"second", b"third"]


def event(event_id: str, clip: ClipRef) -> Event:
    return Event(
        event_id=event_id,
        version=1,
        type=EventType.INTRUSION,
        status=EventStatus.CLOSED,
        store_id="shop",
        camera_id="door",
        started_at=START,
        updated_at=START,
        clip=clip,
    )


def _store(objects: ObjectStore, source: Path, content: bytes, key: str) -> str:
    source.write_bytes(content)
    return objects.put_file(source, key).uri


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("store")
    objects = ObjectStore(str(folder / "objects"))
    uris = [
        _store(objects, folder / "source.mp4", content, f"{n}.mp4")
        for n, content in enumerate(FILES)
    ]
    first, *rest = [ClipPart(uri=uri, start=START, end=START) for uri in uris]
    long = ClipRef(uri=first.uri, start=START, end=START, parts=tuple(rest))
    short = ClipRef(uri=first.uri, start=START, end=START)
    events = [
        event("long", long),
        event("short", short),
        event("none", ClipRef(error="the disk was full")),
    ]
    with running_valkey(folder / "valkey") as valkey:
        with EventStore(valkey.url, timeout_s=60) as store:
            store.upsert([(one, None) for one in events])
        reader = EventReader(valkey.url, timeout_s=60)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> Any:
            yield
            await reader.close()

        api = FastAPI(lifespan=lifespan)
        install(api)
        converted = ConvertedClips(folder / "converted", objects)
        api.include_router(events_router(reader, objects, converted), prefix="/api/v1")
        server = uvicorn.Server(
            uvicorn.Config(api, host="127.0.0.1", port=0, log_level="error", ws="none")
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    ("event_id", "names"),
    [("long", ["clip.mp4", "clip.part1.mp4", "clip.part2.mp4"]), ("short", ["clip.mp4"])],
)
def test_get_writes_every_file(url: str, tmp_path: Path, event_id: str, names: list[str]) -> None:
    result = CliRunner().invoke(app, ["get", event_id, str(tmp_path / "clip.mp4"), "--url", url])
    assert result.exception is None, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_bytes() for name in names] == FILES[: len(names)]


def test_get_of_an_event_without_a_clip_reports_why_and_writes_nothing(
    url: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["get", "none", str(tmp_path / "clip.mp4"), "--url", url])
    assert isinstance(result.exception, NotFoundError)
    assert "the disk was full" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wide", [[], ["--wide"]])
def test_list_shows_whole_ids_and_why_there_is_no_clip(url: str, wide: list[str]) -> None:
    done = CliRunner().invoke(app, ["list", "--url", url, *wide], env={"COLUMNS": "80"})
    assert done.exception is None, done.output
    rows = {row.split()[0]: row for row in done.output.splitlines()[2:]}
    assert {"long", "short", "none"} <= set(rows)
    assert "stored" in rows["short"]
    assert "the disk was full" in rows["none"]
    assert ("intrusion" in rows["short"]) == bool(wide)
