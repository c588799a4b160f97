"""The rules of one camera: observations in, events out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storeguard.config.store import CameraConfig
from storeguard.config.zones import PersonRule, ZoneConfig
from storeguard.errors import CheckpointError
from storeguard.events.event import Event, EventType, ModelRef, event_id_of
from storeguard.geometry import Line, Zone, Zones
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import Dwell, OpenEvent
from storeguard.rules.rule import build
from storeguard.rules.scene import Scene
from storeguard.rules.shoplifting import ShopliftingState
from storeguard.rules.state import Change, RuleCheckpoint, RuleState, Shape
from storeguard.rules.visit import VisitRuleState

Key = tuple[str | None, str]
"""Zone id (None: the whole picture) and rule type: unique within a camera."""

_MAX_OLD_EPOCHS = 64
"""Ended epochs whose late observations are still recognised and ignored."""

_CLIP_PREDICTION = "shoplifting"
"""The attribute under which other rules' events carry the clip classifier's prediction."""


class _SavedRule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    zone_id: str | None
    type: EventType
    checkpoint: RuleCheckpoint = Field(alias="memory")


class _Checkpoint(BaseModel):
    """Includes zones and rules, so that a restart under others closes the events of removed ones.

    An alias is the key under which format 1 has always saved the field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

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
    attributes: dict[str, dict[str, Any]] = Field(default={}, alias="told")


