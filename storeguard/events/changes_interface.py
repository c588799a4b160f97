"""Changes to an event beside its rule: clip files, snapshots, keep marks and deletions.

`EventChanges.apply` is the one way to make them. Applying a change twice changes nothing more, so
a caller that got no answer sends it again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from storeguard.events.clip import ClipSpan, StoredClip
from storeguard.events.event import Event
from storeguard.events.faults import Fault
from storeguard.events.journal import Journal
from storeguard.events.store import EventStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClipRequested:
    """Video of the span is being recorded for the event; its files follow."""

    span: ClipSpan

    @property
    def event_id(self) -> str:
        """The event."""
        return self.span.event_id


@dataclass(frozen=True, slots=True)
class ClipStored:
    """A file that covers some of the span is stored."""

    span: ClipSpan
    stored: StoredClip

    @property
    def event_id(self) -> str:
        """The event."""
        return self.span.event_id


@dataclass(frozen=True, slots=True)
class ClipFailed:
    """The span, or some of it, could not be recorded or stored."""

    span: ClipSpan
    fault: Fault

    @property
    def event_id(self) -> str:
        """The event."""
        return self.span.event_id


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


Change = (
    ClipRequested | ClipStored | ClipFailed | SnapshotStored | KeepSet | FileDropped | EventReported
)


class Outcome(StrEnum):
    """What one change came to."""

    APPLIED = "applied"
    NO_EVENT = "no_event"
    """There is no such event, neither in the journal nor in the event store."""
    KEPT = "kept"
    """The event is marked to be kept, and so is its file: do not delete it."""


class EventChanges:
    """Applies changes in the journal, from where they are shipped.

    An event that left the journal long ago is taken back into it from the event store.
    Thread-safe.

    Args:
        journal: where changes are written.
        store: where older events are found.
    """

    def __init__(self, journal: Journal, store: EventStore) -> None:
        self._journal = journal
        self._store = store

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply changes in order, all in one transaction; returns one outcome a change.

        Raises:
            JournalError: nothing was written.
            StoreError: an event is not in the journal and the store does not answer; nothing was
                written.
        """
        raise NotImplementedError
