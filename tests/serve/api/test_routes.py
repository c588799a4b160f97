from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.api.cameras import patched
from serve.api.parts import HealthReport, RecordCommand
from serve.api.routes import create_api
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.store import ApiSettings, CameraConfig
from storeguard.errors import ConfigError, NotFoundError, StorageError, StoreError
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
    """Cameras that do nothing but remember."""

    def __init__(self) -> None:
        self.settings = {"table": CameraConfig(id="table", source=SECRET_SOURCE)}
        self.commands: list[RecordCommand] = []
        self.patches: list[dict[str, Any]] = []
        self.closed = 0

    def _status(self, camera: CameraConfig) -> CameraStatus:
        return CameraStatus(
            id=camera.id,
            source=camera.source,
            state=CameraState.PLAYING,
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

    async def snapshot(self, camera_id: str) -> bytes | None:
        await self.get(camera_id)
        return b"\xff\xd8jpeg"

    async def live(self, camera_id: str) -> AsyncIterator[bytes]:  # noqa: ARG002 - as above
        try:
            for number in range(3):
                yield b"picture-%d" % number
                await asyncio.sleep(0)
        finally:
            self.closed += 1

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
    """Asks the app in this process, without a socket."""

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


class House:
    """The API and all that stands behind it."""

    def __init__(self, api: ApiSettings) -> None:
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
            settings=api,
            health=self._health,
        )

    async def _health(self) -> HealthReport:
        return self.report

    def client(self, base_url: str = "http://127.0.0.1:8080") -> Client:
        return Client(self.app, base_url)


@pytest.fixture
def house() -> House:
    return House(ApiSettings())


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with house.client() as client:
        yield client


@pytest.fixture
def locked() -> Iterator[Client]:
    """An API that demands a token."""
    with House(ApiSettings(host="0.0.0.0", token=TOKEN)).client(
        "http://shop.example:8080"
    ) as client:
        yield client


def assert_problem(response: Any, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    for word in words:
        assert word in document["detail"]


# ---------------------------------------------------------------------- events


def test_events_are_listed_as_the_schema_says(client: Client) -> None:
    answer = client.get("/api/v1/events?camera=table&limit=1").json()
    assert set(answer) == {"events", "next_cursor"}
    (found,) = answer["events"]
    assert found["event_id"] == "event-3"
    assert found["started_at"] == "2026-01-31T09:30:03.000Z"
    assert found["latency_ms"] == {"capture_to_store": None}


def test_one_event(client: Client) -> None:
    assert client.get("/api/v1/events/event-2").json()["camera_id"] == "door"
    assert_problem(client.get("/api/v1/events/nobody"), 404, "nobody")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=-1", ["limit", "greater than or equal to 1", "-1"]),
        ("limit=0", ["limit"]),
        ("limit=1001", ["limit", "1000"]),
        ("limit=abc", ["limit", "abc", "integer"]),
        ("limit=" + "9" * 5000, ["limit"]),
        ("start=notadate", ["start", "RFC 3339", "notadate"]),
        ("start=2026-01-31T09:30:00", ["start", "zone"]),  # naive
        ("start=1700000000", ["start", "RFC 3339"]),  # seconds since 1970 are no date
        ("start=2026-13-31T09:30:00Z", ["start"]),
        ("start=2026-01-31T25:30:00Z", ["start"]),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", ["start", "end"]),
        ("cursor=abc", ["cursor", "next_cursor", "abc"]),
        ("cursor=" + "A" * 5000, ["cursor"]),
        ("cursor=%00", ["cursor"]),
        ("camera=", ["camera"]),
        ("camera=%00", ["camera", "printable"]),
        ("person=" + "x" * 300, ["person", "256"]),
        ("type=theft", ["type", "theft", "loitering"]),
        ("status=ajar", ["status", "open"]),
        ("min_dwell_s=-1", ["min_dwell_s"]),
        ("min_dwell_s=nan", ["min_dwell_s"]),
        ("min_dwell_s=1e999", ["min_dwell_s"]),
        ("camra=table", ["camra", "not permitted"]),  # a misspelt filter must not filter nothing
    ],
)
def test_bad_parameters_name_parameter_value_and_expectation(
    client: Client, query: str, words: list[str]
) -> None:
    assert_problem(client.get(f"/api/v1/events?{query}"), 422, *words)


