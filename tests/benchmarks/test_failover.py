"""The fault run's own judgement: it must see what is lost, doubled or told wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.failover_audit import Audit, _doubled_stays, _kind, _unplayable
from benchmarks.failover_system import Journalled, is_whole
from storeguard.events.event import EventStatus
from storeguard.events.journal import Journal
from tests.events.factories import event

T = [f"2026-01-01T00:00:{second:02d}.000Z" for second in range(60)]
FILE = {"uri": "a", "start": T[8], "end": T[20]}
WANTED = {"requested_start": T[8], "requested_end": T[20]}


@pytest.mark.parametrize(
    ("clip", "whole"),
    [
        ({**FILE, **WANTED}, True),
        ({**FILE, **WANTED, "start": T[5], "end": T[30]}, True),
        ({**FILE, **WANTED, "start": T[9]}, False),  # begins late, and does not say so
        ({**FILE, **WANTED, "end": T[19]}, False),
        ({**FILE, **WANTED, "error": "ends 1.00 s earlier than asked"}, False),
        (WANTED, False),
        (None, False),
        ({**FILE, **WANTED, "end": T[15], "parts": [{"start": T[15], "end": T[20]}]}, True),
        ({**FILE, **WANTED, "end": T[15], "parts": [{"start": T[16], "end": T[20]}]}, False),
    ],
)
def test_a_whole_clip_covers_what_was_asked(clip: dict[str, Any] | None, whole: bool) -> None:
    assert is_whole({"clip": clip}) is whole


def stay(name: str, start: int, end: int | None, **more: Any) -> dict[str, Any]:
    document = {"event_id": name, "type": "intrusion", "camera_id": "c", "zone_id": "z"}
    document |= {"person_id": "p", "started_at": T[start]}
    return document | ({} if end is None else {"ended_at": T[end]}) | more


@pytest.mark.parametrize(
    ("stays", "doubled"),
    [
        ([stay("a", 0, 5), stay("b", 6, 9)], 0),
        ([stay("a", 0, 5), stay("b", 4, 9)], 1),
        ([stay("a", 0, None), stay("b", 30, 40)], 1),
        ([stay("a", 0, 5), stay("b", 4, 9, person_id="q")], 0),
        ([stay("a", 0, 5), stay("b", 4, 9, type="loitering")], 0),
    ],
)
def test_one_stay_told_twice_is_seen(stays: list[dict[str, Any]], doubled: int) -> None:
    found = Audit()
    assert _doubled_stays({one["event_id"]: one for one in stays}, found) == doubled
    assert len(found.faults) == doubled


def test_the_journal_is_read_from_outside_and_what_it_lost_is_seen(tmp_path: Path) -> None:
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
        assert journal.prune(-1.0) == 1  # the other one is open
        assert outside.missing() == 1


def test_a_file_that_is_not_the_one_stored_or_does_not_play_is_seen() -> None:
    part = {"uri": "a", "sha256": "0" * 64, "start": T[0], "end": T[1]}
    assert "is not the file" in str(_unplayable(b"x", part))
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
    assert "does not play" in str(_unplayable(b"x", {**part, "sha256": digest}))


def test_a_run_passes_only_without_any_harm() -> None:
    assert Audit(sent=5, incomplete=2, asked=5).passed
    for harm in ("lost", "doubled", "strange", "wrong", "orphans"):
        assert not Audit(**json.loads(f'{{"{harm}": 1}}')).passed
    assert _kind("a_1.mp4: cannot begin: No space; ends 1.23 s") == "cannot begin: No space"
    assert _kind("starts 1.23 s later than asked") == "starts # s later than asked"
