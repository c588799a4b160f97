"""A checkpoint in format 1, as an earlier version wrote it: all rules and all kinds of state.

In `checkpoint_format_1.json` ann and bob are inside the zone since second 0, the checkpoint is of
second 3; ann has crossed the line, carries a full basket and is suspected of shoplifting; dan was
inside for half a second; an earlier epoch has ended.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storeguard.events.event import Event
from storeguard.rules.ongoing import Dwell

SAVED = Path(__file__).with_name("checkpoint_format_1.json").read_bytes()
PERSON = {"type": "person", "cooldown_s": 5}
RULES = (
    {"type": "intrusion", "anchor": "foot"},
    {"type": "loitering", "loiter_s": 2},
    {"type": "occupancy", "max_people": 1, "for_s": 1},
    PERSON,
    {"type": "shoplifting_suspected", "top_clips": 1},
)


@pytest.fixture
def restored(stage: type[Any]) -> Any:
    show = stage(*RULES, line=[{"type": "line_crossing"}], person=PERSON)
    assert show.rules.restore(SAVED) == []
    return show


def test_open_events_and_dwell_continue(restored: Any) -> None:
    rules = restored.rules
    assert rules.captured_at == restored.START + timedelta(seconds=3)
    assert rules.dwell() == [Dwell("ann", "z", 3.0), Dwell("bob", "z", 3.0)]
    assert [(e.type.value, e.zone_id, e.person_id) for e in rules.open_events()] == [
        ("person", None, "ann"),
        ("intrusion", "z", "ann"),
        ("intrusion", "z", "bob"),
        ("loitering", "z", "ann"),
        ("loitering", "z", "bob"),
        ("occupancy", "z", None),
        ("person", "z", "ann"),
        ("shoplifting_suspected", "z", "ann"),
    ]
    # The same ids as before the restart: the stored events are updated, not doubled.
    assert rules.open_events()[1].event_id == "5bbc6cec-3a27-54ad-b100-96f702c407a0"


def test_the_same_state_is_written_in_the_same_format(restored: Any) -> None:
    written = json.loads(restored.rules.checkpoint())
    assert without_new_fields(written, json.loads(SAVED)) == json.loads(SAVED)


def test_what_is_written_is_restored(stage: type[Any], restored: Any) -> None:
    again = stage(*RULES, line=[{"type": "line_crossing"}], person=PERSON)
    assert again.rules.restore(restored.rules.checkpoint()) == []
    assert again.rules.checkpoint() == restored.rules.checkpoint()


def test_observations_from_before_the_restart_change_nothing(restored: Any) -> None:
    for epoch in ("old", "new"):
        assert restored.take(restored.observation(3.2, {"eve": 0.5}, epoch=epoch)) == []


def test_events_close_with_what_was_saved(restored: Any) -> None:
    for _ in range(7):  # seq 0 to 6 were processed before the restart
        restored.observation(3.5, {}, epoch="new")
    restored.see(3.25, ann=0.45, bob=0.35)
    (crossing,) = (
        event for event in restored.see(3.75, ann=0.45, bob=0.35) if event.ended_at is not None
    )
    closed = {
        (event.type.value, event.zone_id, event.person_id): event
        for event in restored.rules.close_all(restored.rules.captured_at)
    }

    assert (crossing.type.value, crossing.attributes["direction"]) == ("line_crossing", "out")
    assert facts(closed["intrusion", "z", "ann"]) == (2, 0.0, 3.75, "full", 0.9)
    assert facts(closed["loitering", "z", "bob"]) == (3, 0.0, 3.75, None, None)
    assert closed["occupancy", "z", None].attributes == {"people": 2, "peak_people": 3}
    suspected = closed["shoplifting_suspected", "z", "ann"]
    assert (suspected.score, suspected.attributes["decision"]) == (0.9, "suspected")
    assert len(closed) == 8


def without_new_fields(written: Any, saved: Any) -> Any:
    """What was written, without the fields that came after the saved checkpoint."""
    if isinstance(written, dict) and isinstance(saved, dict):
        return {key: without_new_fields(written[key], saved[key]) for key in saved}
    if isinstance(written, list) and isinstance(saved, list):
        return [without_new_fields(*both) for both in zip(written, saved, strict=True)]
    return written


def facts(event: Event) -> tuple[Any, ...]:
    """Version, start second, dwell, label of the basket, score of the clip classifier."""
    attributes = event.attributes
    return (
        event.version,
        float(event.started_at.second),
        event.dwell_s,
        attributes.get("basket", {}).get("label"),
        attributes.get("shoplifting", {}).get("score"),
    )