@pytest.mark.parametrize(
    "query",
    [
        "start=2026-01-31T09:30:00Z",
        "start=2026-01-31T09:30:00.123456%2B09:00",
        "start=2026-01-31T09:30:00+09:00",  # the plus arrives as a space
        "start=0001-01-01T00:00:00Z&end=9999-12-31T23:59:59-12:00",
        "zone=%E5%85%A5%E5%8F%A3&type=loitering&status=open&limit=1000",
    ],
)
def test_good_parameters(client: Client, query: str) -> None:
    assert client.get(f"/api/v1/events?{query}").status_code == 200


odd = st.one_of(
    st.text(max_size=300),
    st.text(st.characters(max_codepoint=31), min_size=1),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(str),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "store",
                "camera",
                "zone",
                "person",
                "type",
                "status",
                "start",
                "end",
                "limit",
                "cursor",
                "min_dwell_s",
                "x",
            ]
        ),
        odd,
        max_size=4,
    )
)
def test_odd_parameters_never_break_it(client: Client, parameters: dict[str, str]) -> None:
    response = client.get("/api/v1/events", params=parameters)
    if response.status_code != 200:
        assert_problem(response, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/events/%00",
        "/api/v1/events/" + "x" * 5000,
        "/api/v1/events/%F0%9F%98%80/clip",
        "/api/v1/events/../../etc/passwd",
        "/api/v1/cameras/%00",
        "/api/v1/cameras/nobody",
        "/api/v1/cameras/nobody/live",
        "/api/v1/cameras/nobody/snapshot",
        "/api/v1/nothing",
        "/nothing",
    ],
)
def test_what_is_not_there(client: Client, path: str) -> None:
    assert_problem(client.get(path), 404)


def test_wrong_method_says_which_are_possible(client: Client) -> None:
    response = client.delete("/api/v1/events")
    assert_problem(response, 405, "GET")
    assert "GET" in response.headers["allow"]


def test_a_store_that_is_down_is_a_503_without_its_password(house: House, client: Client) -> None:
    house.events.down = True
    for path in ("/api/v1/events", "/api/v1/events/event-1", "/api/v1/events/stream"):
        response = client.get(path)
        assert_problem(response, 503, "connection refused")
        assert response.headers["retry-after"]
        assert "pw" not in response.text


# ---------------------------------------------------------------------- clips


@pytest.mark.parametrize(
    ("header", "status", "content_range", "expected"),
    [
        (None, 200, None, CLIP),
        ("bytes=0-0", 206, "bytes 0-0/10240", CLIP[:1]),
        ("bytes=100-199", 206, "bytes 100-199/10240", CLIP[100:200]),
        ("bytes=10000-", 206, "bytes 10000-10239/10240", CLIP[10000:]),
        ("bytes=-100", 206, "bytes 10140-10239/10240", CLIP[-100:]),
        ("bytes=-99999", 206, "bytes 0-10239/10240", CLIP),
        ("bytes=5-99999", 206, "bytes 5-10239/10240", CLIP[5:]),
        ("bytes=10240-", 416, "bytes */10240", None),
        ("bytes=-0", 416, "bytes */10240", None),
        # A server may send the whole for these (RFC 9110, 14.2).
        ("bytes=9-5", 200, None, CLIP),
        ("bytes=0-1,5-6", 200, None, CLIP),
        ("pages=1-2", 200, None, CLIP),
        ("bytes=a-b", 200, None, CLIP),
        ("bytes=" + "9" * 400 + "-", 200, None, CLIP),
    ],
)
def test_clip_ranges(
    client: Client,
    header: str | None,
    status: int,
    content_range: str | None,
    expected: bytes | None,
) -> None:
    headers = {} if header is None else {"Range": header}
    response = client.get("/api/v1/events/event-1/clip", headers=headers)
    assert response.status_code == status
    assert response.headers.get("content-range") == content_range
    assert response.headers["accept-ranges"] == "bytes"
    if expected is None:
        assert_problem(response, 416, "Range")
        return
    assert response.content == expected
    assert response.headers["content-length"] == str(len(expected))
    assert response.headers["content-type"] == "video/mp4"
    head = client.head("/api/v1/events/event-1/clip", headers=headers)
    assert head.status_code == status
    assert head.headers["content-length"] == str(len(expected))
    assert head.content == b""


