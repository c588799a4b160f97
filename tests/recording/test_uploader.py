"""The way from spool to object storage and into the journal, with whatever may fail on it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storeguard.config.store import Container
from storeguard.errors import StorageError
from storeguard.events.changes import Change, ClipStored, EventChanges, Outcome
from storeguard.events.clip import ClipSpan, files_of
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.journal import Journal
from storeguard.recording.recording import ClipFile
from storeguard.recording.spool import ClipItem, EventItem, RecordingEvents, Spool, WishItem
from storeguard.recording.uploader import Patience, Uploader
from storeguard.storage.objects import ObjectStore, UploadRetries
from storeguard.testing import FakeClock
from tests.events.factories import EmptyStore
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, running_s3
from tests.waiting import wait_for

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(name: str) -> Event:
    return Event(
        event_id=name,
        version=1,
        type=EventType.INTRUSION,
        status=EventStatus.CLOSED,
        store_id="shop",
        camera_id="till",
        started_at=at(2),
        ended_at=at(8),
        updated_at=at(8),
    )


def wish(name: str, start_s: float = 0, end_s: float = 10) -> ClipSpan:
    return ClipSpan(event_id=name, start=at(start_s), end=at(end_s), final=True)


def clip(spool: Spool, name: str, *events: str, content: bytes = b"video") -> ClipItem:
    """A finished file in the spool and its manifest."""
    path = spool.folder / f"{name}.mp4"
    path.write_bytes(content)
    file = ClipFile(
        camera_id="till",
        recording_id=name,
        part=0,
        path=path,
        container=Container.MP4,
        codec="h264",
        start=at(0),
        end=at(10),
        requested_start=at(0),
        requested_end=at(10),
        num_frames=100,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        complete=True,
        note="",
    )
    item = spool.clip_item(file, [wish(one) for one in events])
    spool.put(item, path.name)
    return item


@dataclass
class Desk:
    """Journals like the rules actor does; can be away, and notes the order of what it receives."""

    journal_: Journal
    store: EmptyStore = field(default_factory=EmptyStore)
    down: bool = False
    received: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changes = EventChanges(self.journal_, self.store)

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        if self.down:
            raise ConnectionError("the rules are restarting")
        for change in changes:
            match change:
                case ClipStored(stored=stored):
                    self.received.append(f"clip {stored.uri.rsplit('/', 1)[-1]}")
                case _:
                    self.received.append(f"{type(change).__name__} {change.event_id}")
        return self.changes.apply(changes)


class Storage(ObjectStore):
    """A local folder that can be away."""

    down = False

    def put_file(self, local: Path, key: str) -> Any:
        if self.down:
            raise StorageError("connection refused")
        return super().put_file(local, key)

    def keys(self) -> list[str]:
        return [key for key, _ in self.list()]


@dataclass
class House:
    root: Path
    storage: Storage
    desk: Desk
    clock: FakeClock
    uploader: Uploader

    def spool(self, camera_id: str = "till") -> Spool:
        return Spool(self.root / camera_id, prefix=f"shop/{camera_id}")

    def event(self, name: str) -> Event:
        found = self.desk.journal_.latest(name)
        assert found is not None
        return found

    def left(self) -> list[str]:
        return sorted(
            path.name for path in self.root.rglob("*") if path.is_file() and path.suffix != ".lock"
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    clock = FakeClock()
    storage = Storage(str(tmp_path / "objects"), retries=UploadRetries(attempts=1))
    with Journal(tmp_path / "journal", max_bytes=2**24) as journal:
        desk = Desk(journal)
        root = tmp_path / "spool"
        patience = Patience(jitter=0)
        uploader = Uploader(root, storage, desk, store_id="shop", patience=patience, clock=clock)
        yield House(root, storage, desk, clock, uploader)


def test_a_clip_is_stored_linked_and_leaves_the_spool(house: House):
    house.desk.journal_.commit([event("a"), event("b")])
    clip(house.spool(), "one", "a", "b")
    assert house.uploader.step() == 1
    for name in ("a", "b"):
        linked = house.event(name).clip
        assert linked is not None
        assert linked.uri is not None
        assert house.storage.open(linked.uri).read() == b"video"
        assert (linked.start, linked.end) == (at(0), at(10))
        assert (linked.requested_start, linked.requested_end) == (at(0), at(10))
    assert house.storage.keys() == ["shop/till/2026-05-01/one.mp4"]
    assert house.left() == []
    assert house.uploader.stats().clips == 1


def test_a_storage_that_is_down_loses_nothing_and_keeps_the_order(house: House):
    house.desk.journal_.commit([event("a"), event("b"), event("c")])
    spool = house.spool()
    house.storage.down = True
    for name in ("a", "b", "c"):
        clip(spool, f"clip-{name}", name)
        house.uploader.step()
        house.clock.advance(60)
    stats = house.uploader.stats()
    assert (stats.waiting, stats.clips) == (3, 0)
    assert stats.last_error == "connection refused"
    assert stats.oldest_s is not None
    house.storage.down = False
    house.uploader.step()
    assert house.desk.received == [f"clip clip-{name}.mp4" for name in "abc"]
    assert house.left() == []


def test_retries_wait_longer_and_longer_but_not_for_ever(house: House):
    house.desk.journal_.commit([event("a")])
    clip(house.spool(), "one", "a")
    house.storage.down = True
    tries: list[float] = []
    for _ in range(600):
        before = house.uploader.stats().retries
        house.uploader.step()
        if house.uploader.stats().retries > before:
            tries.append(house.clock.monotonic())
        house.clock.advance(0.1)
    gaps = [round(b - a, 1) for a, b in pairwise(tries)]
    assert gaps[:5] == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0], abs=0.2)
    assert max(gaps) <= 15.2


def test_one_cameras_trouble_does_not_hold_up_another(house: House):
    """A file of the first cannot be read; the second's is stored all the same."""
    house.desk.journal_.commit([event("a"), event("b")])
    clip(house.spool("bad"), "bad", "a")
    folder = house.root / "bad"
    (folder / "bad.mp4").unlink()
    (folder / "bad.mp4").mkdir()
    clip(house.spool("good"), "good", "b")
    house.uploader.step()
    assert house.event("b").clip is not None
    assert house.event("a").clip is None


