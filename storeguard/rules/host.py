"""The rules of all cameras: observations in, events into the journal, verdicts back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from storeguard.clock import Clock
from storeguard.config.store import CameraConfig
from storeguard.config.zones import Settings
from storeguard.errors import CheckpointError
from storeguard.events.cursor import Cursor
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.events.journal import ChangeBatch, Journal
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Heartbeat, Verdict

_log = logging.getLogger(__name__)

_CAMERAS_KEY = "judge:cameras"


@dataclass(slots=True)
class _HostedCamera:
    """One camera's rules and what the host keeps with them."""

    camera: CameraConfig
    rules: CameraRules
    open_events: dict[str, OpenEvent] = field(default_factory=dict)
    num_events: int = 0
    last_captured_at: datetime | None = None
    received_s: float = 0.0
    """Monotonic seconds when its last observation came."""
    read_up_to: Cursor | None = None
    """A cursor behind which there is nothing; None after each change."""


class RulesHost:
    """Applies each camera's rules and journals their events together with their checkpoint.

    An observation is acknowledged (its verdict returned) only after its events and the rules'
    state are on disk together: killed at any moment and started again on the same journal, the
    host goes on where it was, and observations sent again change nothing. An answer that is lost
    costs nothing either: the next heartbeat requests the same changes again.

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
        self._cameras: dict[str, _HostedCamera] = {}
        self._unsaved: list[Event] = []
        # After a restart observations may come before the settings do: go on with the last ones.
        remembered = journal.checkpoint(_CAMERAS_KEY)
        if remembered is not None:
            for camera in _Cameras.model_validate_json(remembered).cameras:
                self._host(camera)

    def configure(self, cameras: Iterable[CameraConfig]) -> list[Event]:
        """Host these cameras from now on; those no longer listed have their events closed.

        Returns:
            The events that this closed.
        """
        wanted = {camera.id: camera for camera in cameras}
        closed: list[Event] = []
        for camera_id in [name for name in self._cameras if name not in wanted]:
            closed += self._remove(camera_id)
        for camera in wanted.values():
            closed += self._host(camera)
        self._journal.commit((), {_CAMERAS_KEY: _remember(wanted.values())})
        return closed

    def observe(
        self, observations: Sequence[Observation], heartbeats: Sequence[Heartbeat] = ()
    ) -> list[Verdict]:
        """Step the rules with a batch, in order.

        Args:
            observations: may be empty.
            heartbeats: which cameras request an answer, and from where on they request changes.

        Returns:
            One verdict a camera of the batch or of the heartbeats, as of its last observation.
            Observations of cameras that are not configured (any more) are left out; their
            heartbeats get the changes that are left, such as the ends of their events.

        Raises:
            JournalError: nothing was written or read; send the batch again.
        """
        events: list[Event] = []
        stepped: dict[str, _HostedCamera] = {}
        for observation in observations:
            hosted = self._cameras.get(observation.camera_id)
            if hosted is None:
                continue
            try:
                raised = hosted.rules.step(observation)
            except ValueError:
                _log.exception("an observation was refused")
                continue
            self._note(hosted, raised)
            hosted.last_captured_at = observation.captured_at
            hosted.received_s = self._clock.monotonic()
            events += raised
            stepped[observation.camera_id] = hosted
        self._commit(events, stepped)
        requests = {one.camera_id: one for one in heartbeats}
        for name in requests.keys() & self._cameras.keys():
            if requests[name].is_waiting:
                self._cameras[name].received_s = self._clock.monotonic()
        return [
            self._verdict(name, requests.get(name)) for name in dict.fromkeys([*stepped, *requests])
        ]

    def tick(self) -> list[Event]:
        """Close what cameras that have gone silent left open; call about once a second."""
        events: list[Event] = []
        touched: dict[str, _HostedCamera] = {}
        now_s = self._clock.monotonic()
        for camera_id, hosted in self._cameras.items():
            if hosted.last_captured_at is None or not hosted.open_events:
                continue
            # In capture time, which need not be the wall clock's (a file played fast).
            elapsed = timedelta(seconds=now_s - hosted.received_s)
            closed = hosted.rules.tick(hosted.last_captured_at + elapsed)
            if closed:
                self._note(hosted, closed)
                events += closed
                touched[camera_id] = hosted
        self._commit(events, touched)
        return events

    def _host(self, camera: CameraConfig) -> list[Event]:
        hosted = self._cameras.get(camera.id)
        if hosted is not None:
            if (hosted.camera.zones, hosted.camera.person) == (camera.zones, camera.person):
                return []
            hosted.camera = camera
            events = hosted.rules.reconfigure(camera)
        else:
            hosted = _HostedCamera(camera, CameraRules(self._store_id, camera, self._model))
            self._cameras[camera.id] = hosted
            events = self._resume(hosted)
        self._note(hosted, events)
        self._commit(events, {camera.id: hosted})
        return events

    def _resume(self, hosted: _HostedCamera) -> list[Event]:
        blob = self._journal.checkpoint(_key(hosted.camera.id))
        if blob is None:
            return []
        try:
            events = hosted.rules.restore(blob)
        except CheckpointError:
            _log.exception("camera %r: its rules start without memory", hosted.camera.id)
            return []
        hosted.last_captured_at = hosted.rules.captured_at
        hosted.received_s = self._clock.monotonic()
        for event in hosted.rules.open_events():
            hosted.open_events[event.event_id] = event
        return events

    def _remove(self, camera_id: str) -> list[Event]:
        hosted = self._cameras.pop(camera_id)
        events = hosted.rules.close_all(hosted.last_captured_at or self._clock.now())
        self._commit(events, {camera_id: hosted})
        return events

    def _note(self, hosted: _HostedCamera, events: Sequence[Event]) -> None:
        if events:
            hosted.read_up_to = None
        for event in events:
            if event.version == 1:
                hosted.num_events += 1
            if event.status is EventStatus.OPEN:
                hosted.open_events[event.event_id] = OpenEvent(
                    event.event_id, event.type, event.zone_id, event.person_id
                )
            else:
                hosted.open_events.pop(event.event_id, None)

    def _commit(self, events: Sequence[Event], cameras: dict[str, _HostedCamera]) -> None:
        # The rules have stepped and will not repeat these events: what cannot be written now (a
        # full disk) is kept for the next commit, and there is no answer before that.
        self._unsaved += events
        self._journal.commit(
            self._unsaved,
            {_key(name): hosted.rules.checkpoint() for name, hosted in cameras.items()},
        )
        self._unsaved = []

    def _verdict(self, camera_id: str, heartbeat: Heartbeat | None) -> Verdict:
        changes = None
        if heartbeat is not None and heartbeat.reads_changes:
            changes = self._changes(camera_id, heartbeat.cursor)
        hosted = self._cameras.get(camera_id)
        if hosted is None:
            return Verdict(camera_id=camera_id, changes=changes)
        return Verdict(
            camera_id=camera_id,
            dwell=tuple(hosted.rules.dwell()),
            open_events=tuple(hosted.open_events.values()),
            changes=changes,
            num_events=hosted.num_events,
        )

    def _changes(self, camera_id: str, cursor: Cursor | None) -> ChangeBatch:
        hosted = self._cameras.get(camera_id)
        if hosted is not None and cursor is not None and hosted.read_up_to == cursor:
            return ChangeBatch(cursor.journal_id, (), cursor.seq)
        batch = self._journal.changes_after(cursor, camera_id=camera_id, by_rules=True)
        if hosted is not None and not batch.changes:
            hosted.read_up_to = cursor
        return batch


class _Cameras(Settings):
    cameras: tuple[CameraConfig, ...]


def _remember(cameras: Iterable[CameraConfig]) -> bytes:
    """The settings as JSON, without the addresses, which may hold credentials."""
    bare = tuple(camera.model_copy(update={"source": "(elsewhere)"}) for camera in cameras)
    return _Cameras(cameras=bare).model_dump_json().encode()


def _key(camera_id: str) -> str:
    return f"rules:{camera_id}"
