"""The rules of all cameras at work: observations in, events into the journal, verdicts back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig
from storeguard.config.zones import Settings
from storeguard.errors import CheckpointError
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.events.journal import Journal
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict

_log = logging.getLogger(__name__)

_CAMERAS_KEY = "judge:cameras"


@dataclass(slots=True)
class _HostedCamera:
    """One camera's rules and what the judge keeps beside them."""

    camera: CameraConfig
    rules: CameraRules
    open_events: dict[str, OpenEvent] = field(default_factory=dict)
    num_events: int = 0
    last_captured_at: datetime | None = None
    heard_at_s: float = 0.0


class RulesHost:
    """Applies each camera's rules and journals what they say, with their checkpoint, as one.

    An observation is acknowledged (its verdict returned) only after its events and the rules'
    state are on disk together: killed at any moment and started again on the same journal, the
    judge goes on where it was, and observations sent again change nothing.

    Args:
        store_id: for the events.
        journal: where events and checkpoints go.
        clock: for noticing silence.
        model: the detector, for the events.
    """

    def __init__(
        self, store_id: str, journal: Journal, *, clock: Clock, model: ModelRef | None = None
    ) -> None:
        self._store_id = store_id
        self._journal = journal
        self._clock = clock
        self._model = model
        self._benches: dict[str, _HostedCamera] = {}
        self._unsaved: list[Event] = []
        # After a restart observations may come before the settings do: go on with the last ones.
        remembered = journal.checkpoint(_CAMERAS_KEY)
        if remembered is not None:
            for camera in _Cameras.model_validate_json(remembered).cameras:
                self._seat(camera)

    def configure(self, cameras: Iterable[CameraConfig]) -> list[Event]:
        """Judge these cameras from now on; those no longer listed have their events closed.

        Returns:
            The events that this closed.
        """
        wanted = {camera.id: camera for camera in cameras}
        closed: list[Event] = []
        for camera_id in [name for name in self._benches if name not in wanted]:
            closed += self._dismiss(camera_id)
        for camera in wanted.values():
            closed += self._seat(camera)
        self._journal.commit((), {_CAMERAS_KEY: _remember(wanted.values())})
        return closed

    def observe(self, observations: Sequence[Observation]) -> list[Verdict]:
        """Judge a batch, in order.

        Returns:
            One verdict a camera of the batch, as of its last observation. Observations of cameras
            that are not configured (any more) are passed over.
        """
        events: list[Event] = []
        heard: dict[str, _HostedCamera] = {}
        changes: dict[str, list[Event]] = {}
        for observation in observations:
            bench = self._benches.get(observation.camera_id)
            if bench is None:
                continue
            try:
                raised = bench.rules.step(observation)
            except ValueError:
                _log.exception("an observation was refused")
                continue
            self._note(bench, raised)
            bench.last_captured_at = observation.captured_at
            bench.heard_at_s = self._clock.monotonic()
            events += raised
            heard[observation.camera_id] = bench
            changes.setdefault(observation.camera_id, []).extend(raised)
        self._commit(events, heard)
        return [
            self._verdict(camera_id, bench, changes[camera_id])
            for camera_id, bench in heard.items()
        ]

    def still_playing(self, camera_ids: Iterable[str]) -> None:
        """Take no silence of these cameras for the end of anything: files at full pace, whose next
        picture waits for the detector as long as it takes.
        """
        now_s = self._clock.monotonic()
        for camera_id in camera_ids:
            if camera_id in self._benches:
                self._benches[camera_id].heard_at_s = now_s

    def tick(self) -> list[Event]:
        """Close what cameras that have gone silent left open; call about once a second."""
        events: list[Event] = []
        touched: dict[str, _HostedCamera] = {}
        now_s = self._clock.monotonic()
        for camera_id, bench in self._benches.items():
            if bench.last_captured_at is None or not bench.open_events:
                continue
            # In capture time, which need not be the wall clock's (a file played fast).
            elapsed = timedelta(seconds=now_s - bench.heard_at_s)
            closed = bench.rules.tick(bench.last_captured_at + elapsed)
            if closed:
                self._note(bench, closed)
                events += closed
                touched[camera_id] = bench
        self._commit(events, touched)
        return events

    def _seat(self, camera: CameraConfig) -> list[Event]:
        bench = self._benches.get(camera.id)
        if bench is not None:
            if (bench.camera.zones, bench.camera.person) == (camera.zones, camera.person):
                return []
            bench.camera = camera
            events = bench.rules.reconfigure(camera)
        else:
            bench = _HostedCamera(camera, CameraRules(self._store_id, camera, self._model))
            self._benches[camera.id] = bench
            events = self._resume(bench)
        self._note(bench, events)
        self._commit(events, {camera.id: bench})
        return events

    def _resume(self, bench: _HostedCamera) -> list[Event]:
        blob = self._journal.checkpoint(_key(bench.camera.id))
        if blob is None:
            return []
        try:
            events = bench.rules.restore(blob)
        except CheckpointError:
            _log.exception("the rules start afresh")
            return []
        bench.last_captured_at = bench.rules.captured_at
        bench.heard_at_s = self._clock.monotonic()
        for event in bench.rules.open_events():
            bench.open_events[event.event_id] = event
        return events

    def _dismiss(self, camera_id: str) -> list[Event]:
        bench = self._benches.pop(camera_id)
        events = bench.rules.close_all(bench.last_captured_at or self._clock.now())
        self._commit(events, {camera_id: bench})
        return events

    def _note(self, bench: _HostedCamera, events: Sequence[Event]) -> None:
        for event in events:
            if event.version == 1:
                bench.num_events += 1
            if event.status is EventStatus.OPEN:
                bench.open_events[event.event_id] = OpenEvent(
                    event.event_id, event.type, event.zone_id, event.person_id
                )
            else:
                bench.open_events.pop(event.event_id, None)

    def _commit(self, events: Sequence[Event], benches: dict[str, _HostedCamera]) -> None:
        # The rules have stepped and will not say this again: what cannot be written now (a full
        # disk) is kept for the next commit, and nobody gets an answer before.
        self._unsaved += events
        self._journal.commit(
            self._unsaved,
            {_key(name): bench.rules.checkpoint() for name, bench in benches.items()},
        )
        self._unsaved = []

    def _verdict(self, camera_id: str, bench: _HostedCamera, changes: Sequence[Event]) -> Verdict:
        return Verdict(
            camera_id=camera_id,
            dwell=tuple(bench.rules.dwell()),
            open_events=tuple(bench.open_events.values()),
            changes=tuple(changes),
            num_events=bench.num_events,
        )


class _Cameras(Settings):
    cameras: tuple[CameraConfig, ...]


def _remember(cameras: Iterable[CameraConfig]) -> bytes:
    """The settings as JSON, without the addresses, which may hold credentials."""
    bare = tuple(camera.model_copy(update={"source": "(elsewhere)"}) for camera in cameras)
    return _Cameras(cameras=bare).model_dump_json().encode()


def _key(camera_id: str) -> str:
    return f"rules:{camera_id}"
