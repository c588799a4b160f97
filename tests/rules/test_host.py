"""The rules host: observations in, events and checkpoints into a real journal as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from storeguard.config.store import CameraConfig
from storeguard.errors import JournalError
from storeguard.events.event import Event, EventStatus
from storeguard.events.journal import ChangeBatch, Journal
from storeguard.rules.host import RulesHost
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat
from storeguard.testing import FakeClock

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
CAMERA = CameraConfig.model_validate(
    {
        "id": "door",
        "source": "rtsp://user:hunter2@10.0.0.7/1",
        "zones": [
            {
                "id": "all",
                "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]],
                "rules": [{"type": "loitering", "loiter_s": 2, "grace_s": 1}],
            }
        ],
    }
)


def seen(seq: int, *, people: Sequence[str] = ("anna",), camera: str = "door") -> Observation:
    """One observation a second."""
    return Observation(
        camera_id=camera,
        epoch="e1",
        seq=seq,
        captured_at=START + timedelta(seconds=seq),
        person_id=tuple(people),
        xyxy=np.tile(np.array([0.4, 0.4, 0.6, 0.8], np.float32), (len(people), 1)),
        score=np.full(len(people), 0.9, np.float32),
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3", max_bytes=2**24) as opened:
        yield opened


def host_of(journal: Journal, clock: FakeClock | None = None) -> RulesHost:
    host = RulesHost("shop", journal, clock=clock or FakeClock(START))
    host.configure([CAMERA])
    return host


def stored(journal: Journal) -> list[Event]:
    newest: dict[str, Event] = {}
    for entry in journal.pending(10_000):
        newest[entry.event.event_id] = entry.event
    return list(newest.values())


def test_events_are_journalled_and_reported(journal: Journal) -> None:
    host = host_of(journal)
    heartbeat = Heartbeat("door", reads_changes=True)
    (verdict,) = host.observe([seen(seq) for seq in range(4)], [heartbeat])
    (event,) = stored(journal)
    assert [one.event_id for one in verdict.open_events] == [event.event_id]
    assert verdict.num_events == 1
    assert verdict.changes is not None
    assert [one.event.event_id for one in verdict.changes.changes] == [event.event_id]
    assert event.dwell_s == 3
    assert [(one.person_id, one.dwell_s) for one in verdict.dwell] == [("anna", 3.0)]


@pytest.mark.parametrize("killed_after", range(1, 9))
def test_a_host_killed_at_any_moment_goes_on(tmp_path: Path, killed_after: int) -> None:
    """What was not acknowledged is sent again, as the outbox does."""
    path = tmp_path / "journal.sqlite3"
    walk = [seen(seq) for seq in range(8)] + [seen(seq, people=()) for seq in range(8, 12)]
    with Journal(path, max_bytes=2**24) as journal:
        host_of(journal).observe(walk[:killed_after])
    with Journal(path, max_bytes=2**24) as journal:
        # The camera's observations come before the supervisor's settings do.
        host = RulesHost("shop", journal, clock=FakeClock(START))
        for observation in walk[max(0, killed_after - 2) :]:  # two were not acknowledged
            host.observe([observation])
        (event,) = stored(journal)
    assert event.status is EventStatus.CLOSED
    assert event.dwell_s == 7
    assert event.started_at == START


def test_a_restarted_host_knows_its_open_events(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with Journal(path, max_bytes=2**24) as journal:
        (before,) = host_of(journal).observe([seen(seq) for seq in range(4)])
    with Journal(path, max_bytes=2**24) as journal:
        (after,) = host_of(journal).observe([seen(4)])
    assert after.open_events == before.open_events


def test_what_cannot_be_written_now_is_written_next_time(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the rules have stepped, the same observation comes again as a replay."""
    host = host_of(journal)
    host.observe([seen(0), seen(1)])

    def full(*_: object) -> None:
        raise JournalError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", full)
        with pytest.raises(JournalError):
            host.observe([seen(2)])
        assert stored(journal) == []
    host.observe([seen(2)])
    (event,) = stored(journal)
    assert event.dwell_s == 2


