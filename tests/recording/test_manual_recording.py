"""What is recorded on command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from storeguard.errors import QueryError, RecordingError
from storeguard.events.changes import (
    Change,
    ClipAnnounced,
    ClipRequested,
    ClipStored,
    EventReported,
    Outcome,
)
from storeguard.events.commands import RecordCommand
from storeguard.events.event import EventStatus, EventType
from storeguard.recording.spool import ClipItem, EventItem, RequestItem
from storeguard.recording.uploader import Uploader
from storeguard.storage.objects import ObjectStore
from tests.recording.recorder_harness import (
    STOP,
    MakeTill,
    at,
    event,
    start,
)


@pytest.mark.parametrize(
    ("command", "requested"),
    [
        ({}, (15, 40)),  # start_before_now_s 5, default_duration_s 20
        ({"duration_s": 3}, (15, 23)),
        ({"start": at(12), "end": at(17)}, (12, 17)),  # all past
        ({"start": at(18), "end": at(23)}, (18, 23)),
        ({"end": at(21)}, (15, 21)),
    ],
)
def test_a_command_saves_start_before_now_plus_duration(
    till: MakeTill, command: dict[str, Any], requested: tuple[float, float]
):
    one = till(smart_record="commands", start_before_now_s=5)
    one.play(20)
    answer = one.command(start(**command))
    assert (answer.start, answer.end) == (at(requested[0]), at(requested[1]))
    one.play(60)
    (clip,) = one.clips()
    assert clip.start <= at(requested[0])
    assert clip.end >= at(requested[1])
    one.tick()
    opened, closed = (item.event for item in one.manifests(EventItem))
    assert opened.type is closed.type is EventType.MANUAL
    assert (opened.status, closed.status) == (EventStatus.OPEN, EventStatus.CLOSED)
    assert (opened.person_id, opened.zone_id) == (None, None)
    assert closed.version == opened.version + 1
    assert closed.ended_at == at(requested[1])
    final = [
        link
        for item in one.manifests(ClipItem) + one.manifests(RequestItem)
        for link in item.links
        if link.final
    ]
    assert (final[-1].start, final[-1].end) == (at(requested[0]), at(requested[1]))


def test_a_reader_of_a_closed_recording_sees_the_whole_requested_span(
    till: MakeTill, tmp_path: Path
):
    one = till(smart_record="commands", start_before_now_s=5)
    one.play(20)
    one.command(start(duration_s=3))
    one.play(60)
    one.tick()
    spans: dict[str, tuple[datetime, datetime]] = {}
    span_when_closed: list[tuple[datetime, datetime]] = []

    def apply(changes: Sequence[Change]) -> list[Outcome]:
        for change in changes:
            match change:
                case EventReported(event) if event.status is EventStatus.CLOSED:
                    span_when_closed.append(spans[event.event_id])
                case ClipRequested(span) | ClipAnnounced(span) | ClipStored(span):
                    begin, end = spans.get(span.event_id, (span.start, span.end))
                    spans[span.event_id] = (min(begin, span.start), max(end, span.end))
                case _:
                    pass
        return [Outcome.APPLIED for _ in changes]

    objects = ObjectStore(str(tmp_path / "objects"))
    uploader = Uploader(one.spool.folder.parent, objects, apply, store_id="shop")
    while uploader.step():
        pass
    assert span_when_closed == [(at(15), at(23))]


def test_stop_ends_manual_recordings_now_and_nothing_else(till: MakeTill):
    one = till(start_before_now_s=2)
    one.play(20)
    one.report(event(start_s=19))
    answer = one.command(start())
    one.play(25)
    stopped = one.command(STOP)
    assert stopped.event_ids == answer.event_ids
    assert stopped.end == at(25)
    one.play(30)
    one.report(event(start_s=19, end_s=29))
    one.play(60)
    (clip,) = one.clips()  # the automatic recording went on
    spans = {link.event_id: (link.start, link.end) for link in clip.links}
    assert spans == {answer.event_ids[0]: (at(18), at(25)), "e1": (at(17), at(32))} or (
        len(spans) == 2 and clip.end >= at(32)
    )


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (STOP, RecordingError, "nothing to stop"),
        (start(start=at(500)), QueryError, "a minute ahead"),
        (start(start=at(2), end=at(2.5)), QueryError, "expected after"),  # nothing so old is kept
        (RecordCommand(command="stop-recording", duration_s=3), QueryError, "at most 'end'"),
    ],
)
def test_impossible_commands_are_answered(
    till: MakeTill, command: RecordCommand, error: type[Exception], message: str
):
    one = till(cache_s=5)
    one.play(60)
    with pytest.raises(error, match=message):
        one.command(command)


def test_a_command_before_the_first_picture_is_answered(till: MakeTill):
    with pytest.raises(RecordingError, match="no keyframe has come yet"):
        till().command(start())


def test_events_do_not_record_where_only_commands_do(till: MakeTill):
    one = till(smart_record="commands")
    one.play(10)
    one.report(event(start_s=9))
    assert not one.recorder.state.recording