def test_commands_events_do_not_wait_for_a_storage_that_is_down(house: House):
    spool = house.spool()
    house.storage.down = True
    house.desk.journal_.commit([event("a")])
    clip(spool, "one", "a")
    spool.put(EventItem(event=event("asked")), "asked")
    open_wish = ClipSpan(event_id="asked", start=at(0), end=at(2), final=False)
    spool.put(WishItem(links=(open_wish,)), "asked")
    house.uploader.step()
    assert house.desk.received == ["EventReported asked", "ClipRequested asked"]
    promised = house.event("asked").clip
    assert promised is not None
    assert (promised.uri, promised.error) == (None, None)


@pytest.mark.parametrize(
    "killed", ["before the link", "before the file goes", "before the manifest"]
)
def test_killed_anywhere_the_same_is_done_again(house: House, tmp_path: Path, killed: str):
    house.desk.journal_.commit([event("a")])
    spool = house.spool()
    item = clip(spool, "one", "a")
    copy = tmp_path / "copy"
    if killed == "before the link":
        house.desk.down = True
        house.uploader.step()
        house.desk.down = False
        house.clock.advance(60)
    else:
        shutil.copytree(spool.folder, copy)
        house.uploader.step()
        shutil.copytree(copy, spool.folder, dirs_exist_ok=True)
        if killed == "before the manifest":
            (spool.folder / item.file).unlink()
    before = house.desk.journal_.latest("a")
    house.uploader.step()
    after = house.event("a")
    assert after.clip is not None
    assert after.clip.uri is not None
    if killed != "before the link":
        assert after == before  # and no further version
    assert house.storage.keys() == [item.key]
    assert house.left() == []


def test_a_file_that_vanished_is_told_to_its_events(house: House):
    house.desk.journal_.commit([event("a")])
    spool = house.spool()
    item = clip(spool, "one", "a")
    (spool.folder / item.file).unlink()
    house.uploader.step()
    told = house.event("a").clip
    assert told is not None
    assert told.uri is None
    assert told.error is not None
    assert "was lost on the spool's disk" in told.error
    assert house.uploader.stats().lost == 1


def test_no_orphan_stays_for_events_that_are_gone(house: House):
    clip(house.spool(), "one", "trimmed long ago")
    house.spool().put_picture(b"jpeg", event_id="gone", name="opening", day="2026-05-01")
    house.uploader.step()
    assert house.storage.keys() == []
    assert house.left() == []


