"""The API over fakes, on a real socket, for the dashboard's tests."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from PIL import Image

from serve.api.converted import ConvertedClips
from serve.api.protocols import HealthReport
from serve.api.routes import create_api
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.errors import NotFoundError, StoreError
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.journal import Backlog
from storeguard.events.keyspace import StoredChange
from storeguard.events.query import EventQuery, Page, cursor_of, position_from, position_of
from storeguard.events.shipper import ShipperStats
from storeguard.inference.batcher import BatcherStats
from tests.serve.server import serving_app

TOKEN = "0123456789abcdef-token"
ZONE = {"id": "table", "polygon": [[0.3, 0.3], [0.7, 0.3], [0.7, 0.9], [0.3, 0.9]]}
RULES = [{"type": "intrusion"}, {"type": "loitering", "loiter_s": 3}]
SETTINGS = {
    "table": {
        "id": "table",
        "source": "rtsp://u:pw@10.0.0.7/1",
        "zones": [{**ZONE, "rules": RULES}],
    },
    "door": {"id": "door", "source": "/dev/video0"},
}
NASTY = '<img src=x onerror="window.hacked=1"><b>shelf</b>'


def jpeg(colour: str = "steelblue") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 36), colour).save(file, "JPEG")
    return file.getvalue()


def event(number: int, **more: Any) -> Event:
    """A closed loitering event; events of successive numbers start a second apart."""
    started = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=number - 5000)
    fields: dict[str, Any] = {
        "event_id": f"event-{number:04d}",
        "version": 1,
        "type": EventType.LOITERING,
        "status": EventStatus.CLOSED,
        "store_id": "shop",
        "camera_id": "table",
        "zone_id": "table",
        "person_id": f"person-{number}",
        "started_at": started,
        "ended_at": started + timedelta(seconds=12),
        "updated_at": started,
        "dwell_s": 12.0,
        **more,
    }
    return Event(**fields)


class Events:
    """An event source in memory; any number of streams can follow its changes."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.changed: list[Event] = []
        self.down = False
        self.answering = threading.Event()
        self.answering.set()
        self.num_waiting = 0

    def put(self, *events: Event) -> None:
        for one in events:
            self.events[one.event_id] = one
            self.changed.append(one)

    def _check(self) -> None:
        if self.down:
            raise StoreError("the event store does not answer")

    async def get(self, event_id: str) -> Event | None:
        self._check()
        return self.events.get(event_id)

    async def query(self, question: EventQuery) -> Page:
        self._check()
        after = position_from(question.cursor) if question.cursor else "z"
        found = sorted(
            (position_of(one.started_at, one.event_id), one)
            for one in list(self.events.values())  # a test may add one from another thread
            if question.admits(one)
            and (question.start is None or one.started_at >= question.start)
            and (question.end is None or one.started_at < question.end)
        )
        left = [pair for pair in reversed(found) if pair[0] < after]
        page = left[: question.limit]
        more = cursor_of(page[-1][0]) if len(left) > len(page) else None
        self.num_waiting += 1
        while not self.answering.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.02)
        self.num_waiting -= 1
        return Page(tuple(one for _, one in page), more)

    async def ping(self) -> None:
        self._check()

    async def missed_changes(self, after: str) -> bool:  # noqa: ARG002
        return False

    async def changes(
        self,
        after: str | None = None,
        *,
        idle_s: float = 15.0,  # noqa: ARG002
    ) -> AsyncIterator[StoredChange | None]:
        self._check()
        at = len(self.changed) if after is None else int(after.partition("-")[0])
        yield None
        while True:
            self._check()
            while at < len(self.changed):
                at += 1
                yield StoredChange(f"{at}-0", self.changed[at - 1])
            await asyncio.sleep(0.02)


class Cameras:
    """Cameras whose pictures alternate between colours."""

    def __init__(self) -> None:
        self.settings = {key: CameraConfig.model_validate(one) for key, one in SETTINGS.items()}
        self.states = {"table": CameraState.PLAYING, "door": CameraState.RECONNECTING}
        self.more: dict[str, Any] = {}
        self.watched = 0
        self.num_sent = 0
        self.late = timedelta(0)
        self.numbers = itertools.count()
        self.commands: list[Any] = []
        self.pictures = {"table": [jpeg("steelblue"), jpeg("seagreen")], "door": [jpeg("gray")]}
        self.down = False

    async def list(self) -> list[CameraStatus]:
        if self.down:
            raise ConnectionError("the supervisor does not answer")
        return [
            CameraStatus(
                id=camera.id,
                source=camera.source,
                state=self.states[camera.id],
                width=640,
                height=360,
                codec="h264",
                fps_in=25.0,
                fps_processed=4.8,
                dropped={"superseded": 3, "undecodable": 1},
                people_in_view=2,
                last_frame_at=datetime.now(UTC),
                **self.more.get(camera.id, {}),
            )
            for camera in self.settings.values()
        ]

    async def get(self, camera_id: str) -> CameraConfig:
        if camera_id not in self.settings:
            raise NotFoundError(f"there is no camera {camera_id!r}")
        return self.settings[camera_id]

    async def picture(self, camera_id: str, query: PictureQuery) -> LivePicture | None:
        pictures = self.pictures[camera_id]
        if not query.overlay:
            return LivePicture(pictures[0], datetime.now(UTC))
        self.watched += 1
        try:
            await asyncio.sleep(0.1)
            self.num_sent += 1
            picture = pictures[next(self.numbers) % len(pictures)]
            return LivePicture(picture, datetime.now(UTC) - self.late)
        finally:
            self.watched -= 1

    async def record(self, camera_id: str, command: Any) -> dict[str, Any]:
        self.commands.append((camera_id, command.command))
        return {}

    async def _unsupported(self, *_: Any) -> Any:
        raise NotImplementedError

    add = patch = remove = _unsupported


class Objects:
    """Files in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"file:///a.jpg": jpeg()}

    def size(self, key_or_uri: str) -> int:
        if key_or_uri not in self.files:
            raise NotFoundError(f"{key_or_uri}: there is no such object")
        return len(self.files[key_or_uri])

    def open(self, key_or_uri: str) -> io.BytesIO:
        self.size(key_or_uri)
        return io.BytesIO(self.files[key_or_uri])


class DashboardSystem:
    """The API and the fakes behind it.

    Args:
        settings: its settings.
        folder: where converted clips are.
        routers: further routes.
    """

    def __init__(
        self, settings: ApiSettings, *, folder: Path, routers: Sequence[APIRouter] = ()
    ) -> None:
        self.events = Events()
        self.cameras = Cameras()
        self.objects = Objects()
        self.detector: BatcherStats | None = BatcherStats(*([0] * 6))
        self.app = create_api(
            events=self.events,
            cameras=self.cameras,
            objects=self.objects,
            converted=ConvertedClips(folder, self.objects),
            settings=settings,
            health=self.report,
            routers=routers,
        )
        self.url = ""

    async def report(self) -> HealthReport:
        shipper = ShipperStats(shipped=7, backlog=Backlog(0, 0, None))
        return HealthReport(shipper=shipper, detector=self.detector)


@contextmanager
def serving(system: DashboardSystem) -> Iterator[DashboardSystem]:
    """Serve on a free port of 127.0.0.1 until the end of the block."""
    with serving_app(system.app) as port:
        system.url = f"http://127.0.0.1:{port}"
        yield system
