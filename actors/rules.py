"""The rules actor: one stateful judge of all cameras, with its journal and its way to the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from storeguard.events.shipper import Shipper, ShipperStats

from storeguard.clock import SystemClock
from storeguard.config import CameraConfig, StoreConfig
from storeguard.events.event import Event, ModelRef
from storeguard.events.journal import Journal, JournalDrops
from storeguard.events.store import EventStore
from storeguard.pipeline.judge import Judge
from storeguard.pipeline.verdict import Verdict
from storeguard.rules.observation import Observation

_TICK_S = 1.0
_log = logging.getLogger(__name__)


class RulesActor:
    """Judges observations; its state and its events are on disk before it answers.

    Args:
        config: the store's configuration.
        store_url: where events are shipped to.
        model: the detector, for the events.
    """

    def __init__(self, config: StoreConfig, *, store_url: str, model: ModelRef) -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        clock = SystemClock()
        path = config.data_dir / "journal.sqlite3"
        self._journal = Journal(path, max_bytes=config.events.journal_max_bytes, clock=clock)
        self._judge = Judge(config.store, self._journal, clock=clock, model=model)
        self._lock = threading.Lock()
        self._shipper = Shipper(self._journal, EventStore(store_url))
        self._shipper.start()
        self._stopping = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="rules-tick", daemon=True)
        self._ticker.start()

    def configure(self, cameras: Sequence[CameraConfig]) -> None:
        """Judge these cameras from now on."""
        with self._lock:
            self._judge.configure(cameras)

    def observe(self, observations: Sequence[Observation]) -> list[Verdict]:
        """Judge a batch; returns when its events are on disk."""
        with self._lock:
            return self._judge.observe(observations)

    def event(self, event_id: str) -> Event | None:
        """The newest journalled version of an event; None if the journal holds none."""
        return self._journal.latest(event_id)

    def health(self) -> tuple[ShipperStats, JournalDrops]:
        """How far the store is behind the journal, and what a full journal dropped."""
        return self._shipper.stats(), self._journal.drops()

    def stop(self) -> None:
        """Ship what is left, within seconds, and close."""
        self._stopping.set()
        self._ticker.join(timeout=2 * _TICK_S)
        self._shipper.stop()
        self._journal.close()

    def _tick(self) -> None:
        while not self._stopping.wait(_TICK_S):
            try:
                with self._lock:
                    self._judge.tick()
            except Exception:  # noqa: BLE001 - a full disk now must not end the ticking
                _log.exception("the rules' tick failed")
