from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from serve.api import create_api
from serve.api_dashboard import FOLDER
from serve.api_parts import HealthReport
from storeguard.config import ApiSettings, CameraConfig
from storeguard.detection.batcher import BatcherStats
from storeguard.errors import NotFoundError, StoreError
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, EventType, SnapshotRef
from storeguard.events.journal import Backlog
from storeguard.events.keyspace import Change
from storeguard.events.query import EventQuery, Page, cursor_of, position_from, position_of
from storeguard.events.shipper import ShipperStats
from storeguard.pipeline.status import CameraState, CameraStatus
from storeguard.testing_video import VideoSpec, make_video

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
    """The events' starts lie a second apart, the last numbers being the newest."""
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
    """An event source in memory whose changes are followed by any number of streams."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.changed: list[Event] = []
        self.down = False

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
            for one in list(self.events.values())  # a test may put one meanwhile
            if question.admits(one)
            and (question.start is None or one.started_at >= question.start)
            and (question.end is None or one.started_at < question.end)
        )
        left = [pair for pair in reversed(found) if pair[0] < after]
        page = left[: question.limit]
        more = cursor_of(page[-1][0]) if len(left) > len(page) else None
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
    ) -> AsyncIterator[Change | None]:
        at = len(self.changed) if after is None else int(after.partition("-")[0])
        while True:
            self._check()
            while at < len(self.changed):
                at += 1
                yield Change(f"{at}-0", self.changed[at - 1])
            await asyncio.sleep(0.02)


class Cameras:
    """Cameras that send one colour after the other."""

    def __init__(self) -> None:
        self.settings = {key: CameraConfig.model_validate(one) for key, one in SETTINGS.items()}
        self.states = {"table": CameraState.PLAYING, "door": CameraState.RECONNECTING}
        self.more: dict[str, Any] = {}
        self.watched = 0
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

    async def snapshot(self, camera_id: str) -> bytes | None:
        return self.pictures[camera_id][0]

    async def live(self, camera_id: str) -> AsyncIterator[bytes]:
        self.watched += 1
        try:
            for picture in itertools.cycle(self.pictures[camera_id]):
                yield picture
                await asyncio.sleep(0.1)
        finally:
            self.watched -= 1

    async def record(self, camera_id: str, command: Any) -> dict[str, Any]:
        self.commands.append((camera_id, command.command))
        return {}

    async def _refuse(self, *_: Any) -> Any:
        raise NotImplementedError

    add = patch = remove = _refuse


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


class House:
    """The API over fakes, on a real socket."""

    def __init__(self, settings: ApiSettings) -> None:
        self.events = Events()
        self.cameras = Cameras()
        self.objects = Objects()
        self.detector: BatcherStats | None = BatcherStats(*([0] * 6))
        self.app = create_api(
            events=self.events,
            cameras=self.cameras,
            objects=self.objects,
            settings=settings,
            health=self._health,
        )
        self.url = ""

    async def _health(self) -> HealthReport:
        shipper = ShipperStats(shipped=7, backlog=Backlog(0, 0, None))
        return HealthReport(shipper=shipper, detector=self.detector)


@contextmanager
def serving(house: House) -> Iterator[House]:
    """Serve on a free port of 127.0.0.1 until the end of the block."""
    config = uvicorn.Config(
        house.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        soon(lambda: server.started, "the API did not start")
        house.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield house
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def soon(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return outcome


# --------------------------------------------------------------------- a browser


class NavigatedError(AssertionError):
    """The browser refused a command, mostly because the page it was for is gone."""


class Tab:
    """A page in the browser, by the DevTools protocol, with cookies and storage of its own."""

    def __init__(self, browser: Browser, width: int, height: int, *, dark: bool) -> None:
        self._browser = browser
        self._context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call(
            "Target.createTarget",
            url="about:blank",
            browserContextId=self._context,
            width=width,
            height=height,
        )["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, session=self._session, **parameters)

    def open(self, url: str) -> None:
        self.run("window.leaving = true")
        self.call("Page.navigate", url=url)
        self.wait("window.leaving === undefined && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 120.0) -> Any:
        """The first true value of an expression."""
        # The page asks itself: many calls from outside can keep it from ever loading.
        patience = (
            "(async () => { for (let i = 0; i < 40; i += 1) {"
            f"const value = ({script}); if (value) return value;"
            "await new Promise(resolve => setTimeout(resolve, 50)); } })()"
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if value := self.run(patience):
                    return value
            except NavigatedError:
                time.sleep(0.1)
        raise AssertionError(f"never: {script}\n{self.text('body')}\n{self.complaints}")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_text(self, selector: str, words: str) -> None:
        place, wanted = json.dumps(selector), json.dumps(words)
        self.wait(f"document.querySelector({place})?.innerText?.includes({wanted})")

    def click(self, selector: str) -> None:
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "Tab": 9}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def choose(self, name: str, value: str) -> None:
        """Set a filter as a person would."""
        self.run(
            f"(() => {{ const field = document.querySelector('#filters [name={name}]');"
            f"field.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            "field.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    @property
    def complaints(self) -> list[str]:
        """What the console said: exceptions, and whatever the content policy stopped."""
        return [text for session, text in self._browser.complaints if session == self._session]

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)


class Browser:
    """A headless chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[tuple[str, str]] = []

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("id") == number:
                if "error" in answer:
                    raise NavigatedError(method, answer["error"])
                return answer["result"]
            self._listen(answer)

    def _listen(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details["text"]
            case "Log.entryAdded" if parameters["entry"]["source"] in {"security", "violation"}:
                text = parameters["entry"]["text"]
            case _:
                return
        self.complaints.append((message.get("sessionId", ""), text))


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """A started chromium that keeps its data in `folder`; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        pytest.skip("chromium is not installed: the dashboard cannot be looked at")
    log = folder / "chromium.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--mute-audio",
                "--disable-background-timer-throttling",
                "--disable-backgrounding-occluded-windows",
                "--disable-renderer-backgrounding",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        found = soon(
            lambda: re.search(r"DevTools listening on (ws://\S+)\s", log.read_text()),
            "chromium did not start",
            180,
        )
        with connect(
            found[1], max_size=None, compression=None, ping_interval=None, open_timeout=120
        ) as socket:
            browser = Browser(socket)
            try:
                yield browser
            finally:
                with suppress(ConnectionClosed):  # it may be gone before it has answered
                    browser.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):  # it has had its time to leave nothing behind
            process.wait(60)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    tab = Tab(browser, 1280, 900, dark=False)
    yield tab
    complaints = tab.complaints
    tab.close()
    assert complaints == []


@pytest.fixture
def house() -> Iterator[House]:
    with serving(House(ApiSettings())) as house:
        yield house


def sentences(tab: Tab) -> list[str]:
    return list(tab.run("[...document.querySelectorAll('.event .words')].map(w => w.innerText)"))


# --------------------------------------------------------------------- the files


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with (
        serving(House(ApiSettings(token=TOKEN))) as house,
        httpx.Client(base_url=house.url, trust_env=False, timeout=120) as client,
    ):
        yield client


def test_files_have_types_validators_and_a_policy_and_need_no_token(client: httpx.Client) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    places = {f"/dashboard/{path.name}": types.get(path.suffix) for path in FOLDER.iterdir()}
    places |= {"/": "text/html", "/dashboard/index.html": "text/html"}
    places |= {"/favicon.ico": "image/svg+xml"}
    for place, media_type in places.items():
        answer = client.get(place)
        assert answer.status_code == 200, place
        assert media_type is not None, f"{place}: not a file for a browser"
        assert answer.headers["content-type"].startswith(media_type)
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        etag = answer.headers["etag"]
        again = client.get(place, headers={"If-None-Match": f'"other", {etag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(place, headers={"If-None-Match": '"other"'}).status_code == 200
        head = client.head(place)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "place", ["/dashboard/no.js", "/dashboard/..%2fapi.py", "/dashboard/%2e%2e/api.py"]
)
def test_nothing_but_the_files_is_served(client: httpx.Client, place: str) -> None:
    answer = client.get(place, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_comes_from_elsewhere() -> None:
    own = {"http://www.w3.org/2000/svg"}
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"'\s)<]+", text)) <= own, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", text), path.name


# --------------------------------------------------------------------- the page


def test_cameras_and_events_are_shown(house: House, tab: Tab) -> None:
    house.events.put(
        event(1),
        event(2, type=EventType.INTRUSION, snapshot=SnapshotRef(uri="file:///a.jpg")),
        event(3, status=EventStatus.OPEN, ended_at=None, dwell_s=75.4),
    )
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 3")
    assert sentences(tab) == [
        "Somebody has been at 'table' for 1 min 15 s",
        "Somebody entered 'table'",
        "Somebody was at 'table' for 12 s",
    ]
    assert "1 h ago" in tab.text(".event time")
    assert "stayed 12 s" in tab.text(".row:nth-of-type(3)")
    tab.wait("document.querySelector('.event .thumb img')?.naturalWidth === 64")
    tab.wait("document.querySelectorAll('.tile').length === 2")
    table, door = tab.run("[...document.querySelectorAll('.tile')].map(tile => tile.innerText)")
    for words in ("table", "Playing", "2 people", "25 fps in", "4.8 fps checked", "4 dropped"):
        assert words in table
    assert "Reconnecting" in door
    assert "connection was lost" in door
    tab.wait_text("#health-words", "Camera door is not playing (reconnecting)")
    tab.wait_text("#stream-state", "live")


def test_pictures_are_live_while_looked_at_and_stop_when_not(house: House, tab: Tab) -> None:
    tab.open(house.url)
    tab.wait("document.querySelector('.tile[data-live=yes]') !== null")
    colour = (
        "[...document.querySelector('.tile canvas').getContext('2d')"
        ".getImageData(5, 5, 1, 1).data].join()"
    )
    first = tab.run(colour)
    tab.wait(f"{colour} !== {json.dumps(first)}")  # the picture moves
    # `door` does not play: single pictures do.
    soon(lambda: house.cameras.watched == 1, "not one stream")
    tab.call("Page.navigate", url="about:blank")
    soon(lambda: house.cameras.watched == 0, "the stream goes on unwatched")


def test_a_wall_of_cameras_leaves_connections_for_the_rest(house: House, tab: Tab) -> None:
    for number in range(9):
        name = f"camera-{number}"
        house.cameras.settings[name] = CameraConfig(id=name, source="/dev/video1")
        house.cameras.states[name] = CameraState.PLAYING
        house.cameras.pictures[name] = [jpeg()]
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.tile[data-pictured]').length === 11")
    # Six connections in all, one for the events.
    soon(lambda: 1 <= house.cameras.watched <= 3, "no stream, or more than there are lines for")
    house.events.put(event(1))
    tab.wait("document.querySelectorAll('.event').length === 1")


def test_an_event_that_arrives_later_appears_and_changes_without_reload(
    house: House, tab: Tab
) -> None:
    tab.open(house.url)
    tab.wait_text("#events-notice", "Nothing has happened yet")
    tab.wait_text("#stream-state", "live")
    first = event(1, status=EventStatus.OPEN, ended_at=None, dwell_s=3.0)
    house.events.put(first)
    tab.wait_text("#events-list", "Somebody has been at 'table' for 3 s")
    newer = first.model_copy(update={"version": 2, "dwell_s": 4.0})
    house.events.put(newer, first)  # a repeated old version changes nothing
    tab.wait_text("#events-list", "for 4 s")
    house.events.put(event(2))
    tab.wait("document.querySelectorAll('.event').length === 2")
    assert sentences(tab)[1] == "Somebody has been at 'table' for 4 s"


def test_new_events_wait_while_somebody_reads_further_down(house: House, tab: Tab) -> None:
    house.events.put(*(event(number) for number in range(60)))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 50")
    tab.wait_text("#stream-state", "live")
    # From here on nothing arrives above the list that could move it.
    tab.wait("document.querySelectorAll('.tile').length === 2")
    tab.wait_text("#health-words", "Camera door is not playing")
    tab.run("document.querySelectorAll('.event')[30].scrollIntoView()")
    place = "document.querySelectorAll('.event')[30].getBoundingClientRect().top"
    # The page learns of the scrolling with its next frame, and its observer before a later one.
    tab.run(
        "new Promise(resolve => new IntersectionObserver(([top]) => {"
        "if (!top.isIntersecting) resolve(); }).observe(document.querySelector('#events-top')))"
    )
    before = tab.run(place)
    house.events.put(event(100), event(101))
    tab.wait_text("#events-new", "2 new events")
    assert tab.run(place) == before
    tab.click("#events-new")
    tab.wait("document.querySelectorAll('.event').length === 52")
    assert tab.run("document.querySelector('.row').dataset.id") == "event-0101"


def test_older_events_follow_page_by_page(house: House, tab: Tab) -> None:
    house.events.put(*(event(number) for number in range(120)))
    tab.open(house.url)
    for shown in (50, 100, 120):
        tab.wait(f"document.querySelectorAll('.event').length === {shown}")
        assert tab.run("document.querySelector('#events-older').hidden") is (shown == 120)
        if shown < 120:
            tab.click("#events-older")
    ids = tab.run("[...document.querySelectorAll('.row')].map(row => row.dataset.id)")
    assert ids == [f"event-{number:04d}" for number in reversed(range(120))]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("type", "intrusion", ["event-0003"]),
        ("camera", "door", ["event-0002"]),
        ("zone", "shelf", ["event-0001"]),
        ("status", "open", ["event-0002"]),
    ],
)
def test_filters_hold_for_pages_and_for_what_arrives(
    house: House, tab: Tab, name: str, value: str, expected: list[str]
) -> None:
    house.events.put(
        event(0),
        event(1, zone_id="shelf"),
        event(2, camera_id="door", status=EventStatus.OPEN, ended_at=None),
        event(3, type=EventType.INTRUSION),
    )
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 4")
    ids = "[...document.querySelectorAll('.row')].map(row => row.dataset.id).join()"
    tab.choose(name, value)
    tab.wait(f"{ids} === {json.dumps(','.join(expected))}")
    fits = house.events.events[expected[0]].model_copy(
        update={"event_id": "event-9998", "started_at": datetime.now(UTC)}
    )
    house.events.put(event(9), fits)
    tab.wait(f"{ids} === {json.dumps(','.join(['event-9998', *expected]))}")
    assert tab.run("location.search") == f"?{name}={value}"
    tab.open(f"{house.url}/?{name}={value}")  # the address keeps the filter
    tab.wait(f"{ids} === {json.dumps(','.join(['event-9998', *expected]))}")
    tab.click("#filters [type=reset]")
    tab.wait("document.querySelectorAll('.event').length === 6")


def test_from_and_to_are_local_times(house: House, tab: Tab) -> None:
    tab.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for number in range(3):
        started = noon + timedelta(hours=number)
        house.events.put(event(number, started_at=started, ended_at=started))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 3")
    tab.choose("start", "2026-01-31T18:30")  # 13:00 UTC
    tab.wait("document.querySelectorAll('.event').length === 2")
    tab.choose("end", "2026-01-31T19:30")
    tab.wait("document.querySelectorAll('.event').length === 1")
    assert tab.run("document.querySelector('.row').dataset.id") == "event-0001"
    tab.choose("end", "2026-01-31T17:30")
    tab.wait_text("#filters-fault", "before")


def test_names_from_the_store_are_text(house: House, tab: Tab) -> None:
    house.events.put(
        event(1, zone_id=NASTY, camera_id=NASTY, person_id=NASTY, clip=ClipRef(error=NASTY))
    )
    house.cameras.more["door"] = {"last_error": NASTY}
    tab.open(f"{house.url}/?zone={httpx.QueryParams({'q': NASTY})['q'].replace('<', '%3C')}")
    tab.wait_text("#events-list", NASTY)
    tab.click(".event")
    tab.wait_text("#event-view", f"There is no clip: {NASTY}")
    tab.press("Escape")
    tab.wait("!document.querySelector('#event-view').open")
    tab.click(".wall li:nth-child(2) .tile")
    tab.wait_text("#camera-view", NASTY)
    assert tab.run("window.hacked === undefined")
    assert tab.run("document.querySelector('img[src=x], .words b') === null")


def test_a_token_is_asked_for_and_signs_in(tab: Tab) -> None:
    with serving(House(ApiSettings(token=TOKEN))) as house:
        house.events.put(event(1))
        tab.open(house.url)
        tab.wait("document.querySelector('#login')?.open")
        assert tab.run("document.querySelectorAll('.event, .tile').length") == 0
        for token, outcome in (("wrong-token-0123456", False), (TOKEN, True)):
            tab.run(f"document.querySelector('#login [name=token]').value = {json.dumps(token)}")
            tab.click("#login [type=submit]")
            if not outcome:
                tab.wait_text("#login-fault", "not the access token")
        tab.wait("document.querySelectorAll('.event').length === 1")
        tab.wait("document.querySelectorAll('.tile').length === 2")
        tab.wait_text("#stream-state", "live")
        assert tab.run("document.querySelector('#login')?.open") is False
        tab.click("#sign-out")
        tab.wait("document.querySelector('#login')?.open")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"clip": ClipRef(error="the disk was full")}, "There is no clip: the disk was full"),
        ({"rule": {"record": False}}, "because this rule keeps no video"),
        ({"status": EventStatus.OPEN, "ended_at": None}, "the event is still going on"),
        ({"clip": ClipRef()}, "it is still being saved"),
        ({}, "no video was kept"),
        ({"clip": ClipRef(uri="file:///gone.mp4")}, "There is no clip: file:///gone.mp4"),
    ],
)
def test_an_event_without_a_clip_says_why(
    house: House, tab: Tab, more: dict[str, Any], words: str
) -> None:
    house.events.put(event(1, **more))
    tab.open(house.url)
    tab.click(".event")
    tab.wait_text("#event-view .note", words)


def test_a_clip_plays_and_seeks(house: House, tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "clip.webm"
    make_video(file, VideoSpec(codec="vp8", num_frames=60))
    house.objects.files["file:///clip.webm"] = file.read_bytes()
    one = event(1)
    clip = ClipRef(uri="file:///clip.webm", start=one.started_at - timedelta(seconds=3))
    house.events.put(one)
    tab.open(house.url)
    tab.click(".event")
    tab.wait_text("#event-view .note", "no video was kept")
    house.events.put(one.model_copy(update={"version": 2, "clip": clip}))  # while it is open
    tab.wait("document.querySelector('video')?.readyState >= 1")
    assert tab.run("document.querySelector('video').videoWidth") == 160
    tab.click("#event-view .view-main button")
    tab.wait("document.querySelector('video').currentTime > 1.9")
    assert tab.run("document.querySelector('video').error") is None


def test_the_files_of_a_long_clip_play_one_after_the_other(
    house: House, tab: Tab, tmp_path: Path
) -> None:
    one = event(1)
    parts = []
    for name, frames in (("first", 15), ("second", 60)):
        file = tmp_path / f"{name}.webm"
        make_video(file, VideoSpec(codec="vp8", num_frames=frames))
        house.objects.files[f"file:///{name}.webm"] = file.read_bytes()
        parts.append(ClipPart(uri=f"file:///{name}.webm", start=one.started_at, end=one.started_at))
    clip = ClipRef(uri=parts[0].uri, start=one.started_at, end=one.started_at)
    house.events.put(one.model_copy(update={"clip": clip}))
    tab.open(house.url)
    tab.click(".event")
    tab.wait("document.querySelector('video')?.readyState >= 1")
    assert "File" not in tab.text("#event-view .view-main")
    longer = clip.model_copy(update={"parts": (parts[1],)})
    house.events.put(one.model_copy(update={"version": 2, "clip": longer}))  # it grows meanwhile
    tab.wait_text("#event-view .view-main", "File 1 of 2")
    tab.run("document.querySelector('video').muted = true")
    tab.run("void document.querySelector('video').play()")
    tab.wait_text("#event-view .view-main", "File 2 of 2")
    tab.wait("document.querySelector('video').currentSrc.endsWith('/clip?part=1')")
    tab.wait("document.querySelector('video').duration > 1.5")
    hrefs = "[...document.querySelectorAll('.view-main a')].map(link => link.href)"
    links = tab.run(hrefs)
    assert [httpx.get(link, timeout=120).content for link in links] == [
        house.objects.files[part.uri] for part in parts
    ]


def test_a_camera_is_shown_large_with_its_zones_and_records(house: House, tab: Tab) -> None:
    tab.open(house.url)
    tab.click(".tile")
    tab.wait("document.querySelector('#camera-view polygon') !== null")
    shown = tab.text("#camera-view")
    for words in ("table", "stays 3 s or longer", "rtsp://***@10.0.0.7/1", "h264"):
        assert words in shown
    tab.wait("document.querySelector('#camera-view .stage').dataset.live === 'yes'")
    soon(lambda: house.cameras.watched == 1, "the tiles below do not wait")
    tab.run(
        "[...document.querySelectorAll('#camera-view button')]"
        ".find(button => button.innerText === 'Record now').click()"
    )
    soon(lambda: house.cameras.commands == [("table", "start-recording")], "no command came")
    house.cameras.more["table"] = {"recording": True}
    tab.wait("document.querySelector('#camera-view dl').innerText.includes('now')")
    assert "Stop recording" not in tab.text("#camera-view")  # not what the rules have begun
    by_hand = event(1, type=EventType.MANUAL, status=EventStatus.OPEN, ended_at=None)
    house.events.put(by_hand)
    tab.wait_text("#camera-view", "Stop recording")
    tab.press("Escape")
    tab.wait("!document.querySelector('#camera-view').open")
    tab.wait("!document.querySelector('.tile .rec').hidden")


def test_the_keyboard_reaches_all(house: House, tab: Tab) -> None:
    house.events.put(event(1), event(2))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 2")
    tab.wait("document.querySelectorAll('.tile').length === 2")
    reached = set()
    for _ in range(14):
        tab.press("Tab")
        reached.add(tab.run("document.activeElement.className || document.activeElement.id"))
    assert {"skip", "tile", "small", "event"} <= reached
    tab.run("document.querySelector('.event').focus()")
    tab.press("ArrowDown")
    assert tab.run("document.activeElement.closest('.row').dataset.id") == "event-0001"
    tab.press("Enter")
    tab.wait("document.querySelector('#event-view').open")
    tab.press("Escape")
    tab.wait("!document.querySelector('#event-view').open")
    assert tab.run("document.activeElement.closest('.row').dataset.id") == "event-0001"
    unnamed = (
        "[...document.querySelectorAll('button, input, select, a')].filter(one => "
        "one.checkVisibility() && !one.textContent && !one.ariaLabel && !one.labels?.length).length"
    )
    assert tab.run(unnamed) == 0


def test_faults_are_told_in_words_and_heal(house: House, tab: Tab) -> None:
    house.cameras.states["door"] = CameraState.PLAYING
    house.cameras.down = house.events.down = True
    house.detector = None
    tab.open(house.url)
    tab.wait_text("#events-notice", "The events cannot be shown")
    tab.wait_text("#cameras-notice", "The cameras cannot be shown")
    tab.wait_text("#health-words", "Events cannot be looked up")
    tab.wait_text("#health-words", "People are not being detected")
    house.cameras.down = house.events.down = False
    house.detector = BatcherStats(*([0] * 6))
    house.events.put(event(1))
    tab.wait("document.querySelectorAll('.tile').length === 2")
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.wait_text("#health-words", "Everything works")
    tab.wait_text("#stream-state", "live")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {
                "type": EventType.SHOPLIFTING_SUSPECTED,
                "score": 0.873,
                "attributes": {"threshold": 0.6, "decision": "suspected"},
            },
            "Suspected: 87 %, suspected from 60 %",
        ),
        (
            {
                "score": 0.91,  # of the detector
                "attributes": {
                    "shoplifting": {"score": 0.2, "threshold": 0.6, "decision": "not suspected"}
                },
            },
            "Not suspected: 20 %, suspected from 60 %",
        ),
        ({"score": 0.91}, None),  # nobody looked
    ],
)
def test_an_event_tells_what_the_theft_check_made_of_it(
    house: House, tab: Tab, more: dict[str, Any], words: str | None
) -> None:
    house.events.put(event(1, **more))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.click(".event")
    tab.wait("document.querySelector('#event-view').open")
    if words is None:
        assert "Theft check" not in tab.run("document.querySelector('#event-view').textContent")
    else:
        tab.wait_text("#event-view .view-side", words)


def test_an_event_tells_what_is_said_of_its_person(house: House, tab: Tab) -> None:
    said = {"label": "carries one", "share": 0.8, "votes": 5, "model": {"name": "m", "sha256": "0"}}
    house.events.put(event(1, attributes={"basket": said, "direction": "in"}))
    tab.open(house.url)
    tab.wait("document.querySelectorAll('.event').length === 1")
    tab.click(".event")
    tab.wait("document.querySelector('#event-view').open")
    tab.wait_text("#event-view .view-side", "Basket")
    tab.wait_text("#event-view .view-side", "carries one (4 of 5 looks)")


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 2560])
def test_nothing_overflows_sideways(house: House, browser: Browser, width: int) -> None:
    long = "a-camera-or-zone-with-a-very-long-name-" * 4
    house.events.put(event(1, zone_id=long, camera_id=long), event(2))
    tab = Tab(browser, width, 800, dark=True)
    try:
        tab.open(house.url)
        tab.wait("document.querySelectorAll('.event').length === 2")
        tab.wait("document.querySelectorAll('.tile').length === 2")
        assert tab.run("document.documentElement.scrollWidth") <= width
        tab.click(".event")
        tab.wait("document.querySelector('#event-view').open")
        assert tab.run(
            "(d => d.scrollWidth <= d.clientWidth)(document.querySelector('#event-view'))"
        )
    finally:
        tab.close()
