"""What an event says about its clip, after files, failures and deletions in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storeguard.events.clip_link import (
    StoredClip,
    Wish,
    files_of,
    uncovered,
    with_clip,
    with_failure,
    with_snapshot,
    with_wish,
    without_file,
)
from storeguard.events.event import ClipRef, Event
from tests.events.factories import event as make_event

START = datetime(2026, 5, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stored(name: str, start_s: float, end_s: float, *, fault: str | None = None) -> StoredClip:
    return StoredClip(uri=name, start=at(start_s), end=at(end_s), sha256="ab", fault=fault)


def wish(start_s: float = 0, end_s: float = 10, *, final: bool = True) -> Wish:
    return Wish(event_id="a", start=at(start_s), end=at(end_s), final=final)


def clip_of(event: Event) -> ClipRef:
    assert event.clip is not None
    return event.clip


@pytest.mark.parametrize(
    ("spans", "faults"),
    [
        ([(0, 10)], []),
        ([(-3, 12)], []),
        ([(0.004, 9.997)], []),  # rounding
        ([(2, 10)], ["starts 2.00 s later than asked"]),
        ([(0, 8.5)], ["ends 1.50 s earlier than asked"]),
        ([(0, 4), (4, 10)], []),
        ([(6, 10), (0, 4)], ["2.00 s are missing within"]),
        ([(0, 9), (2, 3), (9, 10)], []),  # one within another
        ([(0, 10), (2, 9)], []),
        ([], ["there is no video of it"]),
    ],
)
def test_what_is_not_covered_is_told(spans: list[tuple[float, float]], faults: list[str]):
    assert uncovered(at(0), at(10), [(at(a), at(b)) for a, b in spans]) == faults


def test_files_line_up_in_time_whatever_order_they_come_in():
    event = make_event("a")
    for name, start_s in (("b", 4), ("c", 8), ("a", 0)):
        event = with_clip(event, stored(name, start_s, start_s + 4), wish())
    clip = clip_of(event)
    assert (clip.uri, clip.start, clip.end) == ("a", at(0), at(4))
    assert [part.uri for part in clip.parts] == ["b", "c"]
    assert clip.error is None
    assert files_of(with_snapshot(event, "p")) == ("a", "b", "c", "p")


def test_saying_it_again_changes_nothing():
    once = with_clip(make_event("a"), stored("a", 1, 8, fault="3 packets lost"), wish())
    assert clip_of(once).error == (
        "in the file: 3 packets lost; starts 1.00 s later than asked; "
        "ends 2.00 s earlier than asked"
    )
    assert with_clip(once, stored("a", 1, 8, fault="3 packets lost"), wish()) == once
    assert with_wish(once, wish()) == once
    failed = with_failure(once, wish(), "the disk was full")
    assert with_failure(failed, wish(), "the disk was full") == failed


def test_an_open_event_is_not_said_to_lack_its_end():
    promised = with_wish(make_event("a"), wish(0, 1, final=False))
    assert clip_of(promised) == ClipRef(requested_start=at(0), requested_end=at(1))
    first = with_clip(promised, stored("a", 0, 5), wish(0, 1, final=False))
    assert clip_of(first).error is None
    assert clip_of(with_wish(first, wish(0, 9))).error == "ends 4.00 s earlier than asked"
    assert clip_of(with_clip(first, stored("b", 5, 9), wish(0, 9))).error is None


def test_a_failure_is_forgotten_once_it_was_made_good_but_lost_packets_are_not():
    failed = with_failure(make_event("a"), wish(), "the disk was full")
    assert clip_of(failed) == ClipRef(
        requested_start=at(0), requested_end=at(10), error="the disk was full"
    )
    part = with_clip(failed, stored("a", 4, 10), wish())
    assert clip_of(part).error == "the disk was full; starts 4.00 s later than asked"
    whole = with_clip(part, stored("b", 0, 4, fault="3 packets lost"), wish())
    assert clip_of(whole).error == "in the file: 3 packets lost"


def test_a_deleted_file_is_gone_from_the_event():
    event = with_snapshot(with_clip(make_event("a"), stored("a", 0, 5), wish()), "p")
    event = with_clip(event, stored("b", 5, 10), wish())
    less = without_file(event, "a", "deleted by retention: too old")
    assert files_of(less) == ("b", "p")
    assert clip_of(less).uri == "b"
    none = without_file(without_file(less, "b", "deleted by retention: too old"), "p", "too old")
    assert files_of(none) == ()
    assert clip_of(none).uri is None
    assert clip_of(none).error == "deleted by retention: too old"
    assert none.snapshot is None
    assert without_file(none, "a", "again") == none
    kept = event.model_copy(update={"keep": True})
    assert without_file(kept, "a", "deleted by retention: too old") == kept
