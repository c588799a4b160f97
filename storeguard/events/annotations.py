"""What is added to an event beside its rule: its clip's files and faults, snapshot and keep mark.

An event is served as the rules last gave it, `composed` with its annotations. All here is
immutable, and making a change twice changes nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from storeguard.events.clip import ClipSpan, StoredClip, clip_files, faults_of, uncovered
from storeguard.events.event import (
    ClipPart,
    ClipRef,
    Event,
    EventStatus,
    Latency,
    Moment,
    SnapshotRef,
)
from storeguard.events.faults import Fault, FaultCode, in_words

_COMPUTED: Final = frozenset({FaultCode.STARTS_LATE, FaultCode.GAP, FaultCode.ENDS_EARLY})


class Annotations(BaseModel):
    """One event's annotations.

    Attributes:
        files: the clip's stored files, in order of time.
        announced: files about to be stored, of which nothing more was reported yet.
        requested_start, requested_end: the span of video requested so far; None before any was.
        final: whether that span is known not to grow any more. What the files leave uncovered of a
            final span is a fault, and computed whenever the event is composed.
        faults: all other faults of the clip.
        snapshot_uri: the still picture; None while there is none.
        keep: whether retention must keep the event and its files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[ClipPart, ...] = ()
    announced: tuple[ClipPart, ...] = ()
    requested_start: Moment | None = None
    requested_end: Moment | None = None
    final: bool = False
    faults: tuple[Fault, ...] = ()
    snapshot_uri: str | None = None
    keep: bool = False

    def uncovered(self) -> list[Fault]:
        """What the files leave uncovered of the span; nothing while it is not final."""
        if not self.files or not self.final or not self.requested_start or not self.requested_end:
            return []
        spans = [(file.start, file.end) for file in self.files]
        return uncovered(self.requested_start, self.requested_end, spans)

    def clip(self) -> ClipRef | None:
        """The clip as served; None while no video was requested."""
        faults = (*self.faults, *self.uncovered())
        if not self.files and not faults and self.requested_start is None:
            return None
        first = self.files[0] if self.files else None
        return ClipRef(
            uri=first and first.uri,
            start=first and first.start,
            end=first and first.end,
            requested_start=self.requested_start,
            requested_end=self.requested_end,
            sha256=first and first.sha256,
            error=in_words(faults),
            faults=faults,
            parts=self.files[1:],
        )

    def with_span(self, span: ClipSpan) -> Self:
        """Video of the span was requested; its files follow."""
        return self._with_clip(span, files=self.files)

    def with_announcement(self, span: ClipSpan, stored: StoredClip) -> Self:
        """One more file of the clip is about to be stored."""
        changed = self.with_span(span)
        if stored.uri in {file.uri for file in self.files}:
            return changed
        others = [one for one in self.announced if one.uri != stored.uri]
        return changed.model_copy(update={"announced": _in_order([*others, _part_of(stored)])})

    def with_file(self, span: ClipSpan, stored: StoredClip) -> Self:
        """One more file of the clip is stored, or one that is known is to cover another span."""
        file = _part_of(stored)
        others = [one for one in self.files if one.uri != stored.uri]
        faults = [
            fault.model_copy(update={"in_file": True})
            for fault in stored.faults
            if not fault.is_remark and not fault.is_coverage
        ]
        left = tuple(one for one in self.announced if one.uri != stored.uri)
        changed = self._with_clip(span, files=_in_order([*others, file]), faults=faults)
        return changed.model_copy(update={"announced": left})

    def with_fault(self, span: ClipSpan, fault: Fault) -> Self:
        """The span, or some of it, could not be recorded."""
        return self._with_clip(span, files=self.files, faults=[fault])

    def with_snapshot(self, uri: str) -> Self:
        """The still picture is stored."""
        return self.model_copy(update={"snapshot_uri": uri})

    def with_keep(self, keep: bool) -> Self:
        """The event is marked to be kept, or not any more."""
        return self.model_copy(update={"keep": keep})

    def without_file(self, uri: str, reason: str) -> Self:
        """A file of the clip, or the snapshot, was deleted on purpose.

        Annotations that do not refer to the file stay as they are.
        """
        changes: dict[str, object] = {}
        if self.snapshot_uri == uri:
            changes["snapshot_uri"] = None
        left = tuple(file for file in self.files if file.uri != uri)
        if left != self.files:
            changes["files"] = left
            deleted = Fault(code=FaultCode.DELETED, detail=reason)
            # What was uncovered before stays a fault; what the deletion uncovers is none.
            changes["faults"] = _without_repeats([*self.faults, *self.uncovered(), deleted])
            changes["final"] = False
        return self.model_copy(update=changes) if changes else self

    def _with_clip(
        self,
        span: ClipSpan,
        *,
        files: tuple[ClipPart, ...],
        faults: Iterable[Fault] = (),
    ) -> Self:
        # What was reported about coverage before does not hold any more.
        known = [fault for fault in self.faults if not fault.is_coverage]
        changed = self.model_copy(
            update={
                "files": files,
                "requested_start": min(self.requested_start or span.start, span.start),
                "requested_end": max(self.requested_end or span.end, span.end),
                "final": span.final,
                "faults": _without_repeats([*known, *faults]),
            }
        )
        if files and span.final and not changed.uncovered():  # failures were made good
            inside = tuple(fault for fault in changed.faults if fault.in_file)
            changed = changed.model_copy(update={"faults": inside})
        return changed