def test_clip_validators(client: Client) -> None:
    path = "/api/v1/events/event-1/clip"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    part = {"Range": "bytes=0-9"}
    assert client.get(path, headers={**part, "If-Range": etag}).status_code == 206
    assert client.get(path, headers={**part, "If-Range": '"other"'}).status_code == 200


def test_a_further_file_of_a_clip(client: Client) -> None:
    path = "/api/v1/events/event-1/clip"
    assert client.get(path, params={"part": 0}).content == client.get(path).content == CLIP
    whole = client.get(path, params={"part": 1})
    assert whole.content == SECOND_FILE
    assert whole.headers["etag"] == f'"{"cd" * 32}"'
    piece = client.get(path, params={"part": 1}, headers={"Range": "bytes=2-4"})
    assert (piece.status_code, piece.content) == (206, SECOND_FILE[2:5])
    head = client.head(path, params={"part": 1})
    assert head.headers["content-length"] == str(len(SECOND_FILE))


@pytest.mark.parametrize(
    ("event_id", "part", "status", "says"),
    [
        ("event-1", "2", 404, "no part 2 of its clip, which consists of 2 files, parts 0 to 1"),
        ("event-3", "1", 404, "no part 1 of its clip, which consists of 1 file, part 0"),
        ("event-2", "1", 404, "the disk was full"),
        ("event-1", "-1", 422, "part"),
        ("event-1", "last", 422, "part"),
    ],
)
def test_a_file_that_a_clip_does_not_have(
    client: Client, event_id: str, part: str, status: int, says: str
) -> None:
    answer = client.get(f"/api/v1/events/{event_id}/clip", params={"part": part})
    assert_problem(answer, status, says)


def test_missing_clips_say_why(house: House, client: Client) -> None:
    assert_problem(client.get("/api/v1/events/event-2/clip"), 404, "the disk was full")
    assert_problem(client.get("/api/v1/events/event-3/clip"), 404, "no such object")
    assert_problem(client.get("/api/v1/events/event-2/snapshot"), 404, "no snapshot")
    house.objects.down = True
    assert_problem(client.get("/api/v1/events/event-1/clip"), 503, "connection refused")


def test_snapshot(client: Client) -> None:
    response = client.get("/api/v1/events/event-1/snapshot")
    assert response.content == b"\xff\xd8"
    assert response.headers["content-type"] == "image/jpeg"


# ---------------------------------------------------------------------- stream