def test_silence_closes_what_is_open(journal: Journal) -> None:
    clock = FakeClock(START)
    host = host_of(journal, clock)
    host.observe([seen(seq) for seq in range(4)])
    clock.advance(3)
    assert host.tick() == []
    clock.advance(60)
    (closed,) = host.tick()
    assert closed.status is EventStatus.CLOSED
    assert closed.ended_at is not None
    assert closed.ended_at - START <= timedelta(seconds=5)
    assert host.tick() == []


def test_a_file_that_waits_for_the_detector_is_not_silent(journal: Journal) -> None:
    clock = FakeClock(START)
    host = host_of(journal, clock)
    host.observe([seen(seq) for seq in range(4)])
    for _ in range(60):
        clock.advance(2)
        host.observe([], [Heartbeat("door", is_waiting=True), Heartbeat("another")])
        assert host.tick() == []
    host.observe([seen(4)])
    (event,) = stored(journal)
    assert (event.status, event.dwell_s) == (EventStatus.OPEN, 4)
    clock.advance(60)  # it has ended
    (closed,) = host.tick()
    assert closed.dwell_s == 4


def requested(host: RulesHost, batch: ChangeBatch | None) -> ChangeBatch:
    """What the host answers a recorder that has dealt with a batch."""
    cursor = None if batch is None else batch.cursor
    heartbeat = Heartbeat("door", reads_changes=True, cursor=cursor)
    (verdict,) = host.observe([], [heartbeat])
    assert verdict.changes is not None
    return verdict.changes


def test_changes_are_reported_until_the_recorder_has_dealt_with_them(tmp_path: Path) -> None:
    """A lost answer, a restart of the rules, a recorder that comes late: all are one case."""
    path = tmp_path / "journal.sqlite3"
    with Journal(path, max_bytes=2**24) as journal:
        host = host_of(journal)
        host.observe([seen(seq) for seq in range(4)])
        opened = requested(host, None)
        assert [one.event.status for one in opened.changes] == [EventStatus.OPEN]
        assert requested(host, None) == opened  # the answer was lost
        assert requested(host, opened).changes == ()
        host.observe([seen(seq, people=()) for seq in range(4, 20)])
        closed = requested(host, opened)
        assert [one.event.status for one in closed.changes] == [EventStatus.CLOSED]
    with Journal(path, max_bytes=2**24) as journal:
        host = RulesHost("shop", journal, clock=FakeClock(START))
        assert requested(host, opened).changes == closed.changes
        assert requested(host, closed).changes == ()


def test_the_end_that_its_removal_brings_reaches_a_camera_that_is_leaving(
    journal: Journal,
) -> None:
    host = host_of(journal)
    host.observe([seen(seq) for seq in range(4)])
    opened = requested(host, None)
    host.configure([])
    assert [one.event.status for one in requested(host, opened).changes] == [EventStatus.CLOSED]


def test_a_camera_that_records_no_events_gets_no_changes(journal: Journal) -> None:
    host = host_of(journal)
    (verdict,) = host.observe([seen(seq) for seq in range(4)], [Heartbeat("door")])
    assert verdict.changes is None
    assert len(verdict.open_events) == 1


def test_a_wall_clock_set_by_hand_closes_nothing(journal: Journal) -> None:
    clock = FakeClock(START)
    host = host_of(journal, clock)
    host.observe([seen(seq) for seq in range(4)])
    clock.step_wall_clock(3600)
    assert host.tick() == []
    clock.step_wall_clock(-7200)
    assert host.tick() == []


def test_a_removed_camera_closes_its_events(journal: Journal) -> None:
    host = host_of(journal)
    host.observe([seen(seq) for seq in range(4)])
    (closed,) = host.configure([])
    assert closed.status is EventStatus.CLOSED
    assert host.observe([seen(5)]) == []
    assert [event.status for event in stored(journal)] == [EventStatus.CLOSED]


def test_unknown_cameras_are_ignored(journal: Journal) -> None:
    host = host_of(journal)
    verdicts = host.observe([seen(0, camera="unknown"), seen(0)])
    assert [verdict.camera_id for verdict in verdicts] == ["door"]


def test_credentials_stay_out_of_the_journal(journal: Journal) -> None:
    host_of(journal).observe([seen(seq) for seq in range(4)])
    journal.close()
    for file in journal.path.parent.iterdir():
        assert b"hunter2" not in file.read_bytes()
