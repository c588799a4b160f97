"""An event's clip: the requested span of video, the stored files, and what they leave out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, BaseModel, ConfigDict

from storeguard.events.event import ClipPart, ClipRef, Event, EventStatus
from storeguard.events.faults import Fault, FaultCode

_TOLERANCE: Final = timedelta(milliseconds=5)  # of time stamps that were rounded to milliseconds


class ClipSpan(BaseModel):
    """The span of video requested for one event.

    Its JSON form is part of the spool's manifests, which outlive a release.

    Attributes:
        event_id: the event.
        start, end: the span, aware UTC.
        final: whether the span will not grow any more, because the event is closed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    start: AwareDatetime
    end: AwareDatetime
    final: bool


class StoredClip(BaseModel):
    """One stored clip file.

    Attributes:
        uri: where it is.
        start, end: what it covers, aware UTC.
        sha256: of the file.
        faults: what is missing inside it (lost packets, ...). Remarks and faults of coverage may be
            among them and are passed over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    start: AwareDatetime
    end: AwareDatetime
    sha256: str
    faults: tuple[Fault, ...] = ()


def uncovered(
    start: datetime, end: datetime, spans: Sequence[tuple[datetime, datetime]]
) -> list[Fault]:
    """What `spans` leave uncovered of the span from `start` to `end`; an empty list if nothing."""
    ordered = sorted(spans)
    if not ordered:
        return [Fault(code=FaultCode.NO_VIDEO)]
    faults = []
    first, last = ordered[0][0], max(span[1] for span in ordered)
    if first > start + _TOLERANCE:
        faults.append(_missing(FaultCode.STARTS_LATE, first - start))
    covered_to = ordered[0][1]
    for begin, until in ordered[1:]:
        if begin > covered_to + _TOLERANCE:
            faults.append(_missing(FaultCode.GAP, begin - covered_to))
        covered_to = max(covered_to, until)
    if last < end - _TOLERANCE:
        faults.append(_missing(FaultCode.ENDS_EARLY, end - last))
    return faults


def clip_files(clip: ClipRef) -> tuple[ClipPart, ...]:
    """All files of a clip, in order of time."""
    if clip.uri is None or clip.start is None or clip.end is None:
        return clip.parts
    first = ClipPart(uri=clip.uri, start=clip.start, end=clip.end, sha256=clip.sha256)
    return (first, *clip.parts)


def files_of(event: Event) -> tuple[str, ...]:
    """URIs of all files kept for an event: its clip's, and its snapshot's."""
    clip = () if event.clip is None else tuple(part.uri for part in clip_files(event.clip))
    return (*clip, event.snapshot.uri) if event.snapshot is not None else clip


def faults_of(clip: ClipRef) -> tuple[Fault, ...]:
    """A clip's faults as data; the words of an earlier release become one of code `OTHER`."""
    if clip.faults or clip.error is None:
        return clip.faults
    return (Fault(code=FaultCode.OTHER, detail=clip.error),)


def lacks_video(event: Event) -> bool:
    """Whether a closed event has no or not all of its video, and no fault explains it."""
    if event.status is EventStatus.OPEN:
        return False
    if event.clip is None:
        return bool(event.rule.get("record"))
    return is_unmet(event)


def is_unmet(event: Event) -> bool:
    """Whether video was requested for it, some of that has no file, and no fault explains it."""
    clip = event.clip
    if clip is None or clip.error is not None:
        return False
    if clip.requested_start is None or clip.requested_end is None:
        return False
    spans = [(part.start, part.end) for part in clip_files(clip)]
    return bool(uncovered(clip.requested_start, clip.requested_end, spans))


def _missing(code: FaultCode, gap: timedelta) -> Fault:
    return Fault(code=code, seconds=round(gap.total_seconds(), 3))
