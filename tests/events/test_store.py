from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from storeguard.errors import StoreError
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.keyspace import CHANGES, PREFIX, StoredChange, Upserted
from storeguard.events.query import EventQuery
from storeguard.events.store import EventReader, EventStore
from tests.events.factories import START, event
from tests.valkey import ValkeyProcess, refusing_port

CREATED, UPDATED, UNCHANGED = Upserted.CREATED, Upserted.UPDATED, Upserted.UNCHANGED


def put(store: EventStore, *events: Event) -> list[Upserted]:
    return store.upsert([(one, None) for one in events])


def pages(store: EventStore, **question: object) -> list[list[str]]:
    """All pages of an answer, as event ids."""
    result, cursor = [], None
    while True:
        page = store.query(EventQuery(cursor=cursor, **question))  # type: ignore[arg-type]
        result.append([found.event_id for found in page.events])
        cursor = page.next_cursor
        if cursor is None:
            return result


# ---------------------------------------------------------------------- writing


def test_only_newer_versions_change_anything(store: EventStore) -> None:
    closed = event(1, 3, status=EventStatus.CLOSED, dwell_s=3.0)
    assert put(store, event(1)) == [CREATED]
    assert put(store, event(1), closed, event(1, 2), closed) == [
        UNCHANGED,
        UPDATED,
        UNCHANGED,
        UNCHANGED,
    ]
    assert store.get("event-1") == closed
    assert store.get("event-2") is None
    assert store.count() == 1
    assert pages(store, status=EventStatus.OPEN) == [[]]
    assert pages(store, status=EventStatus.CLOSED) == [["event-1"]]
    assert [change.event.version for change in store.changes_after("0-0")] == [1, 3]


def test_latency_is_that_of_the_first_storing(store: EventStore) -> None:
    assert store.upsert([(event(1), 40.25)]) == [CREATED]
    store.upsert([(event(1, 2), 9000.0)])
    found = store.get("event-1")
    assert found is not None
    assert (found.version, found.latency_ms.capture_to_store) == (2, 40.25)
    (listed,) = store.query(EventQuery()).events
    assert listed == found
    assert store.changes_after("0-0")[-1].event == found


def test_all_keys_share_a_hash_tag(store: EventStore, valkey: ValkeyProcess) -> None:
    put(store, event(1), event(2, zone_id=None, person_id=None))
    store.identity()
    with valkey.client() as client:
        keys = [key.decode() for key in client.keys("*")]
    assert len(keys) > 8
    assert all(key.startswith(PREFIX) for key in keys)


def test_the_change_stream_is_bounded(store: EventStore, valkey: ValkeyProcess) -> None:
    for start in range(0, 12_000, 500):
        put(store, *(event("x", start + version) for version in range(1, 501)))
    with valkey.client() as client:
        assert 10_000 <= client.xlen(CHANGES) < 10_500


def test_a_record_that_is_no_event_hides_no_other(
    store: EventStore, valkey: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, event(1), event(2))
    with valkey.client() as client:
        client.hset(f"{PREFIX}event:event-2", "body", "{}")
    assert pages(store) == [["event-1"]]
    assert "no valid event" in caplog.text


# ---------------------------------------------------------------------- asking

CAMERAS, ZONES, PEOPLE = ("table", "door"), ("a", "b", None), ("p", "q", "r")


def mixed(count: int) -> list[Event]:
    """Events that differ in every filterable field; several share a start."""
    choose = random.Random(7)
    return [
        event(
            f"{number:03d}",
            camera_id=choose.choice(CAMERAS),
            store_id=choose.choice(("shop", "kiosk")),
            zone_id=choose.choice(ZONES),
            person_id=choose.choice(PEOPLE),
            type=choose.choice((EventType.LOITERING, EventType.INTRUSION)),
            status=choose.choice(list(EventStatus)),
            dwell_s=choose.choice((None, 1.0, 5.0)),
            started_at=START + timedelta(seconds=choose.randrange(40)),
        )
        for number in range(count)
    ]


FILTERS: dict[str, tuple[object, ...]] = {
    "camera": (None, "table", "nowhere"),
    "zone": (None, "a"),
    "person": (None, "q"),
    "type": (None, EventType.INTRUSION),
    "status": (None, EventStatus.OPEN),
    "min_dwell_s": (None, 2.0),
}


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_filters_combine_and_pages_join(store: EventStore, limit: int) -> None:
    events = mixed(120)
    put(store, *events)
    newest_first = sorted(events, key=lambda one: (one.started_at, one.event_id), reverse=True)
    combinations = list(itertools.product(*FILTERS.values()))
    for values in [combinations[0], *random.Random(limit).sample(combinations, 25)]:
        question = dict(zip(FILTERS, values, strict=True))
        found = pages(store, limit=limit, **question)
        expected = [
            one.event_id
            for one in newest_first
            if EventQuery(**question).admits(one)  # type: ignore[arg-type]
        ]
        assert list(itertools.chain(*found)) == expected, question
        assert all(len(page) <= limit for page in found)


def test_spans_are_half_open(store: EventStore) -> None:
    put(store, *(event(second) for second in range(10)))
    span = {"start": START + timedelta(seconds=3), "end": START + timedelta(seconds=6)}
    assert pages(store, **span) == [["event-5", "event-4", "event-3"]]
    assert pages(store, limit=2, **span) == [["event-5", "event-4"], ["event-3"]]
    assert pages(store, start=START + timedelta(seconds=9)) == [["event-9"]]
    assert pages(store, end=START) == [[]]


