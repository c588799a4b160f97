"""The shipper: a thread that carries events from the journal to the event store.

At least once, in the journal's order, in batches; the store's versioned upsert turns that into
exactly once. An event that changed several times while it waited is stored in its newest state.
Nothing is confirmed before the store has answered, so a store that is down, slow, refusing or
restarted without its data costs time, never events.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Self

from storeguard.clock import Clock, SystemClock
from storeguard.errors import JournalError, StoreError
from storeguard.events.event import Event
from storeguard.events.journal import Backlog, Entry, Journal
from storeguard.events.keyspace import Upserted
from storeguard.events.store import EventStore

_log = logging.getLogger(__name__)

_STORE_IDENTITY: Final = "store-identity"
_IDLE_S: Final = 0.5  # other processes may commit too, and they do not wake us


@dataclass(frozen=True, slots=True)
class ShipperSettings:
    """How events are carried.

    Attributes:
        batch: events stored in one call.
        backoff_s, max_backoff_s: wait after the first failure; doubles up to the second figure.
        jitter: each wait is made longer or shorter by up to this fraction.
        identity_s: how often the store's identity is checked.
        journal_retain_s: how long stored events stay in the journal, to fill a lost store again.
        restart_overlap_s: what is stored again after a restart of the store: it may have lost the
            last moments (append-only file) or hours (snapshots) of its data.
        retain_days: age at which events leave the store; None keeps them forever.
        max_events: number past which the oldest events leave the store; None for no bound.
        trim_every_s: how often that is done.
    """

    batch: int = 64
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0
    jitter: float = 0.3
    identity_s: float = 1.0
    journal_retain_s: float = 86_400.0
    restart_overlap_s: float = 7_200.0
    retain_days: float | None = 90.0
    max_events: int | None = None
    trim_every_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ShipperStats:
    """What the shipper did so far.

    Attributes:
        shipped: versions of events the store has answered for.
        created, updated, unchanged: what those did in the store.
        retries: attempts that failed and were, or will be, repeated.
        reshipped: events that had to wait to be stored again after a restart or loss of the store.
        trimmed: events removed from the store because of age or number.
        connected: whether the last attempt succeeded; None before the first.
        last_error: why the last failure failed; None when there was none.
        last_stored_at: when the store last answered.
        backlog: what waits.
    """

    shipped: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    retries: int = 0
    reshipped: int = 0
    trimmed: int = 0
    connected: bool | None = None
    last_error: str | None = None
    last_stored_at: datetime | None = None
    backlog: Backlog = field(default_factory=lambda: Backlog(0, 0, None))


def always_live(event: Event) -> bool:  # noqa: ARG001 - one of the possible answers
    """Every event comes from a live source."""
    return True


class Shipper:
    """Carries events from a journal to a store until stopped.

    Args:
        journal: where events come from.
        store: where they go.
        settings: batch, waits and retention.
        is_live: whether an event's capture times are of the present, so that its capture-to-store
            latency means something; a file played fast is not live.
        clock: for latencies and timers.
        jitter: a random number in -1..1.
    """

    def __init__(
        self,
        journal: Journal,
        store: EventStore,
        *,
        settings: ShipperSettings = ShipperSettings(),
        is_live: Callable[[Event], bool] = always_live,
        clock: Clock | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311 - no secret
    ) -> None:
        self._journal = journal
        self._store = store
        self._settings = settings
        self._is_live = is_live
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._batch = settings.batch
        self._failures = 0
        self._next_identity = self._next_trim = self._clock.monotonic()
        self._identity = journal.meta(_STORE_IDENTITY)
        self._stats = ShipperStats()
        self._stats_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin carrying, in a thread of its own."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="event-shipper", daemon=True)
            self._thread.start()

    def stop(self, *, drain_s: float = 2.0) -> bool:
        """Stop; what waits is first carried for at most `drain_s`.

        Returns:
            Whether nothing was left waiting. What is left stays in the journal.
        """
        drained = self.flush(drain_s)
        self._stop.set()
        self._journal.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return drained

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits to be stored; False after `timeout_s`."""
        deadline = self._clock.monotonic() + timeout_s
        while self._journal.backlog().events:
            if self._clock.monotonic() >= deadline or self._thread is None:
                return False
            self._clock.sleep(0.02)
        return True

    def stats(self) -> ShipperStats:
        """What was done so far, and what waits."""
        with self._stats_lock:
            return replace(self._stats, backlog=self._journal.backlog())

    def step(self) -> int:
        """Check the store's identity, carry one batch, trim what is old.

        Returns:
            How many events were carried; 0 when nothing waited.

        Raises:
            StoreError: the store failed; nothing was confirmed.
            JournalError: the journal failed.
        """
        now = self._clock.monotonic()
        if now >= self._next_identity:
            self._check_identity()
            self._next_identity = now + self._settings.identity_s
        entries = self._journal.pending(self._batch)
        if entries:
            self._carry(entries)
        if now >= self._next_trim:
            self._next_trim = now + self._settings.trim_every_s
            self._trim()
        return len(entries)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ------------------------------------------------------------------ inside

    def _run(self) -> None:
        seen = 0
        while not self._stop.is_set():
            try:
                seen = self._journal.wait(seen, 0.0)  # what comes from here on wakes us below
                carried = self.step()
            except (StoreError, JournalError) as error:
                self._stop.wait(self._failed(error))
                continue
            self._succeeded()
            if not carried:
                seen = self._journal.wait(seen, _IDLE_S)

    def _check_identity(self) -> None:
        identity = self._store.identity()
        if identity == self._identity:
            return
        if self._identity is not None:
            same_data = self._identity.rpartition("/")[2] == identity.rpartition("/")[2]
            overlap_s = self._settings.restart_overlap_s if same_data else None
            count = self._journal.reship(overlap_s)
            self._count(reshipped=count)
            _log.warning(
                "event store %s; storing %d journalled events again",
                "was restarted" if same_data else "has other data than before",
                count,
            )
        self._journal.set_meta(_STORE_IDENTITY, identity)
        self._identity = identity

    def _carry(self, entries: list[Entry]) -> None:
        now = self._clock.now()
        measured: dict[str, float] = {}
        batch: list[tuple[Event, float | None]] = []
        for entry in entries:
            latency_ms = entry.latency_ms
            if latency_ms is None and entry.opened_at and self._is_live(entry.event):
                latency_ms = max(0.0, (now - entry.opened_at) / timedelta(milliseconds=1))
                measured[entry.event.event_id] = latency_ms
            batch.append((entry.event, latency_ms))
        outcomes = Counter(self._store.upsert(batch))
        self._journal.confirm({entry.event.event_id: entry.seq for entry in entries}, measured)
        with self._stats_lock:
            self._stats = replace(self._stats, last_stored_at=self._clock.now())
        self._count(
            shipped=len(entries),
            created=outcomes[Upserted.CREATED],
            updated=outcomes[Upserted.UPDATED],
            unchanged=outcomes[Upserted.UNCHANGED],
        )

    def _trim(self) -> None:
        settings = self._settings
        self._journal.prune(settings.journal_retain_s)
        before = None
        if settings.retain_days is not None:
            before = self._clock.now() - timedelta(days=settings.retain_days)
        self._count(trimmed=self._store.trim(before=before, max_events=settings.max_events))

    def _failed(self, error: Exception) -> float:
        """Count a failure; returns how long to wait in seconds."""
        settings = self._settings
        if self._failures == 0:
            _log.warning("events wait in the journal: %s", error)
        wait_s = min(settings.backoff_s * 2.0 ** min(self._failures, 20), settings.max_backoff_s)
        self._failures += 1
        self._batch = max(1, self._batch // 2)  # a slow store may manage a smaller one in time
        self._next_identity = self._clock.monotonic()  # it may come back as another one
        with self._stats_lock:
            self._stats = replace(
                self._stats,
                retries=self._stats.retries + 1,
                connected=False,
                last_error=str(error),
            )
        return wait_s * (1 + settings.jitter * self._jitter())

    def _succeeded(self) -> None:
        self._batch = min(self._settings.batch, self._batch * 2)
        if self._failures:
            _log.info("event store takes events again after %d failed attempts", self._failures)
        self._failures = 0
        if self._stats.connected is not True:
            with self._stats_lock:
                self._stats = replace(self._stats, connected=True)

    def _count(self, **more: int) -> None:
        with self._stats_lock:
            sums = {name: getattr(self._stats, name) + n for name, n in more.items()}
            self._stats = replace(self._stats, **sums)
