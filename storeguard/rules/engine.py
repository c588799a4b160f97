"""The rules of one camera: observations in, events out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from storeguard.config.store import CameraConfig
from storeguard.config.zones import PersonRule, ZoneConfig
from storeguard.errors import CheckpointError
from storeguard.events.event import Event, EventType, ModelRef, event_id_of
from storeguard.geometry import Point, Zone, Zones
from storeguard.rules.intrusion import IntrusionState
from storeguard.rules.loitering import LoiteringState
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import Dwell, OpenEvent
from storeguard.rules.scene import Scene
from storeguard.rules.shoplifting import ShopliftingState
from storeguard.rules.states import Key, RuleState, begin, key_of, reconfigure, rules_of, shape_of
from storeguard.rules.visit import Change, Memory, VisitRuleState

_MAX_OLD_EPOCHS = 64
"""Ended epochs whose late observations are still known for what they are."""

_JUDGEMENT = "shoplifting"
"""The attribute under which other rules' events carry the clip classifier's judgement."""


class _SavedRule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    zone_id: str | None
    type: EventType
    memory: Memory


class _Checkpoint(BaseModel):
    """Zones and rules are saved along, so that a restart under others closes what is no more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    store_id: str
    camera_id: str
    zones: tuple[ZoneConfig, ...]
    person: PersonRule | None
    epoch: str | None
    seq: int
    captured_at: datetime | None
    old_epochs: tuple[str, ...]
    rules: tuple[_SavedRule, ...]
    told: dict[str, dict[str, Any]] = {}


