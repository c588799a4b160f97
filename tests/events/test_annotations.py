"""An event's clip as served, after files, faults and deletions in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storeguard.events.annotations import Annotations, composed, continued, separated
from storeguard.events.clip import ClipSpan, StoredClip, files_of, lacks_video, uncovered
from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus, SnapshotRef
from storeguard.events.faults import Fault, FaultCode
from tests.events.factories import event as make_event

START = datetime(2026, 5, 1, tzinfo=UTC)
DISK_FULL = Fault(code=FaultCode.WRITE_FAILED, detail="the disk was full")
LOST = Fault(code=FaultCode.PACKETS_LOST, count=3)
OVERDUE = Fault(code=FaultCode.OVERDUE)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stored(name: str, start_s: float, end_s: float, *faults: Fault) -> StoredClip:
    return StoredClip(uri=name, start=at(start_s), end=at(end_s), sha256="ab", faults=faults)


def span(start_s: float = 0, end_s: float = 10, *, final: bool = True) -> ClipSpan:
    return ClipSpan(event_id="a", start=at(start_s), end=at(end_s), final=final)


def clip_of(annotations: Annotations) -> ClipRef:
    clip = annotations.clip()
    assert clip is not None
    return clip


def starts_late(seconds: float) -> Fault:
    return Fault(code=FaultCode.STARTS_LATE, seconds=seconds)


def ends_early(seconds: float) -> Fault:
    return Fault(code=FaultCode.ENDS_EARLY, seconds=seconds)


def gap(seconds: float) -> Fault:
    return Fault(code=FaultCode.GAP, seconds=seconds)


@pytest.mark.parametrize(
    ("spans", "faults"),
    [
        ([(0, 10)], []),
        ([(-3, 12)], []),
        ([(0.004, 9.997)], []),  # rounding
        ([(2, 10)], [starts_late(2)]),
        ([(0, 8.5)], [ends_early(1.5)]),
        ([(0, 4), (4, 10)], []),
        ([(6, 10), (0, 4)], [gap(2)]),
        ([(1, 2), (4, 5)], [starts_late(1), gap(2), ends_early(5)]),
        ([(0, 9), (2, 3), (9, 10)], []),  # one within another
        ([(0, 10), (2, 9)], []),
        ([], [Fault(code=FaultCode.NO_VIDEO)]),
    ],
)
def test_what_files_leave_uncovered(spans: list[tuple[float, float]], faults: list[Fault]):
    assert uncovered(at(0), at(10), [(at(a), at(b)) for a, b in spans]) == faults


def test_a_span_is_persisted_in_manifests_and_keeps_its_form():
    document = (
        '{"event_id":"a","start":"2026-05-01T00:00:00Z","end":"2026-05-01T00:00:10Z","final":true}'
    )
    assert span().model_dump_json() == document
    assert ClipSpan.model_validate_json(document) == span()


def test_files_are_in_order_of_time_whatever_order_they_were_stored_in():
    annotations = Annotations()
    for name, start_s in (("b", 4), ("c", 8), ("a", 0)):
        annotations = annotations.with_file(span(), stored(name, start_s, start_s + 4))
    clip = clip_of(annotations)
    assert (clip.uri, clip.start, clip.end) == ("a", at(0), at(4))
    assert [part.uri for part in clip.parts] == ["b", "c"]
    assert (clip.error, clip.faults) == (None, ())
    served = composed(make_event("a"), annotations.with_snapshot("p"), version=1)
    assert files_of(served) == ("a", "b", "c", "p")


def test_repeating_a_change_changes_nothing():
    file = stored("a", 1, 8, LOST)
    once = Annotations().with_file(span(), file)
    assert clip_of(once).faults == (
        LOST.model_copy(update={"in_file": True}),
        starts_late(1),
        ends_early(2),
    )
    assert clip_of(once).error == (
        "in the file: 3 packets lost, the disk is too slow; starts 1.00 s later than requested; "
        "ends 2.00 s earlier than requested"
    )
    assert once.with_file(span(), file) == once
    assert once.with_span(span()) == once
    failed = once.with_fault(span(), DISK_FULL)
    assert failed.with_fault(span(), DISK_FULL) == failed


def test_an_open_event_is_not_reported_to_lack_its_end():
    requested = Annotations().with_span(span(0, 1, final=False))
    assert clip_of(requested) == ClipRef(requested_start=at(0), requested_end=at(1))
    first = requested.with_file(span(0, 1, final=False), stored("a", 0, 0.5))
    assert clip_of(first).faults == ()
    assert clip_of(first.with_span(span(0, 9))).faults == (ends_early(8.5),)
    assert clip_of(first.with_file(span(0, 9), stored("b", 0.5, 9))).faults == ()


def test_a_failure_is_removed_once_it_was_made_good_but_lost_packets_are_not():
    failed = Annotations().with_fault(span(), DISK_FULL)
    assert clip_of(failed) == ClipRef(
        requested_start=at(0), requested_end=at(10), error="the disk was full", faults=(DISK_FULL,)
    )
    part = failed.with_file(span(), stored("a", 4, 10))
    assert clip_of(part).faults == (DISK_FULL, starts_late(4))
    whole = part.with_file(span(), stored("b", 0, 4, LOST))
    assert clip_of(whole).faults == (LOST.model_copy(update={"in_file": True}),)


def test_a_file_that_arrives_late_removes_the_fault_of_being_overdue():
    overdue = Annotations().with_fault(span(), OVERDUE)
    assert clip_of(overdue).faults == (OVERDUE,)
    assert clip_of(overdue.with_file(span(), stored("a", 0, 10))).faults == ()
    assert clip_of(overdue.with_file(span(), stored("a", 0, 8))).faults == (ends_early(2),)


def test_remarks_and_a_files_own_coverage_are_no_faults_of_the_event():
    remark = Fault(code=FaultCode.ENCODED, detail="mjpeg")
    annotations = Annotations().with_file(span(), stored("a", 0, 10, remark, ends_early(5)))
    assert clip_of(annotations).faults == ()


def test_a_deleted_file_is_removed_from_the_event():
    annotations = Annotations().with_file(span(), stored("a", 1, 5)).with_snapshot("p")
    annotations = annotations.with_file(span(), stored("b", 5, 10))
    deleted = Fault(code=FaultCode.DELETED, detail="deleted by retention: too old")
    less = annotations.without_file("a", "deleted by retention: too old")
    assert (clip_of(less).uri, less.snapshot_uri) == ("b", "p")
    assert clip_of(less).faults == (starts_late(1), deleted)  # not that it starts later now
    none = less.without_file("b", "deleted by retention: too old").without_file("p", "too old")
    assert clip_of(none).uri is None
    assert clip_of(none).error == (
        "starts 1.00 s later than requested; deleted by retention: too old"
    )
    assert none.snapshot_uri is None
    assert none.without_file("a", "again") == none


REQUESTED = {"requested_start": at(0), "requested_end": at(10)}
FILE = {"uri": "a", "start": at(0), "end": at(10), "sha256": "ab"}


@pytest.mark.parametrize(
    "clip",
    [
        None,
        ClipRef(**REQUESTED),
        ClipRef(**FILE, **REQUESTED),
        ClipRef(**FILE, **REQUESTED, parts=(ClipPart(uri="b", start=at(10), end=at(12)),)),
        # not final when it was stored: nothing is reported to be missing
        ClipRef(**{**FILE, "end": at(4)}, **REQUESTED),
        ClipRef(
            **{**FILE, "end": at(4)},
            **REQUESTED,
            faults=(ends_early(6),),
            error="ends 6.00 s earlier than requested",
        ),
        ClipRef(**REQUESTED, faults=(DISK_FULL,), error="the disk was full"),
    ],
)
def test_an_event_taken_back_from_the_store_is_served_as_it_was(clip: ClipRef | None):
    event = make_event("a", 7, clip=clip, snapshot=SnapshotRef(uri="p"), keep=True)
    body, annotations = separated(event)
    assert (body.clip, body.snapshot, body.keep) == (None, None, False)
    assert composed(body, annotations, version=7) == event


def test_words_of_an_earlier_release_become_a_fault_and_are_not_repeated():
    words = "the disk was full; ends 6.00 s earlier than asked"
    short = ClipRef(**{**FILE, "end": at(4)}, **REQUESTED, error=words)
    _, annotations = separated(make_event("a", clip=short))
    clip = clip_of(annotations)
    assert clip.error == words
    assert clip.faults == (Fault(code=FaultCode.OTHER, detail=words),)
    whole = annotations.with_file(span(), stored("b", 4, 10))
    assert clip_of(whole).faults == ()


def test_the_rules_next_version_keeps_attributes_and_the_end():
    before = make_event("a", attributes={"a": 1, "b": 1}, status=EventStatus.CLOSED)
    after = make_event("a", 2, attributes={"b": 2}, dwell_s=3.0)
    grown = continued(before, after)
    assert grown.attributes == {"a": 1, "b": 2}
    assert (grown.version, grown.dwell_s, grown.status) == (2, 3.0, EventStatus.CLOSED)


CLOSED = {"status": EventStatus.CLOSED, "rule": {"record": True}}


@pytest.mark.parametrize(
    ("event", "lacks"),
    [
        (make_event("a", **CLOSED), True),  # no recorder ever took it up
        (make_event("a", rule={"record": True}), False),  # still open
        (make_event("a", status=EventStatus.CLOSED), False),  # its rule keeps no video
        (make_event("a", **CLOSED, clip=ClipRef(**REQUESTED)), True),  # the file never came
        (make_event("a", **CLOSED, clip=ClipRef(**FILE, **REQUESTED)), False),
        (make_event("a", **CLOSED, clip=ClipRef(**{**FILE, "end": at(4)}, **REQUESTED)), True),
        (make_event("a", **CLOSED, clip=ClipRef(**REQUESTED, error="it failed")), False),
    ],
)
def test_events_that_lack_video_for_no_known_reason(event: Event, lacks: bool):
    assert lacks_video(event) is lacks
