"""Events that left the journal are still changed: they are taken back from the event store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from storeguard.errors import NotFoundError
from storeguard.events.changes import Amender
from storeguard.events.clip_link import StoredClip, Wish
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal import Journal
from storeguard.events.shipper import Shipper
from storeguard.events.store import EventStore
from tests.events.factories import event as make_event
from tests.valkey import ValkeyProcess, running_valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with running_valkey(tmp_path / "valkey") as valkey:
        yield valkey


@pytest.fixture
def store(server: ValkeyProcess) -> Iterator[EventStore]:
    with EventStore(server.url, timeout_s=60) as client:
        yield client


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal", max_bytes=2**22) as opened:
        yield opened


def test_an_old_event_is_changed_in_the_store_too(journal: Journal, store: EventStore):
    event = make_event("a").model_copy(update={"status": EventStatus.CLOSED})
    store.upsert([(event, 12.5)])  # long ago; the journal knows nothing of it
    amender = Amender(journal, store)
    assert amender.set_keep(event.event_id, keep=True).keep
    Shipper(journal, store).step()
    found = store.get(event.event_id)
    assert found is not None
    assert found.keep
    assert found.version == event.version + 1
    assert found.latency_ms.capture_to_store == 12.5  # measured once, when it happened


def test_a_link_to_an_old_event_and_none_to_one_that_is_gone(journal: Journal, store: EventStore):
    event = make_event("a")
    store.upsert([(event, None)])
    end = event.started_at + timedelta(seconds=5)
    stored = StoredClip(uri="a", start=event.started_at, end=end, sha256="ab")
    wishes = [
        Wish(event_id=name, start=event.started_at, end=end, final=True)
        for name in (event.event_id, "gone")
    ]
    amender = Amender(journal, store)
    assert amender.link_clip(stored, wishes) == 1
    linked: Event | None = journal.latest(event.event_id)
    assert linked is not None
    assert linked.clip is not None
    assert linked.clip.uri == "a"
    with pytest.raises(NotFoundError):
        amender.set_keep("gone", keep=True)
    assert not amender.link_snapshot("gone", "p")
    assert amender.drop_file("gone", "a", "too old")  # nobody wants it any more


def test_a_kept_event_keeps_its_file(journal: Journal, store: EventStore):
    event = make_event("a")
    journal.commit([event])
    amender = Amender(journal, store)
    amender.link_snapshot(event.event_id, "p")
    amender.set_keep(event.event_id, keep=True)
    assert not amender.drop_file(event.event_id, "p", "too old")
    amender.set_keep(event.event_id, keep=False)
    assert amender.drop_file(event.event_id, "p", "too old")
    newest = journal.latest(event.event_id)
    assert newest is not None
    assert newest.snapshot is None