def composed(body: Event, annotations: Annotations, *, version: int) -> Event:
    """The event as it is served: the rules' `body` with its annotations."""
    uri = annotations.snapshot_uri
    return body.model_copy(
        update={
            "version": version,
            "clip": annotations.clip(),
            "snapshot": None if uri is None else SnapshotRef(uri=uri),
            "keep": annotations.keep,
        }
    )


def separated(event: Event) -> tuple[Event, Annotations]:
    """An event's body and its annotations: the inverse of `composed`.

    The latency is left out: the event store keeps the first one that was measured.
    """
    bare = {"clip": None, "snapshot": None, "keep": False, "latency_ms": Latency()}
    return event.model_copy(update=bare), Annotations(
        snapshot_uri=event.snapshot and event.snapshot.uri,
        keep=event.keep,
        **_clip_annotations(event.clip or ClipRef()),
    )


def _clip_annotations(clip: ClipRef) -> dict[str, Any]:
    faults = faults_of(clip)
    found: dict[str, Any] = {
        "files": _in_order(clip_files(clip)),
        "requested_start": clip.requested_start,
        "requested_end": clip.requested_end,
        "final": True,
        "faults": tuple(fault for fault in faults if fault.code not in _COMPUTED),
    }
    again = Annotations(**found).clip()
    if again is not None and set(again.faults) != set(faults):
        # Not final yet, a file was deleted, or an earlier release put the coverage into words.
        found |= {"final": False, "faults": faults}
    return found


def continued(before: Event, after: Event) -> Event:
    """The rules' next version of an event's body.

    Attributes given earlier are kept, and a closed event stays closed.
    """
    changes: dict[str, object] = {"attributes": {**before.attributes, **after.attributes}}
    if before.status is EventStatus.CLOSED and after.status is EventStatus.OPEN:
        changes |= {"status": before.status, "ended_at": before.ended_at}
    return after.model_copy(update=changes)


def _part_of(stored: StoredClip) -> ClipPart:
    return ClipPart(uri=stored.uri, start=stored.start, end=stored.end, sha256=stored.sha256)


def _in_order(files: Iterable[ClipPart]) -> tuple[ClipPart, ...]:
    return tuple(sorted(files, key=lambda file: (file.start, file.uri)))


def _without_repeats(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(dict.fromkeys(faults))