def test_stream_sends_filtered_changes_with_ids(house: House, client: Client) -> None:
    response = client.get("/api/v1/events/stream?camera=table", headers={"Last-Event-ID": "0-7"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert house.events.followed == ["0-7"]
    blocks = response.text.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "retry: 2000",
        "id: 1-0",
        "id: 3-0",  # 2-0 is of another camera
        ": still here",
    ]
    assert '"event_id":"event-1"' in blocks[1]


def test_stream_tells_of_changes_missed(house: House, client: Client) -> None:
    house.events.missed = True
    text = client.get("/api/v1/events/stream", headers={"Last-Event-ID": "1-1"}).text
    assert "event: reset" in text


@pytest.mark.parametrize("last", ["abc", "1", "1-", "9" * 40 + "-1", "1-0\x00"])
def test_stream_refuses_odd_ids(client: Client, last: str) -> None:
    assert_problem(
        client.get("/api/v1/events/stream", params={"last_event_id": last}), 422, "Last-Event-ID"
    )


# ---------------------------------------------------------------------- cameras


def test_credentials_are_never_shown(client: Client) -> None:
    for path in ("/api/v1/cameras", "/api/v1/cameras/table", "/metrics", "/healthz"):
        text = client.get(path).text
        assert "secret" not in text, path
    assert (
        client.get("/api/v1/cameras/table").json()["settings"]["source"]
        == "rtsp://***@10.0.0.7/stream1"
    )


def test_cameras_come_and_go(house: House, client: Client) -> None:
    body = {"id": "door", "source": "rtsp://a:b@10.0.0.8/1", "detect_fps": 3}
    created = client.post("/api/v1/cameras", json=body)
    assert created.status_code == 201
    assert created.headers["location"] == "/api/v1/cameras/door"
    assert house.cameras.settings["door"].source == "rtsp://a:b@10.0.0.8/1"
    assert "a:b" not in created.text
    assert_problem(client.post("/api/v1/cameras", json=body), 409, "door")
    assert client.delete("/api/v1/cameras/door").status_code == 204
    assert_problem(client.delete("/api/v1/cameras/door"), 404)


ZONE = {"id": "z", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]}


def test_patch_merges_and_keeps_credentials(house: House, client: Client) -> None:
    shown = client.get("/api/v1/cameras/table").json()["settings"]
    changes = {"source": shown["source"], "detect_fps": 2, "zones": [ZONE], "enabled": False}
    response = client.patch("/api/v1/cameras/table", json=changes)
    assert response.status_code == 200, response.text
    now = house.cameras.settings["table"]
    assert now.source == SECRET_SOURCE
    assert (now.detect_fps, now.enabled, now.zones[0].id) == (2, False, "z")
    # null takes a key back to its default, nested keys are merged
    client.patch("/api/v1/cameras/table", json={"recording": {"cache_s": 60}})
    client.patch("/api/v1/cameras/table", json={"detect_fps": None, "recording": {"folder": "x"}})
    now = house.cameras.settings["table"]
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
    house: House, client: Client, changes: Any, words: list[str]
) -> None:
    response = client.patch("/api/v1/cameras/table", json=changes)
    assert_problem(response, 422, *words)
    assert house.cameras.patches == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\x00\xff", b"[" * 100_000, b'{"detect_fps": 1e999}', b"NaN"]
)
def test_bodies_that_are_no_settings(client: Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/api/v1/cameras"), ("PATCH", "/api/v1/cameras/table")):
        response = client.request(method, path, content=body, headers=headers)
        assert 400 <= response.status_code < 500, response.text
        assert response.headers["content-type"] == "application/problem+json"


def test_bodies_are_bounded(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:  # no Content-Length
        for _ in range(40):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    assert_problem(
        client.post("/api/v1/cameras", content=b" " * (2 << 20), headers=headers), 413, "1048576"
    )
    assert_problem(client.post("/api/v1/cameras", content=chunks(), headers=headers), 413)


def test_pictures(house: House, client: Client) -> None:
    assert client.get("/api/v1/cameras/table/snapshot").headers["content-type"] == "image/jpeg"
    live = client.get("/api/v1/cameras/table/live")
    assert live.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    assert live.content.count(b"--frame\r\nContent-Type: image/jpeg\r\n") == 3
    assert b"Content-Length: 9\r\n\r\npicture-0\r\n" in live.content
    assert house.cameras.closed == 1


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
    house: House, client: Client, body: dict[str, Any], status: int
) -> None:
    response = client.post("/api/v1/cameras/table/recordings", json=body)
    assert response.status_code == status, response.text
    assert len(house.cameras.commands) == (status == 202)
    if status != 202:
        assert_problem(response, 422)


def test_patched_is_pure() -> None:
    before = CameraConfig(id="table", source=SECRET_SOURCE)
    assert patched(before, {}) == before
    with pytest.raises(ConfigError, match="never changes"):
        patched(before, {"id": "x"})


# ---------------------------------------------------------------------- health, metrics, docs


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
    house: House, client: Client, change: dict[str, Any], status: int, part: str, state: str
) -> None:
    house.report = replace(house.report, **change)
    response = client.get("/healthz")
    assert response.status_code == status
    assert response.json()["parts"][part]["status"] == state