def test_paging_neither_skips_nor_repeats_while_events_arrive(store: EventStore) -> None:
    """Everything there at the start is found exactly once, whatever comes or changes meanwhile."""
    choose = random.Random(3)
    there = [event(choose.randrange(500), event_id=f"old-{n}") for n in range(80)]
    put(store, *there)
    new = itertools.count()
    for limit in (1, 3, 20):
        found: list[str] = []
        cursor = None
        while True:
            page = store.query(EventQuery(limit=limit, cursor=cursor, camera="table"))
            found += [one.event_id for one in page.events]
            cursor = page.next_cursor
            if cursor is None:
                break
            # new events before, at and behind the reader's place, and changes to known ones
            put(
                store,
                *(
                    event(choose.randrange(600), event_id=f"new-{next(new)}")
                    for _ in range(3 if limit > 1 else 1)
                ),
            )
            changed = choose.choice(there)
            known = store.get(changed.event_id)
            assert known is not None
            put(store, known.model_copy(update={"version": known.version + 1, "dwell_s": 9.0}))
        assert len(found) == len(set(found))
        assert {one.event_id for one in there} <= set(found)


def test_rare_matches_end_the_scan_with_a_cursor(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storeguard.events.keyspace._MAX_SCANNED", 600)
    put(store, *(event(number, dwell_s=float(number == 0)) for number in range(1500)))
    found = pages(store, min_dwell_s=1.0, limit=5)
    assert list(itertools.chain(*found)) == ["event-0"]
    assert len(found) > 1


# ---------------------------------------------------------------------- retention


def test_trimming_by_age_and_number_spares_what_is_kept(
    store: EventStore, valkey: ValkeyProcess
) -> None:
    put(store, *(event(second, keep=second == 1) for second in range(10)))
    assert store.trim(before=START + timedelta(seconds=4)) == 3
    assert pages(store) == [[f"event-{n}" for n in (9, 8, 7, 6, 5, 4, 1)]]
    assert store.trim(max_events=3) == 4
    assert pages(store, camera="table") == [["event-9", "event-8", "event-1"]]
    assert store.get("event-5") is None
    assert store.trim(before=START + timedelta(days=1)) == 2
    assert put(store, event(1, 2, keep=False)) == [UPDATED]
    assert store.trim(before=START + timedelta(days=1), max_events=0) == 1
    with valkey.client() as client:
        assert {key.decode() for key in client.keys("*")} == {CHANGES}


def test_trimming_by_age_spares_files_whose_time_begins_in_1970(store: EventStore) -> None:
    """Played at full pace, a file's times are positions in it; they say nothing about age."""
    played = event("played").model_copy(
        update={"started_at": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=12)}
    )
    put(store, played, event(1))
    assert store.trim(before=START + timedelta(days=1)) == 1
    assert pages(store) == [["event-played"]]


# ---------------------------------------------------------------------- the rest


def test_identity_tells_restart_and_loss_apart(valkey: ValkeyProcess, store: EventStore) -> None:
    identity = store.identity()
    assert store.identity() == identity
    with valkey.client() as client:
        client.flushall()
    run, _, epoch = store.identity().partition("/")
    assert (run, epoch == identity.partition("/")[2]) == (identity.partition("/")[0], False)


@pytest.mark.parametrize(
    ("url", "words"), [("ftp://x", "address"), ("redis://:pw@127.0.0.1:{port}", "refused")]
)
def test_unreachable(url: str, words: str) -> None:
    with (
        refusing_port() as port,
        pytest.raises(StoreError, match=words) as caught,
        EventStore(url.format(port=port), timeout_s=60) as store,
    ):
        store.ping()
    assert "pw" not in str(caught.value)


# ---------------------------------------------------------------------- reading, asyncio


async def first(
    changes: AsyncIterator[StoredChange | None], count: int
) -> list[StoredChange | None]:
    found = []
    async for change in changes:
        found.append(change)
        if len(found) == count:
            break
    return found


def test_the_reader_answers_as_the_store(valkey: ValkeyProcess, store: EventStore) -> None:
    put(store, *(event(second) for second in range(5)))

    async def ask() -> None:
        reader = EventReader(valkey.url, timeout_s=60)
        assert await reader.get("event-3") == store.get("event-3")
        assert await reader.query(EventQuery(limit=2)) == store.query(EventQuery(limit=2))
        assert await reader.count() == 5
        await reader.close()

    asyncio.run(ask())


def test_following_changes(valkey: ValkeyProcess, store: EventStore) -> None:
    put(store, event(1), event(2))

    async def follow() -> None:
        reader = EventReader(valkey.url, poll_s=0.01, timeout_s=60)
        settled, *known = await first(reader.changes("0-0"), 3)
        assert settled is None
        assert [change.event.event_id for change in known if change] == ["event-1", "event-2"]
        assert known[0] is not None
        after = await first(reader.changes(known[0].id), 2)
        assert after == [None, known[1]]
        assert await first(reader.changes(idle_s=0.02), 2) == [None, None]  # then a heartbeat

        following = reader.changes(idle_s=0.02)
        assert await anext(following) is None  # by now it knows where it begins
        await asyncio.to_thread(put, store, event(3))
        new = None
        while new is None:
            new = await anext(following)
        assert new.event == event(3)
        # an id from before the data was lost: everything there is new to the reader
        assert None not in (await first(reader.changes("9999999999999-0"), 4))[1:]
        assert not await reader.missed_changes(known[0].id)
        assert await reader.missed_changes("9999999999999-0")
        assert await reader.missed_changes("1-0")
        await reader.close()

    asyncio.run(follow())
