"""The fault run's audit: it finds what is lost, doubled or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover_audit import Audit, doubled_visits, fault_of_file, kind_of
from benchmarks.failover_system import Journalled, is_whole
from storeguard.events.event import EventStatus
from storeguard.events.journal import Journal
from tests.events.factories import event

T = [f"2026-01-01T00:00:{second:02d}.000Z" for second in range(60)]
FILE = {"uri": "a", "start": T[8], "end": T[20]}
REQUESTED = {"requested_start": T[8], "requested_end": T[20]}


@pytest.mark.parametrize(
    ("clip", "whole"),
    [
        ({**FILE, **REQUESTED}, True),
        ({**FILE, **REQUESTED, "start": T[5], "end": T[30]}, True),
        ({**FILE, **REQUESTED, "start": T[9]}, False),  # begins late without an error
        ({**FILE, **REQUESTED, "end": T[19]}, False),
        ({**FILE, **REQUESTED, "error": "ends 1.00 s earlier than asked"}, False),
        (REQUESTED, False),
        (None, False),
        ({**FILE, **REQUESTED, "end": T[15], "parts": [{"start": T[15], "end": T[20]}]}, True),
        ({**FILE, **REQUESTED, "end": T[15], "parts": [{"start": T[16], "end": T[20]}]}, False),
    ],
)
def test_a_whole_clip_covers_the_requested_span(clip: dict[str, Any] | None, whole: bool) -> None:
    assert is_whole({"clip": clip}) is whole


def visit(name: str, start: int, end: int | None, **more: Any) -> dict[str, Any]:
    document = {"event_id": name, "type": "intrusion", "camera_id": "c", "zone_id": "z"}
    document |= {"person_id": "p", "started_at": T[start]}
    return document | ({} if end is None else {"ended_at": T[end]}) | more


@pytest.mark.parametrize(
    ("visits", "doubled"),
    [
        ([visit("a", 0, 5), visit("b", 6, 9)], 0),
        ([visit("a", 0, 5), visit("b", 4, 9)], 1),
        ([visit("a", 0, None), visit("b", 30, 40)], 1),
        ([visit("a", 0, 5), visit("b", 4, 9, person_id="q")], 0),
        ([visit("a", 0, 5), visit("b", 4, 9, type="loitering")], 0),
    ],
)
def test_two_events_of_one_visit_are_found(visits: list[dict[str, Any]], doubled: int) -> None:
    found = Audit()
    assert doubled_visits({one["event_id"]: one for one in visits}, found) == doubled
    assert len(found.faults) == doubled


def test_the_journal_is_read_from_outside_and_lost_events_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with Journal(path, max_bytes=2**20) as journal:
        journal.commit([event(1), event(2, status=EventStatus.CLOSED)])
        journal.commit([event(1, 2)])
        outside = Journalled(path)
        sent = outside.events()
        assert {name: one.event["version"] for name, one in sent.items()} == {
            "event-1": 2,
            "event-2": 1,
        }
        assert (sent["event-1"].opened_seq, sent["event-1"].last_seq) == (1, 3)
        assert (outside.newest_seq(), outside.waiting()) == (3, 2)
        assert outside.missing() == 0
        journal.confirm({"event-2": 2})
        assert journal.prune(-1.0) == 1  # the other event is open
        assert outside.missing() == 1


def test_a_file_that_is_not_the_one_stored_or_does_not_play_is_found() -> None:
    part = {"uri": "a", "sha256": "0" * 64, "start": T[0], "end": T[1]}
    assert "found another" in str(fault_of_file(b"x", part))
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
    assert "does not play" in str(fault_of_file(b"x", {**part, "sha256": digest}))


def test_a_run_passes_only_without_faults() -> None:
    assert Audit(sent=5, incomplete=2, requested=5).passed
    for fault in ("lost", "doubled", "strange", "wrong", "orphans"):
        assert not Audit(**json.loads(f'{{"{fault}": 1}}')).passed
    assert kind_of("a_1.mp4: cannot begin: No space; ends 1.23 s") == "cannot begin: No space"
    assert kind_of("starts 1.23 s later than asked") == "starts # s later than asked"
