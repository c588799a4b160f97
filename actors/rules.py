"""The rules actor: one stateful judge of all cameras, with its journal and its way to the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

from storeguard.analytics.track_log import track_log
from storeguard.clock import Clock, SystemClock
from storeguard.config.store import CameraConfig, Pace, StoreConfig
from storeguard.errors import NotFoundError
from storeguard.events.changes import Change, ClipFailed, EventChanges, KeepSet, Outcome
from storeguard.events.event import Event, ModelRef
from storeguard.events.faults import Fault, FaultCode
from storeguard.events.journal import Journal, JournalDrops
from storeguard.events.shipper import Shipper, ShipperSettings, ShipperStats
from storeguard.events.store import EventStore
from storeguard.recording.reminders import Reminders, promise_of, wish_of
from storeguard.rules.host import Judge
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict

_TICK_S = 1.0
_BUSY_S = 5.0
_VOUCH_S = 1.0
_NO_RECORDER = Fault(code=FaultCode.NO_RECORDER)
_OVERDUE = Fault(code=FaultCode.OVERDUE)
_MAX_UNSAID = 256  # closings a camera, kept until it asks again
_log = logging.getLogger(__name__)


class RulesActor:
    """Judges observations; its state and its events are on disk before it answers.

    Args:
        config: the store's configuration.
        store_url: where events are shipped to.
        model: the detector, for the events.
        clock: time; None takes the machine's.
    """

    def __init__(
        self,
        config: StoreConfig,
        *,
        store_url: str,
        model: ModelRef,
        clock: Clock | None = None,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        clock = clock or SystemClock()
        path = config.data_dir / "journal.sqlite3"
        # A damaged file is set aside, loudly: a constructor that raises would not be tried again.
        self._journal = Journal.recover(
            path, max_bytes=config.events.journal_max_bytes, clock=clock
        )
        self._judge = Judge(config.store, self._journal, clock=clock, model=model)
        self._lock = threading.Lock()
        self._reminders = Reminders(self._journal, clock=clock)
        self._unsaid: dict[str, dict[str, Event]] = {}
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
        """Judge these cameras from now on."""
        self._fast = frozenset(camera.id for camera in cameras if camera.pace is Pace.FAST)
        with self._lock:
            self._judge.configure(cameras)
            self._reminders.configure(cameras)

    def observe(self, observations: Sequence[Observation]) -> list[Verdict]:
        """Judge a batch; returns when its events are on disk.

        Raises:
            TimeoutError: another batch has been judged for seconds, so the disk hangs; nothing
                was taken in.
        """
        # Those that waited here for ever would use up the actor's threads one by one.
        if not self._lock.acquire(timeout=_BUSY_S):
            raise TimeoutError(f"the rules have been busy for {_BUSY_S:.0f} s")
        try:
            verdicts = [self._complete(verdict) for verdict in self._judge.observe(observations)]
        finally:
            self._lock.release()
        if self._tracks is not None:  # after the journal: what is sent again is not kept twice
            self._tracks.take(observations)
        return verdicts

    def still_playing(self, camera_ids: Sequence[str]) -> None:
        """These files at full pace have not ended, however long nothing comes of them."""
        # Those that hang are not to be waited for here: it is said again.
        if self._lock.acquire(timeout=_VOUCH_S):
            try:
                self._judge.still_playing(camera_ids)
            finally:
                self._lock.release()

    # ------------------------------------------------------------------ beside the rules

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Change events beside their rules; see `storeguard.events.changes`."""
        return self._changes.apply(changes)

    def set_keep(self, event_id: str, *, keep: bool) -> Event:
        """Mark an event to be kept by retention, or not.

        Raises:
            NotFoundError: there is no such event.
        """
        (outcome,) = self._changes.apply([KeepSet(event_id, keep)])
        event = self._journal.latest(event_id) or self._store.get(event_id)
        if outcome is Outcome.NO_EVENT or event is None:
            raise NotFoundError(f"expected an event {event_id!r}, found none")
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
            self._judge.configure(())
        self._shipper.stop()
        if self._tracks is not None:
            self._tracks.close()
        self._journal.close()

    def _complete(self, verdict: Verdict) -> Verdict:
        """With what its recorder has to know besides: what was closed while the camera was silent,
        and what it should have heard before.
        """
        unsaid = self._unsaid.pop(verdict.camera_id, None)
        if not unsaid:
            return verdict
        return replace(verdict, changes=(*unsaid.values(), *verdict.changes))

    def _tick(self) -> None:
        while not self._stopping.wait(_TICK_S):
            try:
                with self._lock:
                    closed = self._judge.tick()
                    due = self._reminders.look()
                    for event in (*closed, *due.again):
                        unsaid = self._unsaid.setdefault(event.camera_id, {})
                        unsaid[event.event_id] = event
                        if len(unsaid) > _MAX_UNSAID:  # it is reminded of the others
                            del unsaid[next(iter(unsaid))]
                self._changes.apply(
                    [ClipFailed(wish_of(event), _NO_RECORDER) for event in due.given_up]
                    + [ClipFailed(promise_of(event), _OVERDUE) for event in due.overdue]
                )
            except Exception:  # noqa: BLE001 - a full disk now must not end the ticking
                _log.exception("the rules' tick failed")
