"""Changing events beside the rules: clip links, pictures, keep marks, whatever their age."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from storeguard.errors import NotFoundError
from storeguard.events.clip_link import (
    StoredClip,
    Wish,
    with_clip,
    with_failure,
    with_snapshot,
    with_wish,
    without_file,
)
from storeguard.events.event import Event
from storeguard.events.journal import Journal
from storeguard.events.store import EventStore

_log = logging.getLogger(__name__)


class Amender:
    """Changes the newest version of an event, in the journal, from where it is shipped.

    An event that left the journal long ago is taken back into it from the event store.
    Thread-safe. Every method can be called again with what it was told before.

    Args:
        journal: where changes are taken down.
        store: where older events are found.
    """

    def __init__(self, journal: Journal, store: EventStore) -> None:
        self._journal = journal
        self._store = store

    def amend(self, event_id: str, change: Callable[[Event], Event]) -> Event:
        """The changed event.

        Raises:
            NotFoundError: there is no such event (any more).
            JournalError: nothing was taken down.
            StoreError: it is not in the journal and the store does not answer.
        """
        try:
            return self._journal.amend(event_id, change)
        except NotFoundError:
            before = self._store.get(event_id)
            if before is None:
                raise
        # Latencies are measured once: the store keeps what it has.
        changed = change(before).model_copy(update={"latency_ms": type(before.latency_ms)()})
        if changed == before.model_copy(update={"latency_ms": changed.latency_ms}):
            return before
        self._journal.commit([changed.model_copy(update={"version": before.version + 1})])
        return changed

    def link_clip(self, stored: StoredClip, wishes: Sequence[Wish]) -> int:
        """Link a stored clip to events; returns how many of them there are."""

        def linked(wish: Wish) -> Callable[[Event], Event]:
            return lambda event: with_clip(event, stored, wish)

        return sum(self._try(wish.event_id, linked(wish)) for wish in wishes)

    def link_wishes(self, wishes: Sequence[Wish], error: str | None) -> int:
        """Tell events what is recorded for them, or why not; returns how many there are."""

        def told(wish: Wish) -> Callable[[Event], Event]:
            if error is None:
                return lambda event: with_wish(event, wish)
            return lambda event: with_failure(event, wish, error)

        return sum(self._try(wish.event_id, told(wish)) for wish in wishes)

    def link_snapshot(self, event_id: str, uri: str) -> bool:
        """Link a stored picture; False if there is no such event."""
        return self._try(event_id, lambda event: with_snapshot(event, uri))

    def drop_file(self, event_id: str, uri: str, reason: str) -> bool:
        """The event's file is to be deleted; False if the event is to be kept, and its files."""
        kept = False

        def change(event: Event) -> Event:
            nonlocal kept
            kept = event.keep
            return without_file(event, uri, reason)

        self._try(event_id, change)
        return not kept

    def set_keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not. Raises as `amend` does."""
        return self.amend(event_id, lambda event: event.model_copy(update={"keep": keep}))

    def _try(self, event_id: str, change: Callable[[Event], Event]) -> bool:
        try:
            self.amend(event_id, change)
        except NotFoundError:
            _log.warning("event %s does not exist any more, it gets no link", event_id)
            return False
        return True
