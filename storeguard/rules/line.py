"""Line crossing: a person steps over a line."""

from __future__ import annotations

from datetime import datetime, timedelta

from storeguard.config.zones import Anchor, Direction, LineCrossingRule
from storeguard.events.event import EventStatus
from storeguard.geometry import Line, Point
from storeguard.rules.cooldown import Cooldown
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import (
    Change,
    LastPosition,
    RuleCheckpoint,
    RuleState,
    Shape,
    Visit,
)

_FORGET_AFTER = timedelta(seconds=60)
"""A person's last position is dropped when only others have been seen for this long."""

_MIN_COOLDOWN_S = 0.001
"""Two crossings within one millisecond would have the same event id."""


class LineCrossingState(RuleState):
    """Raises an event, opened and closed at once, for each crossing of the line.

    A step is the straight line between the points where a person was seen last and is seen now,
    however long that took, but never from one epoch to the next. The event's time is interpolated
    along the step; its attribute `direction` is `in` or `out`. After an event the person's next
    crossing counts only `cooldown_s` later, in either direction. Last positions of the checkpoint
    count also for a line that has moved.

    Args:
        settings: the rule.
        shape: the line.
        checkpoint: of the same rule's state before.

    Raises:
        TypeError: the shape is no line.
    """

    settings: LineCrossingRule

    def __init__(
        self, settings: LineCrossingRule, shape: Shape, checkpoint: RuleCheckpoint
    ) -> None:
        if not isinstance(shape, Line):
            raise TypeError(f"{type(settings).__name__}: expected a line, got {shape}")
        super().__init__(settings, shape)
        self.line = shape
        self._cooldown = Cooldown()
        self._cooldown.restore(checkpoint.cooldowns)
        self._positions = {position.person_id: position for position in checkpoint.places}

    def step(self, scene: Scene) -> list[Change]:
        """Process an observation."""
        if scene.new_epoch:
            self._positions.clear()
        anchors = scene.head if self.settings.anchor is Anchor.HEAD else scene.foot
        changes = []
        for sighting, (x, y) in zip(scene.sightings, anchors.tolist(), strict=True):
            if sighting.score < self.settings.min_score:
                continue
            # Removed and added again, the positions stay ordered by time.
            before = self._positions.pop(sighting.person_id, None)
            self._positions[sighting.person_id] = LastPosition.model_construct(
                person_id=sighting.person_id, x=x, y=y, at=scene.at
            )
            if before is not None:
                changes += self._crossings(sighting, before, (x, y), scene.at)
        self._forget_old(scene.at)
        return changes

    def _crossings(
        self, sighting: Sighting, before: LastPosition, after: Point, at: datetime
    ) -> list[Change]:
        crossing = self.line.crossing((before.x, before.y), after)
        if crossing is None:
            return []
        direction = Direction.IN if crossing.rightward else Direction.OUT
        if self.settings.direction not in {direction, Direction.BOTH}:
            return []
        crossed_at = before.at + (at - before.at) * crossing.fraction
        cooldown_s = max(self.settings.cooldown_s, _MIN_COOLDOWN_S)
        if not self._cooldown.is_over(sighting.person_id, crossed_at, cooldown_s=cooldown_s):
            return []
        self._cooldown.start(sighting.person_id, crossed_at)
        return [self._change(sighting, direction, crossed_at)]

    def _change(self, sighting: Sighting, direction: Direction, crossed_at: datetime) -> Change:
        return Change(
            status=EventStatus.CLOSED,
            version=1,
            person_id=sighting.person_id,
            started_at=crossed_at,
            ended_at=crossed_at,
            dwell_s=None,
            score=sighting.score,
            box_xyxy=sighting.box_xyxy,
            rule=self._document,
            attributes={"direction": direction.value},
        )

    def _forget_old(self, at: datetime) -> None:
        # A crossing may lie as far back as the oldest position, where its step begins.
        kept_s = self.settings.cooldown_s + _FORGET_AFTER.total_seconds()
        self._cooldown.forget(at, cooldown_s=kept_s)
        while self._positions:
            oldest = next(iter(self._positions.values()))
            if at - oldest.at <= _FORGET_AFTER:
                return
            del self._positions[oldest.person_id]

    def expire(self, silence: timedelta) -> list[Change]:
        """Silence of the camera ends nothing: a crossing's event closes at once."""
        del silence
        return []

    def close(self) -> list[Change]:
        """No event is ever open; last positions are dropped."""
        self._positions.clear()
        return []

    def ongoing(self) -> tuple[Visit, ...]:
        """None: a line has no visits."""
        return ()

    def forget(self) -> None:
        """Drop what counts from past capture times: the camera's clock was set back."""
        self._cooldown.clear()
        self._positions.clear()

    def checkpoint(self) -> RuleCheckpoint:
        """What has to survive a restart, as copies."""
        return RuleCheckpoint(
            cooldowns=tuple(self._cooldown.checkpoint()), places=tuple(self._positions.values())
        )
