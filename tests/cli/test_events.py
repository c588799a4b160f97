from __future__ import annotations

import io
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from rich.console import Console
from typer.testing import CliRunner, Result

from serve.api.converted import ConvertedClips
from serve.api.events import events_router
from serve.api.problems import install
from storeguard.analytics.track_log import TrackLog
from storeguard.cli.api_client import ApiClient
from storeguard.cli.events import app, event_table
from storeguard.errors import NotFoundError, QueryError, StorageError, StoreError
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.store import EventReader, EventStore
from storeguard.storage.objects import ObjectStore
from storeguard.testing import FakeClock
from tests.analytics.sightings import seen
from tests.valkey import refusing_port, running_valkey
from tests.waiting import wait_for

START = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)
EVENTS = [
    Event(
        event_id=f"event-{n:02d}",
        version=1,
        type=EventType.LOITERING if n % 2 else EventType.INTRUSION,
        status=EventStatus.OPEN if n == 29 else EventStatus.CLOSED,
        store_id="shop",
        camera_id="door" if n % 3 else "table",
        zone_id="shelf",
        person_id=f"table-e-{n // 2}",
        started_at=START + timedelta(minutes=10 * n),
        updated_at=START + timedelta(minutes=10 * n + 1),
        rule={"loiter_s": 3.0},
        dwell_s=float(n),
    )
    for n in range(30)
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API's event routes on a socket, with the real event store behind them."""
    folder = tmp_path_factory.mktemp("store")
    with running_valkey(folder) as valkey:
        with EventStore(valkey.url, timeout_s=60) as store:
            store.upsert([(event, None) for event in EVENTS])
        reader = EventReader(valkey.url, timeout_s=60)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> Any:
            yield
            await reader.close()

        api = FastAPI(lifespan=lifespan)
        install(api)
        objects = ObjectStore(str(folder))
        converted = ConvertedClips(folder / "converted", objects)
        router: APIRouter = events_router(reader, objects, converted)
        api.include_router(router, prefix="/api/v1")
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


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def output_of(*words: str) -> str:
    result = run(*words)
    assert result.exception is None, result.output
    return result.output


def ids_in(folder: Path) -> list[str]:
    return ds.dataset(folder, partitioning="hive").to_table()["event_id"].to_pylist()


def test_list_and_get(url: str) -> None:
    listed = [
        json.loads(line)
        for line in output_of("list", "--json", "--limit", "3", "--url", url).splitlines()
    ]
    assert [event["event_id"] for event in listed] == ["event-29", "event-28", "event-27"]
    assert "intrusion" in output_of("list", "--type", "intrusion", "--url", url)
    assert json.loads(output_of("get", "event-07", "--url", url))["dwell_s"] == 7.0
    assert isinstance(run("get", "event-99", "--url", url).exception, NotFoundError)


@pytest.mark.parametrize("columns", ["80", "40", "200"])
@pytest.mark.parametrize("wide", [[], ["--wide"]])
def test_ids_are_whole_however_narrow_the_terminal_is(
    url: str, wide: list[str], columns: str
) -> None:
    done = CliRunner().invoke(app, ["list", "--url", url, *wide], env={"COLUMNS": columns})
    rows = done.output.splitlines()
    for event in EVENTS[-20:]:
        assert any(row.startswith(event.event_id) for row in rows)
    assert ("table-e-14" in done.output) == bool(wide)


def test_a_table_of_real_ids_fits_80_columns() -> None:
    event = {
        "event_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, "shop")),
        "type": "intrusion",
        "status": "open",
        "camera_id": "door",
        "started_at": "2026-01-31T23:00:00.250Z",
    }
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(event_table([event], title="events"))
    row = console.export_text().splitlines()[-1].split()
    assert row == [event["event_id"], "intrusion", "door", "01-31", "23:00:00", "-"]


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_pages_neither_skip_nor_repeat(url: str, size: int) -> None:
    with ApiClient(url) as api:
        pages = list(api.events_pages(limit=size, zone="shelf", camera=None))
    assert [event["event_id"] for page in pages for event in page] == [
        event.event_id for event in reversed(EVENTS)
    ]
    assert max(len(page) for page in pages) == min(size, 30)


def test_export_is_what_the_store_holds(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = output_of("export", "--out", out, "--url", url)
    assert printed == f"30 events, 2 days, in {out.as_uri()}\n"
    assert ids_in(out) == [event.event_id for event in EVENTS]
    rows = ds.dataset(out, partitioning="hive").to_table().to_pylist()
    assert [row["dwell_s"] for row in rows] == [event.dwell_s for event in EVENTS]
    assert [row["started_at"] for row in rows] == [event.started_at for event in EVENTS]
    assert [row["date"] for row in rows] == 6 * ["2026-01-31"] + 24 * ["2026-02-01"]
    assert {row["rule"] for row in rows} == {'{"loiter_s": 3.0}'}


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (["--camera", "table"], range(0, 30, 3)),
        (["--type", "loitering"], range(1, 30, 2)),
        (["--status", "open"], [29]),
        (["--person", "table-e-4"], [8, 9]),
        (["--zone", "shelf", "--start", "2026-02-01T00:00:00Z"], range(6, 30)),
        (["--end", "2026-01-31T23:20:00Z"], range(2)),
    ],
)
def test_export_takes_the_filters_of_list(
    url: str, tmp_path: Path, filters: list[str], numbers: range
) -> None:
    output_of("export", "--out", tmp_path / "out", "--url", url, *filters)
    expected = [f"event-{n:02d}" for n in numbers]
    assert ids_in(tmp_path / "out") == expected
    listed = output_of("list", "--json", "--limit", "100", "--url", url, *filters).splitlines()
    assert sorted(json.loads(line)["event_id"] for line in listed) == expected


def test_export_overwrites_only_on_request(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output_of("export", "--out", out, "--url", url)
    refused = run("export", "--out", out, "--url", url).exception
    assert isinstance(refused, StorageError)
    assert "--overwrite" in str(refused)
    nothing = output_of("export", "--out", out, "--url", url, "--camera", "cellar", "--overwrite")
    assert nothing == "no events found, nothing was written\n"
    assert len(ids_in(out)) == 30
    output_of("export", "--out", out, "--url", url, "--status", "open", "--overwrite")
    assert ids_in(out) == ["event-29"]


def test_export_that_fails_leaves_nothing(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with refusing_port() as port:
        refused = run("export", "--out", out, "--url", f"http://127.0.0.1:{port}")
    assert isinstance(refused.exception, StoreError)
    assert isinstance(
        run("export", "--out", out, "--url", url, "--start", "noon").exception, QueryError
    )
    assert list(tmp_path.iterdir()) == []


def test_export_of_tracks(tmp_path: Path) -> None:
    log = TrackLog(tmp_path / "tracks", clock=FakeClock(START))
    log.take([seen(START + timedelta(hours=n), "a", camera="door") for n in range(3)])
    log.take([seen(START, "b", "c")])
    log.close()
    out = tmp_path / "out"
    printed = output_of("export", "--tracks", tmp_path / "tracks", "--out", out)
    assert printed == f"5 rows of tracks, 2 days, in {out.as_uri()}\n"
    output_of("export", "--tracks", tmp_path / "tracks", "--out", out, "--overwrite", "--camera", "door", "--end", "2026-02-01T00:30:00Z")  # fmt: skip
    table = ds.dataset(out, partitioning="hive").to_table()
    assert table["person_id"].to_pylist() == ["a", "a"]
    for option in (["--zone", "shelf"], ["--status", "open"], ["--start", "noon"]):
        odd = run("export", "--tracks", tmp_path / "tracks", "--out", tmp_path / "x", *option)
        assert isinstance(odd.exception, QueryError)
        assert option[0].removeprefix("--") in str(odd.exception)