class CameraRules:
    """All rules of one camera at work.

    Not thread-safe; the same observations always give the same events. An observation that was
    taken in before, and any of an epoch that another has followed, changes nothing. People who
    have gone are forgotten (their cooldowns once over, their place at a line after a minute), so
    the state is bounded by who is in view, not by the day.

    Args:
        store_id: for the events.
        camera: its zones and rules.
        model: the detector, for the events; None if it is not known.
    """

    def __init__(self, store_id: str, camera: CameraConfig, model: ModelRef | None = None) -> None:
        self._store_id = store_id
        self._camera = camera
        self._model = model
        self._epoch: str | None = None
        self._seq = -1
        self._captured_at: datetime | None = None
        self._old_epochs: list[str] = []
        self._states: dict[Key, RuleState] = {}
        self._told: dict[str, dict[str, Any]] = {}  # person id to what events say of them
        self._areas: dict[str, Zone] = {}
        self._zones = Zones(())
        self._equip(camera)

    def step(self, observation: Observation) -> list[Event]:
        """Take in what the camera saw; returns the events that opened, grew or closed.

        Raises:
            ValueError: it is another camera's, or captured before its predecessor of the same
                epoch; nothing has changed then.
        """
        if observation.camera_id != self._camera.id:
            raise ValueError(
                f"expected observations of camera {self._camera.id!r}, "
                f"got one of {observation.camera_id!r}"
            )
        if self._is_replay(observation):
            return []
        new_epoch = observation.epoch != self._epoch
        previous_at = self._captured_at
        events: list[Event] = []
        if previous_at is not None and observation.captured_at < previous_at:
            if not new_epoch:
                raise ValueError(
                    f"camera {self._camera.id!r}: expected seq {observation.seq} to be captured at "
                    f"{previous_at.isoformat()} or later, got {observation.captured_at.isoformat()}"
                )
            events = self._close_before_set_back(previous_at)
        self._advance(observation)
        scene = Scene(observation, zones=self._zones, previous_at=previous_at, new_epoch=new_epoch)
        events += self._hear(scene)
        retold = self._tell(observation)
        for key, state in self._states.items():
            for change in state.step(scene):
                events.append(self._event(key, change, scene.at))
        events += self._update(retold, events, scene.at)
        return events

    def tick(self, now: datetime) -> list[Event]:
        """Time passes without observations: close visits that none can bridge any more.

        A visit closes when the camera has been silent since before `now` by more than the rule's
        `max_gap_s` (or `grace_s`, if longer). Give a `now` by which all observations captured
        before it would have come. Should one come later all the same, it begins a new visit.
        """
        if self._captured_at is None or now <= self._captured_at:
            return []
        silence = now - self._captured_at
        return [
            self._event(key, change, now)
            for key, state in self._states.items()
            for change in state.expire(silence)
        ]

    def close_all(self, at: datetime) -> list[Event]:
        """The camera was stopped or removed: close every open event where it was last seen.

        Args:
            at: becomes the events' `updated_at`; `ended_at` stays the last time inside.
        """
        return [
            self._event(key, change, at)
            for key, state in self._states.items()
            for change in state.close()
        ]

    def reconfigure(self, camera: CameraConfig) -> list[Event]:
        """Go on under other zones and rules, told apart by zone id and rule type.

        Unchanged rules go on untouched. Where the polygon, line or thresholds changed, people keep
        the start of their visits; those outside the new polygon end as if they had left. An event
        once open stays so until its visit ends, with the settings that fired. Events of rules that
        are gone are closed where they were last seen.

        Returns:
            The closed events.
        """
        if camera.id != self._camera.id:
            raise ValueError(f"expected settings of camera {self._camera.id!r}, got {camera.id!r}")
        gone = self._equip(camera)
        if self._captured_at is None:
            return []
        return [
            self._event(key, change, self._captured_at)
            for key, state in gone.items()
            for change in state.close()
        ]

    def dwell(self) -> list[Dwell]:
        """Everybody's dwell in every zone with an intrusion or loitering rule, for display."""
        longest: dict[tuple[str, str], timedelta] = {}
        for (zone_id, _), state in self._states.items():
            if zone_id is None or not isinstance(state, IntrusionState | LoiteringState):
                continue
            for visit in state.ongoing():
                key = (visit.person_id, zone_id)
                longest[key] = max(visit.dwell, longest.get(key, visit.dwell))
        return [
            Dwell(person_id=person_id, zone_id=zone_id, dwell_s=dwell.total_seconds())
            for (person_id, zone_id), dwell in longest.items()
        ]

    @property
    def captured_at(self) -> datetime | None:
        """Capture time of the latest observation taken in; None before the first."""
        return self._captured_at

    def open_events(self) -> list[OpenEvent]:
        """The events that have opened and not closed, in the order of the rules."""
        return [
            OpenEvent(
                event_id=self._event_id(key, visit.person_id or None, visit.started_at),
                type=EventType(key[1]),
                zone_id=key[0],
                person_id=visit.person_id or None,
            )
            for key, state in self._states.items()
            for visit in state.ongoing()
            if visit.version
        ]

    def checkpoint(self) -> bytes:
        """All that a restart has to know, as JSON. It holds no source address."""
        saved = _Checkpoint(
            store_id=self._store_id,
            camera_id=self._camera.id,
            zones=self._camera.zones,
            person=self._camera.person,
            epoch=self._epoch,
            seq=self._seq,
            captured_at=self._captured_at,
            old_epochs=tuple(self._old_epochs),
            told=self._told,
            rules=tuple(
                _SavedRule(zone_id=zone_id, type=EventType(kind), memory=state.checkpoint())
                for (zone_id, kind), state in self._states.items()
            ),
        )
        return saved.model_dump_json().encode()

    def restore(self, blob: bytes) -> list[Event]:
        """Go on from a checkpoint; what this object knew before is gone.

        Returns:
            Events to be closed because the checkpoint's camera had rules that are gone now, as
            from `reconfigure`; mostly none.

        Raises:
            CheckpointError: it cannot be read, or is of another store or camera; nothing has
                changed then.
        """
        saved = self._read(blob)
        camera = self._camera
        self._states = {}
        self._equip(camera.model_copy(update={"zones": saved.zones, "person": saved.person}))
        for rule in saved.rules:
            self._states[rule.zone_id, rule.type.value].restore(rule.memory)
        self._epoch, self._seq = saved.epoch, saved.seq
        self._captured_at = saved.captured_at
        self._old_epochs = list(saved.old_epochs)
        self._told = dict(saved.told)
        return self.reconfigure(camera)

    def _read(self, blob: bytes) -> _Checkpoint:
        whose = f"camera {self._camera.id!r}"
        try:
            saved = _Checkpoint.model_validate_json(blob)
        except ValidationError as error:
            raise CheckpointError(f"{whose}: cannot read the rules' checkpoint: {error}") from None
        if (saved.store_id, saved.camera_id) != (self._store_id, self._camera.id):
            raise CheckpointError(
                f"{whose}: expected a checkpoint of store {self._store_id!r}, got one of store "
                f"{saved.store_id!r}, camera {saved.camera_id!r}"
            )
        known: set[Key] = {(zone.id, rule.type) for zone in saved.zones for rule in zone.rules}
        if saved.person is not None:
            known.add((None, saved.person.type))
        strange = {(rule.zone_id, rule.type.value) for rule in saved.rules} - known
        if strange:
            raise CheckpointError(f"{whose}: the checkpoint remembers unknown rules {strange}")
        return saved

    def _equip(self, camera: CameraConfig) -> dict[Key, RuleState]:
        """Put a camera's rules to work, going on with what is at work already.

        Returns:
            What was at work and is no longer wanted.
        """
        before = {key_of(zone, rule): (zone, rule) for zone, rule in rules_of(self._camera)}
        areas = {
            zone.id: self._area(zone.id, zone.polygon)
            for zone in camera.zones
            if zone.polygon is not None
        }
        states: dict[Key, RuleState] = {}
        for zone, rule in rules_of(camera):
            key = key_of(zone, rule)
            area = None if zone is None else areas.get(zone.id)
            state = self._states.pop(key, None)
            if state is None:
                state = begin(rule, zone, area)
            elif shape_of(before[key][0]) != shape_of(zone) or before[key][1] != rule:
                reconfigure(state, rule, zone, area)
            states[key] = state
        gone = self._states
        self._camera, self._states = camera, states
        self._areas, self._zones = areas, Zones(tuple(areas.values()))
        return gone

    def _area(self, zone_id: str, corners: Sequence[Point]) -> Zone:
        """The zone there is, if it has not changed: untouched rules hold on to it."""
        known = self._areas.get(zone_id)
        if known is not None and known.corners.tolist() == [list(corner) for corner in corners]:
            return known
        return Zone(corners)

    def _is_replay(self, observation: Observation) -> bool:
        if observation.epoch == self._epoch:
            return observation.seq <= self._seq
        return observation.epoch in self._old_epochs

    def _advance(self, observation: Observation) -> None:
        if observation.epoch != self._epoch:
            if self._epoch is not None:
                self._old_epochs = [*self._old_epochs, self._epoch][-_MAX_OLD_EPOCHS:]
            self._epoch = observation.epoch
        self._seq = observation.seq
        self._captured_at = observation.captured_at

    def _close_before_set_back(self, previous_at: datetime) -> list[Event]:
        """A new epoch begins in the past of the old one: nothing can be counted across that."""
        events = self.close_all(previous_at)
        for state in self._states.values():
            state.forget()
        return events

    def _event_id(self, key: Key, person_id: str | None, started_at: datetime) -> str:
        return event_id_of(
            store_id=self._store_id,
            camera_id=self._camera.id,
            zone_id=key[0],
            person_id=person_id,
            rule=key[1],
            started_at=started_at,
        )

    def _event(self, key: Key, change: Change, at: datetime) -> Event:
        zone_id, kind = key
        return Event(
            event_id=self._event_id(key, change.person_id, change.started_at),
            version=change.version,
            type=EventType(kind),
            status=change.status,
            store_id=self._store_id,
            camera_id=self._camera.id,
            zone_id=zone_id,
            person_id=change.person_id,
            started_at=change.started_at,
            ended_at=change.ended_at,
            updated_at=at,
            dwell_s=change.dwell_s,
            score=change.score,
            box_xyxy=change.box_xyxy,
            model=change.model or self._model,
            rule=change.rule,
            attributes=self._told.get(change.person_id or "", {}) | change.attributes,
        )

    def _tell(self, observation: Observation) -> set[str]:
        """Keep what attribute classifiers say of people who are there or have a stay going on.

        Returns:
            Those of whom another label is told than before.
        """
        retold = set()
        for person_id, attributes in observation.attributes.items():
            now = {one.name: one.document() for one in attributes}
            before = self._told.get(person_id, {})
            if _labels(now) != _labels(before):
                retold.add(person_id)
            self._told[person_id] = now
        stay = {*observation.person_id, *observation.attributes}
        stay |= {visit.person_id for state in self._states.values() for visit in state.ongoing()}
        self._told = {name: told for name, told in self._told.items() if name in stay}
        return retold

    def _update(self, retold: set[str], said: list[Event], at: datetime) -> list[Event]:
        """Open events of people of whom something new is told, but for those just `said`."""
        if not retold:
            return []
        done = {event.event_id for event in said}
        events = []
        for key, state in self._states.items():
            if not isinstance(state, VisitRuleState):
                continue
            for visit in state.ongoing():
                event_id = self._event_id(key, visit.person_id or None, visit.started_at)
                if visit.version and visit.person_id in retold and event_id not in done:
                    events.append(self._event(key, state.report(visit, at), at))
        return events

    def _hear(self, scene: Scene) -> list[Event]:
        """Take in the clip classifier's scores, ahead of who is where: they are about the past."""
        events = []
        for key, state in self._states.items():
            if isinstance(state, ShopliftingState):
                events += [self._event(key, change, scene.at) for change in state.hear(scene)]
                self._note_judgements(key[0], state)
        return events

    def _note_judgements(self, zone_id: str | None, state: ShopliftingState) -> None:
        """Put what the clip classifier made of people on the events of theirs that it went by.

        It stays there until the event ends, whatever the classifier's own rule counts as a stay.
        """
        for kind in state.settings.during:
            beside = self._states.get((zone_id, kind))
            for visit in () if beside is None else beside.ongoing():
                judged = state.judgement(visit.person_id) if visit.version else None
                known = visit.attributes.get(_JUDGEMENT, {"score": 0.0})
                if judged is not None and judged.score >= known["score"]:
                    visit.attributes = visit.attributes | {_JUDGEMENT: judged.document()}


def _labels(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: document["label"] for name, document in told.items()}
