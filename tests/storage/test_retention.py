"""Retention: oldest files first, kept events never, and each event changed before its file goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storeguard.config.store import StorageSettings
from storeguard.errors import StoreError
from storeguard.events.annotations import composed, separated
from storeguard.events.changes import Change, FileDropped, Outcome
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, EventType, SnapshotRef
from storeguard.events.query import EventQuery, Page, cursor_of, position_from
from storeguard.storage.objects import ObjectStore
from storeguard.storage.retention import Retention
from storeguard.testing import FakeClock

NOW = datetime(2026, 5, 31, 12, tzinfo=UTC)


@dataclass
class Shelf:
    """Events and their files."""

    objects: ObjectStore
    events: dict[str, Event] = field(default_factory=dict)
    down: bool = False
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def add(
        self,
        name: str,
        *,
        days_ago: float,
        size: int = 100,
        camera: str = "till",
        keep: bool = False,
        parts: int = 0,
        file: str | None = None,
        snapshot: bool = False,
    ) -> None:
        at = NOW - timedelta(days=days_ago)
        uris = [
            self.objects.put_bytes(
                bytes(size), f"shop/{camera}/{at:%Y-%m-%d}/{file or name}-{n}.mp4"
            ).uri
            for n in range(parts + 1)
        ]
        picture = None
        if snapshot:
            key = f"shop/{camera}/{at:%Y-%m-%d}/{name}.jpg"
            picture = SnapshotRef(uri=self.objects.put_bytes(b"jpeg", key).uri)
        later = [
            ClipPart(
                uri=uri,
                start=at + timedelta(seconds=10 * n),
                end=at + timedelta(seconds=10 * n + 10),
            )
            for n, uri in enumerate(uris[1:], start=1)
        ]
        clip = ClipRef(uri=uris[0], start=at, end=at + timedelta(seconds=10), parts=tuple(later))
        self.events[name] = Event(
            event_id=name,
            version=1,
            type=EventType.INTRUSION,
            status=EventStatus.CLOSED,
            store_id="shop",
            camera_id=camera,
            started_at=at,
            ended_at=at,
            updated_at=at,
            clip=clip,
            snapshot=picture,
            keep=keep,
        )

    def query(self, question: EventQuery) -> Page:
        if self.down:
            raise StoreError("connection refused")
        ordered = sorted(self.events)
        first = int(position_from(question.cursor)[:15]) if question.cursor else 0
        page = [self.events[name] for name in ordered[first : first + 2]]  # small pages
        more = cursor_of(f"{first + 2:015d}:x") if first + 2 < len(ordered) else None
        return Page(tuple(page), more)

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        outcomes = []
        for change in changes:
            assert isinstance(change, FileDropped)
            assert self.objects.size(change.uri)  # changed before the file is deleted
            event, annotations = separated(self.events[change.event_id])
            if annotations.keep:
                outcomes.append(Outcome.KEPT)
                continue
            without = annotations.without_file(change.uri, change.reason)
            self.events[change.event_id] = composed(event, without, version=event.version + 1)
            outcomes.append(Outcome.APPLIED)
        return outcomes

    def retention(self, **settings: object) -> Retention:
        bounds = {"retain_days": None, "retain_bytes": None, **settings}
        return Retention(
            self.objects,
            self,
            self.apply,
            store_id="shop",
            settings=StorageSettings.model_validate(bounds),
            clock=self.clock,
        )

    def with_clip(self) -> set[str]:
        return {name for name, one in self.events.items() if one.clip and one.clip.uri}

    def check(self) -> None:
        """No event refers to what is not there, and nothing is there that no event refers to."""
        linked = set()
        for one in self.events.values():
            if one.clip and one.clip.uri:
                linked |= {one.clip.uri, *(part.uri for part in one.clip.parts)}
            if one.snapshot:
                linked.add(one.snapshot.uri)
        stored = {f"{self.objects.uri}/{key}" for key, _ in self.objects.list()}
        assert stored == linked


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(ObjectStore(str(tmp_path / "objects")))


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, {"a", "b", "c", "d", "e"}),
        ({"retain_days": 10}, {"c", "d", "e"}),
        ({"retain_bytes": 250}, {"d", "e"}),  # oldest first
        ({"retain_bytes_per_camera": 150}, {"b", "d", "e"}),  # of the door there are b and e
        ({"retain_days": 10, "retain_bytes": 100}, {"e"}),
        ({"retain_bytes": 1}, set()),
    ],
)
def test_what_is_past_the_bounds_is_deleted(
    shelf: Shelf, settings: dict[str, object], left: set[str]
):
    shelf.add("a", days_ago=30)
    shelf.add("b", days_ago=20, camera="door", size=50)
    shelf.add("c", days_ago=5)
    shelf.add("d", days_ago=3)
    shelf.add("e", days_ago=1, camera="door")
    retention = shelf.retention(**settings)
    assert retention.sweep() == 5 - len(left)
    assert shelf.with_clip() == left
    shelf.check()
    for name in shelf.events.keys() - left:
        clip = shelf.events[name].clip
        assert clip is not None
        assert clip.error is not None
        assert clip.error.startswith("deleted by retention")
    stats = retention.stats()
    assert (stats.files, stats.deleted) == (len(left), 5 - len(left))
    assert retention.sweep() == 0


def test_kept_events_keep_all_their_files(shelf: Shelf):
    shelf.add("kept", days_ago=300, keep=True, parts=2, snapshot=True)
    shelf.add("old", days_ago=200, parts=2, snapshot=True)
    shelf.add("new", days_ago=1)
    retention = shelf.retention(retain_days=30, retain_bytes=150)
    assert retention.sweep() == 5
    assert shelf.with_clip() == {"kept"}
    assert shelf.events["old"].snapshot is None
    assert shelf.events["kept"].snapshot is not None
    shelf.check()
    assert retention.stats().kept_bytes == 304
    assert retention.stats().over_bytes == 154


def test_a_file_shared_with_a_kept_event_stays(shelf: Shelf):
    shelf.add("kept", days_ago=100, keep=True, file="shared")
    shelf.add("other", days_ago=100, file="shared")
    assert shelf.retention(retain_days=30).sweep() == 0
    assert shelf.with_clip() == {"kept", "other"}


def test_an_event_marked_just_now_keeps_its_file(shelf: Shelf):
    shelf.add("a", days_ago=100)
    retention = shelf.retention(retain_days=30)
    stale = dict(shelf.events)
    answers = shelf.query

    def query(question: EventQuery) -> Page:
        page = answers(question)
        shelf.events = {name: one.model_copy(update={"keep": True}) for name, one in stale.items()}
        return page

    shelf.query = query  # type: ignore[method-assign]
    assert retention.sweep() == 0
    assert shelf.with_clip() == {"a"}
    shelf.check()


def test_nothing_is_deleted_while_the_events_cannot_be_read(shelf: Shelf):
    shelf.add("a", days_ago=100)
    shelf.down = True
    with pytest.raises(StoreError):
        shelf.retention(retain_days=30, retain_bytes=1).sweep()
    assert len(list(shelf.objects.list())) == 1


def test_files_of_no_event_are_deleted_with_age_but_not_while_fresh(shelf: Shelf):
    for days in (0, 100):
        day = NOW - timedelta(days=days)
        shelf.objects.put_bytes(b"x", f"shop/till/{day:%Y-%m-%d}/{days}.mp4")
    shelf.objects.put_bytes(b"x", "another-store/till/2020-01-01/a.mp4")
    assert shelf.retention(retain_days=30).sweep() == 1
    assert shelf.retention(retain_bytes=1).sweep() == 0
    assert [key for key, _ in shelf.objects.list()] == [
        "another-store/till/2020-01-01/a.mp4",
        f"shop/till/{NOW:%Y-%m-%d}/0.mp4",
    ]