def test_a_store_without_a_classifier_does_not_miss_it(client: Client) -> None:
    assert "classifier" not in client.get("/healthz").json()["parts"]
    assert "storeguard_classifier" not in client.get("/metrics").text


def test_the_classifiers_queue_is_measured(house: House, client: Client) -> None:
    house.report = replace(house.report, classifier=BatcherStats(9, 5, 1, 0, 2, 3))
    lines = client.get("/metrics").text.splitlines()
    for expected in (
        "storeguard_classifier_submitted_total 9.0",
        "storeguard_classifier_refused_total 1.0",
        "storeguard_classifier_batches_total 2.0",
        "storeguard_classifier_waiting 3.0",
        'storeguard_camera_clips_judged_total{camera="table"} 11.0',
    ):
        assert expected in lines


def test_health_with_the_store_down(house: House, client: Client) -> None:
    house.events.down = True
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["parts"]["store"]["status"] == "failed"


def test_metrics(house: House, client: Client) -> None:
    house.report = replace(house.report, drops=JournalDrops({"loitering": 4}, {}))
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


def test_docs_need_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/v1/events/{event_id}/clip" in page.text
    assert "http" not in page.text.replace('charset="utf-8"', "").lower().split("<body>")[0]
    for outside in ('src="', "@import", "cdn"):
        assert outside not in page.text
    paths = client.get("/openapi.json").json()["paths"]
    assert "/api/v1/cameras/{camera_id}/recordings" in paths


# ---------------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    "path",
    ["/api/v1/events", "/api/v1/cameras/table/live", "/metrics", "/docs", "/openapi.json", "/x"],
)
def test_everything_needs_the_token(locked: Client, path: str) -> None:
    refused = locked.get(path)
    assert_problem(refused, 401, "Bearer")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", "Bearer \xe9"):
        response = locked.get(path, headers={"Authorization": wrong.encode("latin-1")})
        assert_problem(response, 401)
    assert_problem(locked.get(f"{path}?token={TOKEN}"), 401)
    right = locked.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == (404 if path == "/x" else 200)


def test_health_shows_strangers_no_details(locked: Client) -> None:
    parts = locked.get("/healthz").json()["parts"]
    assert all(set(part) == {"status"} for part in parts.values())
    parts = locked.get("/healthz", headers={"Authorization": f"Bearer {TOKEN}"}).json()["parts"]
    assert "detail" in parts["journal"]


def test_session_cookie(locked: Client) -> None:
    assert_problem(locked.post("/api/v1/session", json={"token": "guess"}), 401, "token")
    granted = locked.post("/api/v1/session", json={"token": TOKEN})
    assert granted.status_code == 204
    cookie = granted.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked.get("/api/v1/events").status_code == 200  # the client keeps it
    value = locked.cookies["storeguard_session"]
    expiry, _, seal = value.partition(".")
    for forged in (f"{int(expiry) + 1}.{seal}", f"{expiry}.{'0' * 64}", expiry, "", "1.x"):
        locked.cookies.clear()
        response = locked.get("/api/v1/events", headers={"Cookie": f"storeguard_session={forged}"})
        assert response.status_code == 401, forged


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 421),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Length": "many"}, 400),
    ],
)
def test_own_origin_only(client: Client, headers: dict[str, str], status: int) -> None:
    response = client.get("/api/v1/cameras", headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers
