"""The API over fakes in memory, called in this process without a socket."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
from fastapi import FastAPI

from serve.api.cameras import patched
from serve.api.converted import ConvertedClips
from serve.api.protocols import HealthReport, RecordCommand
from serve.api.routes import create_api
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.errors import NotFoundError, StorageError, StoreError
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, EventType, SnapshotRef
from storeguard.events.journal import Backlog, JournalDrops
from storeguard.events.keyspace import StoredChange
from storeguard.events.query import EventQuery, Page
from storeguard.events.shipper import ShipperStats
from storeguard.inference.batcher import BatcherStats

TOKEN = "0123456789abcdef-token"
START = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
CLIP = bytes(range(256)) * 40
SECOND_FILE = b"the next file of the clip"
SECRET_SOURCE = "rtsp://user:secret@10.0.0.7/stream1"


def event(number: int, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": f"event-{number}",
        "version": 1,
        "type": EventType.LOITERING,
        "status": EventStatus.OPEN,
        "store_id": "shop",
        "camera_id": "table",
        "zone_id": "zone",
        "person_id": f"person-{number}",
        "started_at": START + timedelta(seconds=number),
        "updated_at": START + timedelta(seconds=number),
        "dwell_s": float(number),
        **more,
    }
    return Event(**fields)


class MemoryEvents:
    """An event source that holds a list; `down` makes it fail as the store's client does."""

    def __init__(self, events: list[Event]) -> None:
        self.events = {one.event_id: one for one in events}
        self.down = False
        self.missed = False
        self.followed: list[str | None] = []

    def _check(self) -> None:
        if self.down:
            raise StoreError("event store redis://:pw@10.0.0.1: connection refused")

    async def get(self, event_id: str) -> Event | None:
        self._check()
        return self.events.get(event_id)

    async def query(self, question: EventQuery) -> Page:
        self._check()
        found = [one for one in reversed(self.events.values()) if question.admits(one)]
        return Page(tuple(found[: question.limit]), None)

    async def ping(self) -> None:
        self._check()

    async def missed_changes(self, after: str) -> bool:  # noqa: ARG002 - the protocol's
        return self.missed

    async def changes(
        self,
        after: str | None = None,
        *,
        idle_s: float = 15.0,  # noqa: ARG002 - as above
    ) -> AsyncIterator[StoredChange | None]:
        self._check()
        self.followed.append(after)
        yield None
        for number, one in enumerate(self.events.values()):
            yield StoredChange(f"{number + 1}-0", one)
        yield None


class MemoryCameras:
    """Cameras that only record what was requested."""

    def __init__(self) -> None:
        self.settings = {"table": CameraConfig(id="table", source=SECRET_SOURCE)}
        self.commands: list[RecordCommand] = []
        self.patches: list[dict[str, Any]] = []
        self.state = CameraState.PLAYING
        self.state_reason: str | None = None
        self.pictures = 0

    def _status(self, camera: CameraConfig) -> CameraStatus:
        return CameraStatus(
            id=camera.id,
            source=camera.source,
            state=self.state,
            state_reason=self.state_reason,
            dropped={"late": 3},
            clips_judged=11,
            latency_ms={"infer": 12.5, "track": None},
            last_error=f"{camera.source}: timed out",
        )

    async def list(self) -> list[CameraStatus]:
        return [self._status(camera) for camera in self.settings.values()]

    async def get(self, camera_id: str) -> CameraConfig:
        if camera_id not in self.settings:
            raise NotFoundError(f"there is no camera {camera_id!r}")
        return self.settings[camera_id]

    async def add(self, camera: CameraConfig) -> CameraStatus:
        self.settings[camera.id] = camera
        return self._status(camera)

    async def patch(self, camera_id: str, changes: dict[str, Any]) -> CameraStatus:
        self.patches.append(changes)
        self.settings[camera_id] = patched(await self.get(camera_id), changes)
        return self._status(self.settings[camera_id])

    async def remove(self, camera_id: str) -> None:
        await self.get(camera_id)
        del self.settings[camera_id]

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        await self.get(camera_id)
        await asyncio.sleep(0)
        captured_at = START + timedelta(seconds=self.pictures)
        if not query.admits(captured_at):
            return None
        painted = b"painted-" if query.overlay else b""
        return LivePicture(b"\xff\xd8%s%d" % (painted, self.pictures), captured_at)

    async def record(self, camera_id: str, command: RecordCommand) -> dict[str, Any]:  # noqa: ARG002 - as above
        self.commands.append(command)
        return {"recording": True}


class MemoryObjects:
    def __init__(self) -> None:
        self.files = {
            "file:///clips/a.mp4": CLIP,
            "file:///clips/b.mp4": SECOND_FILE,
            "file:///clips/a.jpg": b"\xff\xd8",
        }
        self.down = False

    def size(self, key_or_uri: str) -> int:
        if self.down:
            raise StorageError(f"{key_or_uri}: connection refused")
        if key_or_uri not in self.files:
            raise NotFoundError(f"{key_or_uri}: there is no such object")
        return len(self.files[key_or_uri])

    def open(self, key_or_uri: str) -> io.BytesIO:
        self.size(key_or_uri)
        return io.BytesIO(self.files[key_or_uri])


class Client:
    """Calls the app in this process, without a socket."""

    def __init__(self, app: FastAPI, base_url: str) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url=base_url)
        self._runner = asyncio.Runner()
        self.cookies = self._client.cookies

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **more))

    def __getattr__(self, verb: str) -> Callable[..., httpx.Response]:
        return partial(self.request, verb.upper())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class MemorySystem:
    """The API and the fakes behind it.

    Args:
        api: its settings.
        folder: where converted clips are.
    """

    def __init__(self, api: ApiSettings, *, folder: Path) -> None:
        later = START + timedelta(seconds=300)
        more = ClipPart(uri="file:///clips/b.mp4", start=later, end=later, sha256="cd" * 32)
        clip = ClipRef(uri="file:///clips/a.mp4", sha256="ab" * 32, parts=(more,))
        snapshot = SnapshotRef(uri="file:///clips/a.jpg")
        self.events = MemoryEvents(
            [
                event(1, clip=clip, snapshot=snapshot),
                event(2, camera_id="door", clip=ClipRef(error="the disk was full")),
                event(3, clip=ClipRef(uri="file:///clips/gone.mp4")),
            ]
        )
        self.cameras = MemoryCameras()
        self.objects = MemoryObjects()
        self.report = HealthReport(
            shipper=ShipperStats(shipped=7, backlog=Backlog(2, 900, 1.5)),
            drops=JournalDrops({}, {}),
            detector=BatcherStats(*([0] * 6)),
        )
        self.app = create_api(
            events=self.events,
            cameras=self.cameras,
            objects=self.objects,
            converted=ConvertedClips(folder, self.objects),
            settings=api,
            health=self._health,
        )

    async def _health(self) -> HealthReport:
        return self.report

    def client(self, base_url: str = "http://127.0.0.1:8080") -> Client:
        return Client(self.app, base_url)


def assert_problem(response: Any, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    for word in words:
        assert word in document["detail"]