class CameraRules:
    """The rules of one camera.

    Not thread-safe; the same observations always give the same events. An observation that was
    processed before, and any of an epoch that another has followed, changes nothing. People who
    have left are dropped (cooldowns when they are over, positions at a line after a minute), so
    the state is bounded by the number of people in view.

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
        self._attributes: dict[str, dict[str, Any]] = {}  # by person id, as events carry them
        self._shapes: dict[str, Zone | Line] = {}
        self._zones = Zones(())
        self._build(camera, {})

    def step(self, observation: Observation) -> list[Event]:
        """Process an observation; returns the events that opened, grew or closed.

        Raises:
            ValueError: the observation is another camera's, or was captured before its predecessor
                of the same epoch; nothing has changed then.
        """
        if observation.camera_id != self._camera.id:
            raise ValueError(
                f"expected observations of camera {self._camera.id!r}, "
                f"found one of {observation.camera_id!r}"
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
                    f"{previous_at.isoformat()} or later, "
                    f"found {observation.captured_at.isoformat()}"
                )
            events = self._close_before_set_back(previous_at)
        self._advance(observation)
        scene = Scene(observation, zones=self._zones, previous_at=previous_at, new_epoch=new_epoch)
        # Clip scores are about the past, so they come before the people of this frame.
        events += self._step_scores(scene)
        relabelled = self._update_attributes(observation)
        for key, state in self._states.items():
            for change in state.step(scene):
                events.append(self._event(key, change, scene.at))
        events += self._report_labels(relabelled, reported=events, at=scene.at)
        return events

    def tick(self, now: datetime) -> list[Event]:
        """Close visits that no observation can bridge any more, because the camera is silent.

        A visit closes when the camera's latest observation is older than `now` by more than the
        rule's `max_gap_s` (or `grace_s`, if longer). All observations captured before `now` should
        have been processed by then; one that comes later begins a new visit.
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
        """Close every open event at its last moment inside: the camera was stopped or removed.

        Args:
            at: the events' `updated_at`; `ended_at` stays the last moment inside.
        """
        return [
            self._event(key, change, at)
            for key, state in self._states.items()
            for change in state.close()
        ]

    def reconfigure(self, camera: CameraConfig) -> list[Event]:
        """Continue under other zones and rules, identified by zone id and rule type.

        Unchanged rules keep their state. Where the polygon, line or thresholds changed, people keep
        the start of their visits; visits of people outside the new polygon end as if they had left.
        An open event stays open until its visit ends, with the settings that fired. Events of
        removed rules are closed at their last moment inside.

        Returns:
            The closed events.
        """
        if camera.id != self._camera.id:
            raise ValueError(
                f"expected settings of camera {self._camera.id!r}, found {camera.id!r}"
            )
        removed = self._build(camera, {})
        if self._captured_at is None:
            return []
        return [
            self._event(key, change, self._captured_at)
            for key, state in removed.items()
            for change in state.close()
        ]

    def dwell(self) -> list[Dwell]:
        """Each person's dwell in each zone with an intrusion or loitering rule, for the overlay."""
        longest: dict[tuple[str, str], timedelta] = {}
        for (zone_id, _), state in self._states.items():
            if zone_id is None or not state.shows_dwell:
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
        """Capture time of the latest processed observation; None before the first."""
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
        """All that a restart needs, as JSON, without the camera's source address."""
        saved = _Checkpoint(
            store_id=self._store_id,
            camera_id=self._camera.id,
            zones=self._camera.zones,
            person=self._camera.person,
            epoch=self._epoch,
            seq=self._seq,
            captured_at=self._captured_at,
            old_epochs=tuple(self._old_epochs),
            attributes=self._attributes,
            rules=tuple(
                _SavedRule(
                    zone_id=zone_id, type=EventType(rule_type), checkpoint=state.checkpoint()
                )
                for (zone_id, rule_type), state in self._states.items()
            ),
        )
        return saved.model_dump_json(by_alias=True).encode()

    def restore(self, blob: bytes) -> list[Event]:
        """Continue from a checkpoint, which replaces all state of this object.

        Returns:
            The closed events of rules that the checkpoint has and the camera's settings no longer
            have, as from `reconfigure`; mostly none.

        Raises:
            CheckpointError: it cannot be read, or is of another store or camera; nothing has
                changed then.
        """
        saved = self._read(blob)
        camera = self._camera
        self._states = {}
        self._build(
            camera.model_copy(update={"zones": saved.zones, "person": saved.person}),
            {(rule.zone_id, rule.type.value): rule.checkpoint for rule in saved.rules},
        )
        self._epoch, self._seq = saved.epoch, saved.seq
        self._captured_at = saved.captured_at
        self._old_epochs = list(saved.old_epochs)
        self._attributes = dict(saved.attributes)
        return self.reconfigure(camera)

    def _read(self, blob: bytes) -> _Checkpoint:
        camera = f"camera {self._camera.id!r}"
        try:
            saved = _Checkpoint.model_validate_json(blob)
        except ValidationError as error:
            raise CheckpointError(f"{camera}: cannot read the rules' checkpoint: {error}") from None
        if (saved.store_id, saved.camera_id) != (self._store_id, self._camera.id):
            raise CheckpointError(
                f"{camera}: expected a checkpoint of store {self._store_id!r}, found one of store "
                f"{saved.store_id!r}, camera {saved.camera_id!r}"
            )
        known: set[Key] = {(zone.id, rule.type) for zone in saved.zones for rule in zone.rules}
        if saved.person is not None:
            known.add((None, saved.person.type))
        unknown = {(rule.zone_id, rule.type.value) for rule in saved.rules} - known
        if unknown:
            raise CheckpointError(
                f"{camera}: expected state of the checkpoint's own rules, found unknown rules "
                f"{unknown}"
            )
        return saved

    def _build(
        self, camera: CameraConfig, saved: Mapping[Key, RuleCheckpoint]
    ) -> dict[Key, RuleState]:
        """Build the states of a camera's rules, each from the present state of the same rule.

        Args:
            camera: the new settings.
            saved: what rules without a present state begin with.

        Returns:
            The present states of rules that the camera no longer has.
        """
        shapes = {zone.id: self._shape(zone) for zone in camera.zones}
        states: dict[Key, RuleState] = {}
        for zone, rule in camera.rules():
            zone_id = None if zone is None else zone.id
            key = (zone_id, rule.type)
            shape: Shape = None if zone_id is None else shapes[zone_id]
            state = self._states.pop(key, None)
            if state is None:
                state = build(rule, shape, saved.get(key, RuleCheckpoint()))
            elif not state.is_built_for(rule, shape):
                state = build(rule, shape, state.checkpoint())
            states[key] = state
        removed = self._states
        self._camera, self._states, self._shapes = camera, states, shapes
        self._zones = Zones([shape for shape in shapes.values() if isinstance(shape, Zone)])
        return removed

    def _shape(self, zone: ZoneConfig) -> Zone | Line:
        if zone.line is not None:
            return Line(*zone.line)
        corners = zone.polygon or ()  # the configuration demands one of the two
        present = self._shapes.get(zone.id)
        # Unchanged rules keep their state, and with it this very object.
        if isinstance(present, Zone) and present.corners.tolist() == [list(c) for c in corners]:
            return present
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
        """The new epoch begins before the old one ended: nothing counts across that."""
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
        zone_id, rule_type = key
        return Event(
            event_id=self._event_id(key, change.person_id, change.started_at),
            version=change.version,
            type=EventType(rule_type),
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
            attributes=self._attributes.get(change.person_id or "", {}) | change.attributes,
        )

    def _update_attributes(self, observation: Observation) -> set[str]:
        """Keep the attribute predictions of people who are in view or have a visit.

        Returns:
            The people with another label than before.
        """
        relabelled = set()
        for person_id, predictions in observation.attributes.items():
            now = {prediction.name: prediction.document() for prediction in predictions}
            before = self._attributes.get(person_id, {})
            if _labels(now) != _labels(before):
                relabelled.add(person_id)
            self._attributes[person_id] = now
        kept = {*observation.person_id, *observation.attributes}
        kept |= {visit.person_id for state in self._states.values() for visit in state.ongoing()}
        self._attributes = {name: now for name, now in self._attributes.items() if name in kept}
        return relabelled

    def _report_labels(
        self, person_ids: set[str], *, reported: Sequence[Event], at: datetime
    ) -> list[Event]:
        """Update these people's open events, except those that are in `reported` already."""
        if not person_ids:
            return []
        done = {event.event_id for event in reported}
        events = []
        for key, state in self._states.items():
            if not isinstance(state, VisitRuleState):
                continue
            for visit in state.ongoing():
                event_id = self._event_id(key, visit.person_id or None, visit.started_at)
                if visit.version and visit.person_id in person_ids and event_id not in done:
                    events.append(self._event(key, state.report(visit, at), at))
        return events

    def _step_scores(self, scene: Scene) -> list[Event]:
        events = []
        for key, state in self._states.items():
            if isinstance(state, ShopliftingState):
                events += [
                    self._event(key, change, scene.at) for change in state.step_scores(scene)
                ]
                self._add_clip_predictions(key[0], state)
        return events

    def _add_clip_predictions(self, zone_id: str | None, state: ShopliftingState) -> None:
        """Add the clip classifier's predictions to the events during which people are classified.

        They stay there until the event ends, even when the classifier's own visit ends sooner.
        """
        for rule_type in state.settings.during:
            other = self._states.get((zone_id, rule_type))
            for visit in () if other is None else other.ongoing():
                prediction = state.prediction(visit.person_id) if visit.version else None
                known = visit.attributes.get(_CLIP_PREDICTION, {"score": 0.0})
                if prediction is not None and prediction.score >= known["score"]:
                    visit.attributes = visit.attributes | {_CLIP_PREDICTION: prediction.document()}


def _labels(attributes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: document["label"] for name, document in attributes.items()}