def test_an_event_store_that_is_away_does_not_make_an_event_gone(house: House):
    """The journal has dropped the event; only the store knows whether there is one."""
    house.desk.store.down = True
    clip(house.spool(), "one", "old")
    house.uploader.step()
    assert house.storage.keys() == ["shop/till/2026-05-01/one.mp4"]
    assert house.left() != []


def test_the_best_picture_takes_the_openings_place(house: House):
    house.desk.journal_.commit([event("a")])
    for name in ("opening", "best"):
        house.spool().put_picture(name.encode(), event_id="a", name=name, day="2026-05-01")
    house.uploader.step()
    snapshot = house.event("a").snapshot
    assert snapshot is not None
    assert house.storage.open(snapshot.uri).read() == b"best"
    assert house.storage.keys() == ["shop/till/2026-05-01/a.jpg"]
    assert files_of(house.event("a")) == (snapshot.uri,)


def test_two_uploaders_of_one_spool_do_not_get_in_each_others_way(house: House):
    house.desk.journal_.commit([event("a")])
    spool = house.spool()
    clip(spool, "one", "a")
    with spool.taking() as mine:
        assert mine
        assert house.uploader.step() == 0
    assert house.uploader.step() == 1


def test_an_unreadable_manifest_is_set_aside_and_the_rest_goes_on(house: House):
    house.desk.journal_.commit([event("a")])
    spool = house.spool()
    (spool.folder / "000000000000-x.ready.json").write_text("{")
    clip(spool, "one", "a")
    assert house.uploader.step() == 1
    assert house.left() == [".000000000000-x.ready.json.damaged"]


def test_interrupted_recordings_are_counted_until_they_are_taken_over(house: House):
    spool = house.spool()
    spool.note(RecordingEvents(recording_id="r1", links=(wish("a"),)))
    house.desk.journal_.commit([event("a")])
    with spool.writing():
        assert house.uploader.stats().interrupted == 0  # it goes on
    assert house.uploader.stats().interrupted == 1
    house.clock.advance(60)
    while house.uploader.step():
        pass
    stats = house.uploader.stats()
    assert (stats.interrupted, stats.waiting) == (0, 0)
    clip = house.event("a").clip
    assert clip is not None
    assert clip.error is not None


def test_its_thread_stores_what_comes_and_drains_on_stop(tmp_path: Path):
    storage = Storage(str(tmp_path / "objects"), retries=UploadRetries(attempts=1))
    with Journal(tmp_path / "journal", max_bytes=2**24) as journal:
        journal.commit([event("a")])
        uploader = Uploader(tmp_path / "spool", storage, Desk(journal), store_id="shop")
        uploader.start()
        clip(Spool(tmp_path / "spool" / "till", prefix="shop/till"), "one", "a")
        assert uploader.stop(drain_s=180)
    assert storage.keys() == ["shop/till/2026-05-01/one.mp4"]


def test_a_real_s3_server_that_dies_and_comes_back_gets_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    spool = Spool(tmp_path / "spool" / "till", prefix="shop/till")
    with running_s3(tmp_path / "s3") as server, Journal(tmp_path / "j", max_bytes=2**24) as journal:
        journal.commit([event(name) for name in "abc"])
        objects = ObjectStore(
            f"s3://{BUCKET}/store",
            s3_endpoint=server.endpoint,
            retries=UploadRetries(attempts=1),
        )
        desk = Desk(journal)
        patience = Patience(initial_s=0.2, max_s=0.5)
        uploader = Uploader(tmp_path / "spool", objects, desk, store_id="shop", patience=patience)
        with uploader:
            clip(spool, "one", "a")
            # Counted when it is stored, gone from the spool once its event knows.
            wait_for(lambda: (uploader.stats().clips, uploader.stats().waiting) == (1, 0))
            server.kill()
            tried = uploader.stats().retries
            clip(spool, "two", "b")
            clip(spool, "three", "c")
            wait_for(lambda: uploader.stats().retries > tried)
            assert uploader.stats().waiting == 2
            server.start()
            wait_for(lambda: uploader.stats().waiting == 0)
        assert desk.received == [f"clip {name}.mp4" for name in ("one", "two", "three")]
        for name in "abc":
            found = journal.latest(name)
            assert found is not None
            assert found.clip is not None
            assert found.clip.uri is not None
            assert objects.open(found.clip.uri).read() == b"video"
