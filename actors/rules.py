"""The rules actor: the rules of all cameras, their journal and its way to the event store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from storeguard.analytics.track_log import track_log
from storeguard.clock import Clock, SystemClock
from storeguard.config.store import CameraConfig, Pace, StoreConfig
from storeguard.errors import NotFoundError
from storeguard.events.changes import Change, EventChanges, KeepSet, Outcome
from storeguard.events.event import Event, ModelRef
from storeguard.events.journal import Journal, JournalDrops
from storeguard.events.shipper import Shipper, ShipperSettings, ShipperStats
from storeguard.events.store import EventStore
from storeguard.recording.missing_clips import MissingClips
from storeguard.rules.host import RulesHost
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat, Verdict
from storeguard.storage.objects import object_store

_TICK_S = 1.0
_log = logging.getLogger(__name__)


class RulesActor:
    """Steps the rules; their state and their events are on disk before it answers.

    Args:
        config: the store's configuration.
        store_url: where events are shipped to.
        model: the detector, for the events.
        clock: time; None takes the machine's.
        busy_s: how long a batch waits for the one before.
    """

    def __init__(
        self,
        config: StoreConfig,
        *,
        store_url: str,
        model: ModelRef,
        clock: Clock | None = None,
        busy_s: float = 5.0,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        clock = clock or SystemClock()
        path = config.data_dir / "journal.sqlite3"
        # A damaged file is moved aside and logged: a constructor that raises would not be retried.
        self._journal = Journal.recover(
            path, max_bytes=config.events.journal_max_bytes, clock=clock
        )
        self._host = RulesHost(config.store, self._journal, clock=clock, model=model)
        self._lock = threading.Lock()
        self._busy_s = busy_s
        self._missing = MissingClips(
            self._journal, is_stored=object_store(config).holds, clock=clock
        )
        self._store = EventStore(store_url)
        self._changes = EventChanges(self._journal, self._store)
        self._fast: frozenset[str] = frozenset()
        self._shipper = Shipper(
            self._journal,
            EventStore(store_url),
            settings=ShipperSettings(
                retain_days=config.events.retain_days, max_events=config.events.max_events
            ),
            is_live=lambda event: event.camera_id not in self._fast,
            clock=clock,
        )
        self._shipper.start()
        self._tracks = track_log(config, clock=clock)
        if self._tracks is not None:
            self._tracks.start()
        self._stopping = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="rules-tick", daemon=True)
        self._ticker.start()

    def configure(self, cameras: Sequence[CameraConfig]) -> None:
        """Host these cameras' rules from now on."""
        self._fast = frozenset(camera.id for camera in cameras if camera.pace is Pace.FAST)
        with self._lock:
            self._host.configure(cameras)
            self._missing.configure(cameras)

    def observe(
        self, observations: Sequence[Observation], heartbeats: Sequence[Heartbeat]
    ) -> list[Verdict]:
        """Step the rules with a batch; returns when its events are on disk.

        Raises:
            TimeoutError: another batch has been under way for seconds, so the disk hangs; nothing
                was taken in.
        """
        # Calls that waited here for ever would use up the actor's threads one by one.
        if not self._lock.acquire(timeout=self._busy_s):
            raise TimeoutError(f"the rules have been busy for {self._busy_s:.0f} s")
        try:
            verdicts = self._host.observe(observations, heartbeats)
        finally:
            self._lock.release()
        if self._tracks is not None:  # after the journal, so that a resend is not kept twice
            self._tracks.take(observations)
        return verdicts

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Apply changes to events that no rule makes; returns one outcome a change.

        Raises:
            JournalError, StoreError: nothing was written.
        """
        return self._changes.apply(changes)

    def keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not.

        Raises:
            NotFoundError: there is no such event.
        """
        (outcome,) = self.apply([KeepSet(event_id, keep)])
        event = self._journal.latest(event_id) or self._store.get(event_id)
        if outcome is Outcome.NO_EVENT or event is None:
            raise NotFoundError(f"there is no event {event_id!r}")
        return event

    def event(self, event_id: str) -> Event | None:
        """The newest journalled version of an event; None if the journal holds none."""
        return self._journal.latest(event_id)

    def health(self) -> tuple[ShipperStats, JournalDrops]:
        """How far the store is behind the journal, and what a full journal dropped."""
        return self._shipper.stats(), self._journal.drops()

    def stop(self) -> None:
        """Close open events, ship what is left within seconds, and end."""
        self._stopping.set()
        self._ticker.join(timeout=2 * _TICK_S)
        with self._lock:
            self._host.configure(())
        self._shipper.stop()
        if self._tracks is not None:
            self._tracks.close()
        self._journal.close()

    def _tick(self) -> None:
        while not self._stopping.wait(_TICK_S):
            try:
                with self._lock:
                    self._host.tick()
                    missing = self._missing.scan()
                if missing:
                    self._changes.apply(missing)
            except Exception:  # noqa: BLE001 - a full disk now must not end the ticking
                _log.exception("the rules' tick failed")
