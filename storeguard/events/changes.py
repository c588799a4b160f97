"""Changes to events that no rule makes: clip files, snapshots, keep marks and deletions.

`EventChanges.apply` is the one way to make them. Applying a change twice changes nothing more, so
a caller that got no answer sends it again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never

from storeguard.events.annotations import Annotations, separated
from storeguard.events.clip import ClipSpan, StoredClip
from storeguard.events.event import Event
from storeguard.events.faults import Fault
from storeguard.events.journal import Journal
from storeguard.events.journal_rows import EventRows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _OfSpan:
    span: ClipSpan

    @property
    def event_id(self) -> str:
        """The event."""
        return self.span.event_id


@dataclass(frozen=True, slots=True)
class ClipRequested(_OfSpan):
    """Video of the span is being recorded for the event; its files follow."""


@dataclass(frozen=True, slots=True)
class ClipStored(_OfSpan):
    """A file that covers some of the span is stored."""

    stored: StoredClip


@dataclass(frozen=True, slots=True)
class ClipAnnounced(_OfSpan):
    """A file that covers some of the span is about to be uploaded.

    Should its node be lost before it reports the upload, the file is found by its address.
    """

    stored: StoredClip


@dataclass(frozen=True, slots=True)
class ClipFailed(_OfSpan):
    """The span, or some of it, could not be recorded or stored."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class SnapshotStored:
    """The event's still picture is stored; it takes the place of an earlier one."""

    event_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class KeepSet:
    """The event is marked to be kept by retention, or not any more."""

    event_id: str
    keep: bool


@dataclass(frozen=True, slots=True)
class FileDropped:
    """A file of the event's clip, or its snapshot, is going to be deleted.

    Attributes:
        uri: the file.
        reason: for people.
    """

    event_id: str
    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventReported:
    """A version of an event that no rule raised, such as a manual recording."""

    event: Event

    @property
    def event_id(self) -> str:
        """The event."""
        return self.event.event_id


_Annotation = (
    ClipRequested | ClipAnnounced | ClipStored | ClipFailed | SnapshotStored | KeepSet | FileDropped
)
Change = _Annotation | EventReported


class Outcome(StrEnum):
    """The result of applying one change."""

    APPLIED = "applied"
    NO_EVENT = "no_event"
    """There is no such event, neither in the journal nor in the event store."""
    KEPT = "kept"
    """The event is marked to be kept, and so is its file: do not delete it."""


class OlderEvents(Protocol):
    """Where events are found that left the journal; `EventStore` is one."""

    def get(self, event_id: str) -> Event | None:
        """One event; None if there is none. Raises StoreError if the store does not answer."""
        ...


class EventChanges:
    """Applies changes in the journal, from where they are shipped to the event store.

    An event that left the journal long ago is taken back into it from the store. Thread-safe.

    Args:
        journal: where changes are written.
        store: where older events are found.
    """

    def __init__(self, journal: Journal, store: OlderEvents) -> None:
        self._journal = journal
        self._store = store

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply changes in order, all in one transaction; returns one outcome a change.

        Raises:
            JournalError: nothing was written.
            StoreError: an event is not in the journal and the store does not answer; nothing was
                written.
        """
        if not changes:
            return []
        stored: dict[str, Event | None] = {}
        while True:
            try:
                with self._journal.edit() as rows:
                    outcomes = [_applied(rows, change, stored) for change in changes]
            except (
                _NotInJournalError
            ) as error:  # not looked up in the transaction: it may take long
                stored[error.event_id] = self._store.get(error.event_id)
                continue
            for change, outcome in zip(changes, outcomes, strict=True):
                if outcome is Outcome.NO_EVENT:
                    name = type(change).__name__
                    _log.warning("%s: event %s does not exist any more", name, change.event_id)
            return outcomes


class _NotInJournalError(Exception):
    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id


def _applied(rows: EventRows, change: Change, stored: dict[str, Event | None]) -> Outcome:
    event_id = change.event_id
    before, older = rows.annotations(event_id), None
    opens = isinstance(change, EventReported) and change.event.version == 1
    if before is None and not opens:
        if event_id not in stored:
            raise _NotInJournalError(event_id)
        older = stored[event_id]
    if isinstance(change, EventReported):
        if older is not None:
            rows.restore(older)
        rows.report(change.event)
        return Outcome.APPLIED
    if older is not None:
        _, before = separated(older)
    if before is None:
        return Outcome.NO_EVENT
    if isinstance(change, FileDropped) and before.keep:
        return Outcome.KEPT
    after = _changed(before, change)
    if after != before:
        if older is not None:
            rows.restore(older)
        rows.annotate(event_id, after)
    return Outcome.APPLIED


def _changed(  # noqa: PLR0911 - one line a kind
    before: Annotations, change: _Annotation
) -> Annotations:
    match change:
        case ClipRequested(span=span):
            return before.with_span(span)
        case ClipAnnounced(span=span, stored=stored):
            return before.with_announcement(span, stored)
        case ClipStored(span=span, stored=stored):
            return before.with_file(span, stored)
        case ClipFailed(span=span, fault=fault):
            return before.with_fault(span, fault)
        case SnapshotStored(uri=uri):
            return before.with_snapshot(uri)
        case KeepSet(keep=keep):
            return before.with_keep(keep)
        case FileDropped(uri=uri, reason=reason):
            return before.without_file(uri, reason)
        case _:
            assert_never(change)
