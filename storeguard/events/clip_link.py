"""The truth about an event's clip: how files, failures and deletions change its `ClipRef`.

Pure functions from an event to the changed event, for `Journal.amend`: applying one twice changes
nothing more, so whoever is not sure that it was heard may say it again.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict

from storeguard.events.event import ClipPart, ClipRef, Event, SnapshotRef

_TOLERANCE = timedelta(milliseconds=5)  # of time stamps that were rounded to milliseconds


class Wish(BaseModel):
    """The span of video that an event wants.

    Attributes:
        event_id: whose.
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
        start, end: what it covers.
        sha256: of the file.
        fault: what is missing inside it (packets that were lost, ...); None if nothing is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    start: AwareDatetime
    end: AwareDatetime
    sha256: str
    fault: str | None = None


def with_clip(event: Event, stored: StoredClip, wish: Wish) -> Event:
    """The event with one more file, or with another span wished of the files it has.

    The first file is the clip's own, later ones are its `parts`. `error` says what they leave
    uncovered of the span, once that is final.
    """
    clip = event.clip or ClipRef()
    files = {part.uri: part for part in _files(clip)}
    known = stored.uri in files
    files[stored.uri] = ClipPart(
        uri=stored.uri, start=stored.start, end=stored.end, sha256=stored.sha256
    )
    said = [] if known or stored.fault is None else [f"{_WITHIN}{stored.fault}"]
    return event.model_copy(update={"clip": _clip(clip, list(files.values()), wish, said)})


def with_failure(event: Event, wish: Wish, error: str) -> Event:
    """The event with the reason why its span could not be recorded, or not all of it."""
    clip = event.clip or ClipRef()
    return event.model_copy(update={"clip": _clip(clip, _files(clip), wish, [error])})


def with_wish(event: Event, wish: Wish) -> Event:
    """The event with the span that is being recorded for it; there is no file yet."""
    clip = event.clip or ClipRef()
    return event.model_copy(update={"clip": _clip(clip, _files(clip), wish, [])})


def with_snapshot(event: Event, uri: str) -> Event:
    """The event with its still picture."""
    return event.model_copy(update={"snapshot": SnapshotRef(uri=uri)})


def without_file(event: Event, uri: str, reason: str) -> Event:
    """The event after a file of its clip, or its snapshot, was deleted on purpose.

    An event marked `keep`, and one that does not refer to the file, stays as it is.
    """
    if event.keep:
        return event
    changes: dict[str, object] = {}
    if event.snapshot is not None and event.snapshot.uri == uri:
        changes["snapshot"] = None
    if event.clip is not None and uri in {part.uri for part in _files(event.clip)}:
        left = [part for part in _files(event.clip) if part.uri != uri]
        error = _joined(event.clip.error, [reason])
        changes["clip"] = _refer(event.clip, left).model_copy(update={"error": error})
    return event.model_copy(update=changes) if changes else event


def files_of(event: Event) -> tuple[str, ...]:
    """URIs of all files kept for an event: its clip's, and its snapshot's."""
    clip = () if event.clip is None else tuple(part.uri for part in _files(event.clip))
    return (*clip, event.snapshot.uri) if event.snapshot is not None else clip


def is_unmet(event: Event) -> bool:
    """Whether it was told that video of it is recorded, lacks some of it, and no reason is told."""
    clip = event.clip
    if clip is None or clip.error is not None:
        return False
    if clip.requested_start is None or clip.requested_end is None:
        return False
    spans = [(part.start, part.end) for part in _files(clip)]
    return bool(uncovered(clip.requested_start, clip.requested_end, spans))


def uncovered(start: datetime, end: datetime, spans: list[tuple[datetime, datetime]]) -> list[str]:
    """What spans leave uncovered of the one from `start` to `end`, in words; nothing if all."""
    ordered = sorted(spans)
    if not ordered:
        return ["there is no video of it"]
    faults = []
    first, last = ordered[0][0], max(span[1] for span in ordered)
    if first > start + _TOLERANCE:
        faults.append(f"starts {_seconds(first - start)} s later than asked")
    covered_to = ordered[0][1]
    for begin, until in ordered[1:]:
        if begin > covered_to + _TOLERANCE:
            faults.append(f"{_seconds(begin - covered_to)} s are missing within")
        covered_to = max(covered_to, until)
    if last < end - _TOLERANCE:
        faults.append(f"ends {_seconds(end - last)} s earlier than asked")
    return faults


OVERDUE = "its video has not come for minutes: its camera's disk may be lost, or storage be away"
"""Said of an event whose file was promised; not true any more once one comes."""
_COVERAGE = (
    " later than asked",
    " are missing within",
    " earlier than asked",
    "there is no video",
    OVERDUE,
)
_WITHIN = "in the file: "


def _clip(clip: ClipRef, files: list[ClipPart], wish: Wish, said: list[str]) -> ClipRef:
    start = min(clip.requested_start or wish.start, wish.start)
    end = max(clip.requested_end or wish.end, wish.end)
    refers = _refer(clip, files)
    before = [fault for fault in (clip.error or "").split("; ") if fault]
    faults: list[str] = []
    if files and wish.final:
        faults = uncovered(start, end, [(part.start, part.end) for part in files])
    if files and wish.final and not faults:  # failures were made good
        said = [fault for fault in said if fault.startswith(_WITHIN)]
        kept = [fault for fault in before if fault.startswith(_WITHIN)]
    else:  # what was said about coverage before does not hold any more
        kept = [fault for fault in before if not any(mark in fault for mark in _COVERAGE)]
    return refers.model_copy(
        update={
            "requested_start": start,
            "requested_end": end,
            "error": _joined("; ".join(kept) or None, [*said, *faults]),
        }
    )


def _refer(clip: ClipRef, files: list[ClipPart]) -> ClipRef:
    ordered = sorted(files, key=lambda part: (part.start, part.uri))
    first = ordered[0] if ordered else None
    return clip.model_copy(
        update={
            "uri": first and first.uri,
            "start": first and first.start,
            "end": first and first.end,
            "sha256": first and first.sha256,
            "parts": tuple(ordered[1:]),
        }
    )


def _files(clip: ClipRef) -> list[ClipPart]:
    if clip.uri is None or clip.start is None or clip.end is None:
        return list(clip.parts)
    own = ClipPart(uri=clip.uri, start=clip.start, end=clip.end, sha256=clip.sha256)
    return [own, *clip.parts]


def _joined(error: str | None, more: list[str]) -> str | None:
    said = [fault for fault in (error or "").split("; ") if fault]
    said += [fault for fault in dict.fromkeys("; ".join(more).split("; ")) if fault not in said]
    return "; ".join(fault for fault in said if fault) or None


def _seconds(gap: timedelta) -> str:
    return f"{gap.total_seconds():.2f}"
