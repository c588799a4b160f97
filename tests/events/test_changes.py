"""Changes to events: one call, one transaction; old events are taken back from the event store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storeguard.errors import JournalError, StoreError
from storeguard.events.changes import (
    Change,
    ClipFailed,
    ClipRequested,
    ClipStored,
    EventChanges,
    EventReported,
    FileDropped,
    KeepSet,
    Outcome,
    SnapshotStored,
)
from storeguard.events.clip import ClipSpan, StoredClip
from storeguard.events.event import Event, EventStatus
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal
from storeguard.events.shipper import Shipper, ShipperSettings
from storeguard.events.store import EventStore
from tests.events.factories import START, EmptyStore
from tests.events.factories import event as make_event

END = START + timedelta(seconds=5)
FILE = StoredClip(uri="clip", start=START, end=END, sha256="ab")
NO_RECORDER = Fault(code=FaultCode.NO_RECORDER)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal", max_bytes=2**22) as opened:
        yield opened


@pytest.fixture
def changes(journal: Journal) -> EventChanges:
    return EventChanges(journal, EmptyStore())


def span(name: str) -> ClipSpan:
    return ClipSpan(event_id=f"event-{name}", start=START, end=END, final=True)


def latest(journal: Journal, name: str) -> Event:
    found = journal.latest(f"event-{name}")
    assert found is not None
    return found


ALL: list[tuple[Change, str]] = [
    (ClipRequested(span("a")), "clip"),
    (ClipStored(span("a"), FILE), "clip"),
    (ClipFailed(span("a"), NO_RECORDER), "clip"),
    (SnapshotStored("event-a", "picture"), "snapshot"),
    (KeepSet("event-a", True), "keep"),
    (FileDropped("event-a", "before", "too old"), "snapshot"),
    (EventReported(make_event("a", 2, dwell_s=3.0)), "dwell_s"),
]


@pytest.mark.parametrize(("change", "field"), ALL)
def test_applying_twice_changes_nothing_more(
    journal: Journal, changes: EventChanges, change: Change, field: str
) -> None:
    journal.commit([make_event("a")])
    changes.apply([SnapshotStored("event-a", "before")])
    before = latest(journal, "a")
    assert changes.apply([change]) == [Outcome.APPLIED]
    after = latest(journal, "a")
    assert after.version == before.version + 1
    assert getattr(after, field) != getattr(before, field)
    seq = journal.changes_after(None).last_seq
    assert changes.apply([change, change]) == [Outcome.APPLIED, Outcome.APPLIED]
    assert latest(journal, "a") == after
    assert journal.changes_after(None).last_seq == seq


@pytest.mark.parametrize("change", [change for change, _ in ALL[:-1]])
def test_an_event_that_does_not_exist_is_reported(
    journal: Journal, changes: EventChanges, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    assert changes.apply([change]) == [Outcome.NO_EVENT]
    assert journal.changes_after(None).changes == ()
    assert "event-a does not exist any more" in caplog.text


def test_a_batch_is_applied_in_order_and_the_outcomes_are_in_its_order(
    journal: Journal, changes: EventChanges
) -> None:
    outcomes = changes.apply(
        [
            EventReported(make_event("a")),
            ClipRequested(span("a")),
            ClipStored(span("gone"), FILE),
            ClipStored(span("a"), FILE),
        ]
    )
    assert outcomes == [Outcome.APPLIED, Outcome.APPLIED, Outcome.NO_EVENT, Outcome.APPLIED]
    event = latest(journal, "a")
    assert event.version == 3
    assert event.clip is not None
    assert event.clip.uri == "clip"
    assert changes.apply([]) == []


def test_a_batch_is_applied_whole_or_not_at_all(journal: Journal) -> None:
    journal.commit([make_event("a")])
    store = EmptyStore()
    store.down = True
    changes = EventChanges(journal, store)
    with pytest.raises(StoreError):
        changes.apply([KeepSet("event-a", True), KeepSet("event-old", True)])
    assert latest(journal, "a") == make_event("a")
    assert changes.apply([KeepSet("event-a", True)]) == [Outcome.APPLIED]  # needs no store
    journal.close()
    with pytest.raises(JournalError):
        changes.apply([KeepSet("event-a", False)])


def test_changes_of_several_threads_all_count(journal: Journal, changes: EventChanges) -> None:
    journal.commit([make_event("a")])

    def store_files(thread: int) -> None:
        for number in range(20):
            file = FILE.model_copy(update={"uri": f"{thread}-{number:02d}"})
            changes.apply([ClipStored(span("a"), file)])

    threads = [threading.Thread(target=store_files, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    event = latest(journal, "a")
    assert event.clip is not None
    assert (event.version, len(event.clip.parts)) == (81, 79)


def test_a_kept_event_keeps_its_file(journal: Journal, changes: EventChanges) -> None:
    changes.apply(
        [
            EventReported(make_event("a")),
            SnapshotStored("event-a", "picture"),
            KeepSet("event-a", True),
        ]
    )
    drop = FileDropped("event-a", "picture", "too old")
    assert changes.apply([drop]) == [Outcome.KEPT]
    assert latest(journal, "a").snapshot is not None
    assert changes.apply([KeepSet("event-a", False), drop]) == [Outcome.APPLIED, Outcome.APPLIED]
    assert latest(journal, "a").snapshot is None


# ---------------------------------------------------------------------- older events


def test_an_old_event_is_changed_in_the_store_too(journal: Journal, store: EventStore) -> None:
    event = make_event("a", 4, status=EventStatus.CLOSED)
    store.upsert([(event, 12.5)])  # long ago; the journal holds nothing of it
    changes = EventChanges(journal, store)
    assert changes.apply([KeepSet("event-a", True)]) == [Outcome.APPLIED]
    Shipper(journal, store).step()
    found = store.get(event.event_id)
    assert found is not None
    assert found.keep
    assert found.version == event.version + 1
    assert found.latency_ms.capture_to_store == 12.5  # measured once, when it happened


def test_an_old_event_that_does_not_change_is_not_taken_back(
    journal: Journal, store: EventStore
) -> None:
    store.upsert([(make_event("a"), None)])
    changes = EventChanges(journal, store)
    assert changes.apply([KeepSet("event-a", False)]) == [Outcome.APPLIED]
    assert journal.latest("event-a") is None


def test_an_old_event_taken_back_is_no_news_of_the_rules(
    journal: Journal, store: EventStore
) -> None:
    store.upsert([(make_event("a", 4, status=EventStatus.CLOSED), None)])
    EventChanges(journal, store).apply([SnapshotStored("event-a", "picture")])
    assert journal.changes_after(None, by_rules=True).changes == ()
    (change,) = journal.changes_after(None).changes
    assert change.event.snapshot is not None


def test_an_old_recording_still_closes_with_its_clip(journal: Journal, store: EventStore) -> None:
    """It was so long that it left the journal while it was open."""
    first = EventChanges(journal, store)
    first.apply([EventReported(make_event("a")), ClipStored(span("a"), FILE)])
    Shipper(journal, store, settings=ShipperSettings(retain_days=None)).step()
    before = latest(journal, "a")
    fresh_path = journal.path.with_name("fresh")
    with Journal(fresh_path, max_bytes=2**22) as fresh:
        closing = make_event("a", 2, status=EventStatus.CLOSED, ended_at=END)
        EventChanges(fresh, store).apply([EventReported(closing)])
        after = latest(fresh, "a")
    assert (after.version, after.status) == (before.version + 1, EventStatus.CLOSED)
    assert after.clip == before.clip
