"""Events that heard nothing of their video are found in a real journal, and given up in the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from storeguard.recording.reminders import Due, Reminders, promise_of, wish_of

from storeguard.config.store import CameraConfig
from storeguard.events.changes import ClipFailed, ClipRequested, ClipStored
from storeguard.events.clip import StoredClip
from storeguard.events.event import ClipRef, Event, EventStatus
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal
from storeguard.testing import FakeClock
from tests.events.factories import START, changed, event

OVERDUE = Fault(code=FaultCode.OVERDUE)
DISK_FULL = Fault(code=FaultCode.WRITE_FAILED, detail="the disk was full")
CLOSED = {"status": EventStatus.CLOSED, "ended_at": START, "rule": {"record": True}}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3", max_bytes=2**24, clock=clock) as opened:
        yield opened


def closed(name: str | int, version: int = 1, **more: Any) -> Event:
    return event(name, version, **{**CLOSED, **more})


def reminders_of(journal: Journal, clock: FakeClock, smart_record: str = "events") -> Reminders:
    reminders = Reminders(journal, clock=clock)
    recording = {"smart_record": smart_record}
    camera = {"id": "table", "source": "/dev/video0", "recording": recording}
    reminders.configure([CameraConfig.model_validate(camera)])
    return reminders


def again(reminders: Reminders, clock: FakeClock) -> list[str]:
    """Ids said again at the next look."""
    clock.advance(5)
    return [one.event_id for one in reminders.look().again]


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ([closed(1)], ["event-1"]),
        ([event(1, rule={"record": True}), closed(1, 2)], ["event-1"]),
        ([event(1, rule={"record": True})], []),  # still open: the camera is told as it goes on
        ([closed(1, rule={"record": False})], []),
        ([closed(1, rule={})], []),
        ([closed(1, camera_id="attic")], []),  # nobody there records
        ([closed(1, clip=ClipRef(requested_start=START, requested_end=START))], []),
        ([closed(1, clip=ClipRef(error="the disk was full"))], []),
    ],
)
def test_who_is_reminded_of(
    journal: Journal, clock: FakeClock, versions: list[Event], said: list[str]
) -> None:
    journal.commit(versions)
    reminders = reminders_of(journal, clock)
    reminders.look()
    assert again(reminders, clock) == said


def test_said_again_until_something_is_heard(journal: Journal, clock: FakeClock) -> None:
    reminders = reminders_of(journal, clock)
    journal.commit([closed(1), closed(2)])
    assert reminders.look().again == []  # it may be on its way
    assert again(reminders, clock) == ["event-1", "event-2"]
    assert again(reminders, clock) == ["event-1", "event-2"]
    assert reminders.look().again == []  # not with every look
    changed(journal, ClipFailed(wish_of(closed(1)), DISK_FULL))
    assert again(reminders, clock) == ["event-2"]
    journal.commit([closed(3)])
    assert again(reminders, clock) == ["event-2"]
    assert again(reminders, clock) == ["event-2", "event-3"]


def test_what_nobody_takes_up_is_given_up_once(journal: Journal, clock: FakeClock) -> None:
    reminders = reminders_of(journal, clock)
    journal.commit([closed(1)])
    reminders.look()
    clock.advance(301)
    due = reminders.look()
    assert [one.event_id for one in due.given_up] == ["event-1"]
    assert due.again == []
    clock.advance(301)
    assert reminders.look().given_up == []


def test_a_camera_that_was_removed_is_not_waited_for(journal: Journal, clock: FakeClock) -> None:
    """It may still finish its recordings; after that nobody will say anything."""
    reminders = reminders_of(journal, clock)
    journal.commit([closed(1)])
    reminders.look()
    reminders.configure([])
    journal.commit([closed(2)])  # by its removal
    assert again(reminders, clock) == []
    clock.advance(20)
    assert reminders.look() == Due()
    clock.advance(10)
    assert [one.event_id for one in reminders.look().given_up] == ["event-1", "event-2"]
    clock.advance(301)
    assert reminders.look() == Due()


def test_a_step_of_the_wall_clock_gives_nothing_up(journal: Journal, clock: FakeClock) -> None:
    reminders = reminders_of(journal, clock)
    journal.commit([closed(1)])
    reminders.look()
    clock.step_wall_clock(3600)
    assert again(reminders, clock) == ["event-1"]


def test_nothing_is_asked_of_cameras_that_do_not_record_events(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([closed(1)])
    reminders = reminders_of(journal, clock, smart_record="commands")
    reminders.look()
    assert again(reminders, clock) == []


def test_more_than_are_remembered_come_in_turn(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(n) for n in range(300)])
    reminders = reminders_of(journal, clock)
    reminders.look()
    first = again(reminders, clock)
    assert first == [f"event-{n}" for n in range(256)]
    for n in range(256):
        changed(journal, ClipFailed(wish_of(closed(n)), DISK_FULL))
    assert again(reminders, clock) == []  # they make room
    assert again(reminders, clock) == [f"event-{n}" for n in range(256, 300)]
    journal.prune(0.0)
    assert journal.without_video(10_000, limit=1) == []


def test_after_a_restart_it_looks_through_all_of_the_journal(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([closed(1)])
    reminders_of(journal, clock).look()
    fresh = reminders_of(journal, clock)
    fresh.look()
    assert again(fresh, clock) == ["event-1"]


@pytest.mark.parametrize("camera_id", ["table", "removed since"])
def test_a_promised_file_that_never_comes_is_told_of_once(
    journal: Journal, clock: FakeClock, camera_id: str
) -> None:
    journal.commit([closed(1, camera_id=camera_id)])
    promised = changed(journal, ClipRequested(wish_of(closed(1))))
    reminders = reminders_of(journal, clock)
    assert reminders.look().overdue == []
    clock.advance(800)
    assert reminders.look().overdue == []
    clock.advance(120)
    assert reminders.look().overdue == [promised]
    changed(journal, ClipFailed(promise_of(promised), OVERDUE))
    clock.advance(1000)
    assert reminders.look().overdue == []


def test_a_promise_that_was_kept_is_not_overdue(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(n) for n in (1, 2)])
    for n in (1, 2):
        changed(journal, ClipRequested(wish_of(closed(n))))
    reminders = reminders_of(journal, clock)
    reminders.look()
    changed(journal, ClipFailed(wish_of(closed(1)), DISK_FULL))
    changed(journal, ClipStored(wish_of(closed(2)), file_of(closed(2))))
    clock.advance(1000)
    assert reminders.look().overdue == []


def test_a_second_file_that_never_comes_is_told_of(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(1)])
    open_wish = wish_of(closed(1)).model_copy(update={"final": False})
    first = changed(journal, ClipStored(open_wish, file_of(closed(1), 2)))
    reminders = reminders_of(journal, clock)
    reminders.look()
    clock.advance(1000)
    assert reminders.look().overdue == [first]
    told = changed(journal, ClipFailed(promise_of(first), OVERDUE))
    assert told.clip is not None
    assert told.clip.error == f"{OVERDUE.in_words()}; ends 2.00 s earlier than requested"


@pytest.mark.parametrize(
    ("short_s", "error"),
    [(0, None), (2, "ends 2.00 s earlier than requested")],
)
def test_a_file_that_comes_late_after_all(
    journal: Journal, short_s: float, error: str | None
) -> None:
    """Storage was away for long: what was said meanwhile does not hold any more."""
    journal.commit([closed(1)])
    told = changed(journal, ClipFailed(wish_of(closed(1)), OVERDUE))
    assert told.clip is not None
    assert told.clip.error == OVERDUE.in_words()
    late = changed(journal, ClipStored(wish_of(closed(1)), file_of(closed(1), short_s)))
    assert late.clip is not None
    assert late.clip.error == error


def file_of(one: Event, short_s: float = 0) -> StoredClip:
    wish = wish_of(one)
    return StoredClip(
        uri="file:///late.mp4",
        start=wish.start,
        end=wish.end - timedelta(seconds=short_s),
        sha256="0" * 64,
    )
