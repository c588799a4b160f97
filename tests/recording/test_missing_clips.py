"""Events whose video never came are found in a real journal, and get a fault in the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storeguard.config.store import CameraConfig
from storeguard.events.changes import (
    Change,
    ClipAnnounced,
    ClipFailed,
    ClipRequested,
    ClipStored,
)
from storeguard.events.clip import StoredClip
from storeguard.events.event import Event, EventStatus
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal
from storeguard.recording.clip_requests import span_of
from storeguard.recording.missing_clips import MissingClips
from storeguard.testing import FakeClock
from tests.events.factories import START, changed, event

CLOSED = {"status": EventStatus.CLOSED, "ended_at": START, "rule": {"record": True}}
OTHER = Fault(code=FaultCode.WRITE_FAILED, detail="the disk was full")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3", max_bytes=2**24, clock=clock) as opened:
        yield opened


def closed(name: str | int, version: int = 1, **more: Any) -> Event:
    return event(name, version, **{**CLOSED, **more})


class Scan:
    """A scan of the journal, with the files that storage holds."""

    def __init__(self, journal: Journal, clock: FakeClock, smart_record: str = "events") -> None:
        self.stored: set[str] = set()
        self.clock = clock
        self.missing = MissingClips(journal, is_stored=self.stored.__contains__, clock=clock)
        recording = {"smart_record": smart_record}
        camera = {"id": "table", "source": "/dev/video0", "recording": recording}
        self.missing.configure([CameraConfig.model_validate(camera)])
        self.missing.scan()

    def after(self, seconds: float) -> list[Change]:
        self.clock.advance(seconds)
        return self.missing.scan()


def found(changes: list[Change], code: FaultCode) -> list[str]:
    return [
        one.event_id for one in changes if isinstance(one, ClipFailed) and one.fault.code is code
    ]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([closed(1)], ["event-1"]),
        ([event(1, rule={"record": True}), closed(1, 2)], ["event-1"]),
        ([event(1, rule={"record": True})], []),  # still open: its recorder reads of it
        ([closed(1, rule={"record": False})], []),
        ([closed(1, rule={})], []),
        ([closed(1, camera_id="attic")], ["event-1"]),  # a camera that was removed
    ],
)
def test_an_event_that_no_recorder_has_taken_up_gets_a_fault_once(
    journal: Journal, clock: FakeClock, versions: list[Event], expected: list[str]
) -> None:
    journal.commit(versions)
    scan = Scan(journal, clock)
    assert scan.after(25) == []
    assert found(scan.after(300), FaultCode.NO_RECORDER) == expected
    assert scan.after(301) == []


def test_an_event_of_which_something_was_reported_gets_none(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([closed(1), closed(2)])
    scan = Scan(journal, clock)
    changed(journal, ClipFailed(span_of(closed(1)), OTHER))
    assert found(scan.after(301), FaultCode.NO_RECORDER) == ["event-2"]


def test_the_events_of_a_removed_camera_wait_only_for_it_to_finish(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([closed(1)])
    scan = Scan(journal, clock)
    scan.missing.configure([])
    journal.commit([closed(2)])  # by its removal
    assert scan.after(5) == []
    assert scan.after(20) == []
    assert found(scan.after(10), FaultCode.NO_RECORDER) == ["event-1", "event-2"]
    assert scan.after(301) == []


def test_a_step_of_the_wall_clock_means_nothing(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(1)])
    scan = Scan(journal, clock)
    clock.step_wall_clock(3600)
    assert scan.after(5) == []


def test_cameras_that_record_no_events_have_none_missing(
    journal: Journal, clock: FakeClock
) -> None:
    journal.commit([closed(1)])
    assert Scan(journal, clock, smart_record="commands").after(301) == []


def test_more_than_are_remembered_come_in_turn(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(n) for n in range(300)])
    scan = Scan(journal, clock)
    first = found(scan.after(301), FaultCode.NO_RECORDER)
    assert first == [f"event-{n}" for n in range(256)]
    rest = found(scan.after(301), FaultCode.NO_RECORDER)
    assert rest == [f"event-{n}" for n in range(256, 300)]


def test_after_a_restart_the_whole_journal_is_scanned(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(1)])
    Scan(journal, clock)
    assert found(Scan(journal, clock).after(301), FaultCode.NO_RECORDER) == ["event-1"]


@pytest.mark.parametrize("camera_id", ["table", "removed since"])
def test_a_requested_file_that_never_comes_is_overdue_once(
    journal: Journal, clock: FakeClock, camera_id: str
) -> None:
    journal.commit([closed(1, camera_id=camera_id)])
    changed(journal, ClipRequested(span_of(closed(1))))
    scan = Scan(journal, clock)
    assert scan.after(800) == []
    overdue = scan.after(120)
    assert found(overdue, FaultCode.OVERDUE) == ["event-1"]
    changed(journal, *overdue)
    assert scan.after(1000) == []


def test_files_and_faults_that_came_are_not_overdue(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(n) for n in (1, 2)])
    for n in (1, 2):
        changed(journal, ClipRequested(span_of(closed(n))))
    scan = Scan(journal, clock)
    changed(journal, ClipFailed(span_of(closed(1)), OTHER))
    changed(journal, ClipStored(span_of(closed(2)), file_of(closed(2))))
    assert scan.after(1000) == []


def test_a_second_file_that_never_comes_is_overdue(journal: Journal, clock: FakeClock) -> None:
    journal.commit([closed(1)])
    open_span = span_of(closed(1)).model_copy(update={"final": False})
    changed(journal, ClipStored(open_span, file_of(closed(1), 2)))
    overdue = Scan(journal, clock).after(1000)
    assert found(overdue, FaultCode.OVERDUE) == ["event-1"]
    clip = changed(journal, *overdue).clip
    assert clip is not None
    assert {fault.code for fault in clip.faults} == {FaultCode.OVERDUE, FaultCode.ENDS_EARLY}


@pytest.mark.parametrize(("short_s", "faults"), [(0, set()), (2, {FaultCode.ENDS_EARLY})])
def test_a_file_that_comes_late_ends_the_fault(
    journal: Journal, short_s: float, faults: set[FaultCode]
) -> None:
    """Storage was unreachable for long."""
    journal.commit([closed(1)])
    span = span_of(closed(1))
    overdue = Fault(code=FaultCode.OVERDUE)
    before = changed(journal, ClipFailed(span, overdue)).clip
    assert before is not None
    assert before.faults == (overdue,)
    after = changed(journal, ClipStored(span, file_of(closed(1), short_s))).clip
    assert after is not None
    assert {fault.code for fault in after.faults} == faults


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_file_stored_by_a_node_that_was_lost_before_it_linked_it(
    journal: Journal, clock: FakeClock, is_stored: bool
) -> None:
    """The upload was announced; whether it was done, only storage knows."""
    journal.commit([closed(1)])
    span, file = span_of(closed(1)), file_of(closed(1))
    announced = changed(journal, ClipAnnounced(span, file)).clip
    assert announced is not None
    assert announced.uri is None  # nobody is sent to a file that may not be there
    scan = Scan(journal, clock)
    if is_stored:
        scan.stored.add(file.uri)
    clip = changed(journal, *scan.after(1000)).clip
    assert clip is not None
    assert clip.uri == (file.uri if is_stored else None)
    assert [fault.code for fault in clip.faults] == ([] if is_stored else [FaultCode.OVERDUE])
    assert scan.after(1000) == []


def file_of(one: Event, short_s: float = 0) -> StoredClip:
    span = span_of(one)
    return StoredClip(
        uri="file:///late.mp4",
        start=span.start,
        end=span.end - timedelta(seconds=short_s),
        sha256="0" * 64,
    )
