"""Line crossing: a person steps over a line and stays on the other side."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from storeguard.config.zones import MAX_STEP_OVER_S, Anchor, Direction, LineCrossingRule
from storeguard.events.event import EventStatus
from storeguard.geometry import Line
from storeguard.rules.cooldown import Cooldown
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.state import (
    Change,
    LinePosition,
    RuleCheckpoint,
    RuleState,
    Shape,
    Side,
    Visit,
)

_FORGET_AFTER = timedelta(seconds=60)
"""A person's last position is dropped when only others have been seen for this long."""

_MAX_STEP_OVER = timedelta(seconds=MAX_STEP_OVER_S)

_MIN_SPACING = timedelta(milliseconds=1)
"""Two crossings within one millisecond would have the same event id."""

_ROUNDING = 1e-6
"""Boxes are float32: an offset this little below the margin counts as reaching it."""


class LineCrossingState(RuleState):
    """Raises an event, opened and closed at once, for each completed crossing of the line.

    A step is the straight line between the points where a person was seen last and is seen now,
    however long that took, but never from one epoch to the next. A crossing is complete when the
    anchor has been clear of the line on the far side (by `margin`) for `settle_s`; a person who is
    not seen any more is taken to be where last seen. The event's time is that of the step over the
    line, interpolated, or when a person who stood on the line left it; its attribute `direction` is
    `in` or `out`. A person who is first seen on
    the line has no side until clear of it, and one who walks round an end of the line changes
    sides without an event.

    After an event the person's next one in the same direction comes `cooldown_s` later at the
    earliest, if the person is still on that side then. So events of one person that steps to and
    fro are in and out by turns, and none is lost.

    Last positions of the checkpoint count also for a line that has moved, and for the side that
    they are on then.

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
        self._settle = timedelta(seconds=settings.settle_s)
        self._cooldown = Cooldown()
        self._cooldown.restore(checkpoint.cooldowns)
        same_line = checkpoint.line == (shape.first, shape.second)
        self._positions = {
            position.person_id: replace(position) if same_line else self._placed(position)
            for position in checkpoint.places
        }

    def step(self, scene: Scene) -> list[Change]:
        """Process an observation."""
        changes = []
        if scene.new_epoch:
            changes = self._report_all()
            self._positions.clear()
        anchors = scene.head if self.settings.anchor is Anchor.HEAD else scene.foot
        offsets = self.line.offset(anchors, scene.xyxy)
        for sighting, (x, y), offset in zip(
            scene.sightings, anchors.tolist(), offsets.tolist(), strict=True
        ):
            if sighting.score >= self.settings.min_score:
                self._move(sighting, x, y, offset, scene.at)
        for position in self._positions.values():
            self._settle_down(position, scene.at)
            changes += self._due(position, scene.at)
        return changes + self._forget_old(scene.at)

    def _placed(self, position: LinePosition) -> LinePosition:
        """A position whose side is not known for this line."""
        (offset,) = self.line.side((position.x, position.y)).tolist()
        side = Side.RIGHT if offset >= 0 else Side.LEFT
        return replace(
            position,
            side=side,
            counted=side,
            crossed_at=None,
            stepped_at=None,
            clear_since=None,
        )

    def _move(self, sighting: Sighting, x: float, y: float, offset: float, at: datetime) -> None:
        # Removed and added again, the positions stay ordered by time.
        position = self._positions.pop(sighting.person_id, None)
        if position is None:
            position = LinePosition(person_id=sighting.person_id, x=x, y=y, at=at)
        self._positions[sighting.person_id] = position
        before, after = (position.x, position.y), (x, y)
        was, now = (self.line.side(np.array([before, after])) >= 0).tolist()
        if was != now:
            crossing = self.line.crossing(before, after)
            position.stepped_at = (
                None if crossing is None else position.at + (at - position.at) * crossing.fraction
            )
        if position.stepped_at is not None and position.clear_since is None:
            position.stepped_at = max(position.stepped_at, position.at - _MAX_STEP_OVER)
        position.x, position.y, position.at = x, y, at
        position.score, position.box_xyxy = sighting.score, sighting.box_xyxy
        clear = abs(offset) >= self.settings.margin - _ROUNDING
        side = Side.RIGHT if now else Side.LEFT
        if not clear or side is position.side:
            position.clear_since = None
        elif position.side is None:
            position.side = position.counted = side
        elif position.clear_since is None:
            position.clear_since = at

    def _settle_down(self, position: LinePosition, at: datetime) -> None:
        """Complete the person's crossing if it is due."""
        if position.clear_since is None or at - position.clear_since < self._settle:
            return
        position.side = Side.LEFT if position.side is Side.RIGHT else Side.RIGHT
        position.clear_since = None
        position.crossed_at = position.stepped_at
        if position.stepped_at is None or not self._is_counted(position.side):
            position.counted = position.side

    def _is_counted(self, side: Side) -> bool:
        return self.settings.direction in {_direction_to(side), Direction.BOTH}

    def _due(self, position: LinePosition, at: datetime) -> list[Change]:
        """The event of a completed crossing that has none, once its cooldown is over."""
        side = position.side
        if side is None or side is position.counted:
            return []
        key = f"{_direction_to(side).value}:{position.person_id}"
        if not self._cooldown.is_over(key, at, cooldown_s=self.settings.cooldown_s):
            return []
        change = self._report(position, side)
        self._cooldown.start(key, change.started_at)
        return [change]

    def _report(self, position: LinePosition, side: Side) -> Change:
        crossed_at = position.crossed_at or position.at
        if position.reported_at is not None:
            crossed_at = max(crossed_at, position.reported_at + _MIN_SPACING)
        position.counted, position.crossed_at = side, None
        position.reported_at = crossed_at
        return Change(
            status=EventStatus.CLOSED,
            version=1,
            person_id=position.person_id,
            started_at=crossed_at,
            ended_at=crossed_at,
            dwell_s=None,
            score=position.score,
            box_xyxy=position.box_xyxy,
            rule=self._document,
            attributes={"direction": _direction_to(side).value},
        )

    def _report_all(self) -> list[Change]:
        """The completed crossings that no cooldown can hold back any longer."""
        return [
            self._report(position, position.side)
            for position in self._positions.values()
            if position.side is not None and position.side is not position.counted
        ]

    def _forget_old(self, at: datetime) -> list[Change]:
        # An event may lie as far back as the oldest position, where its step begins.
        kept_s = self.settings.cooldown_s + _FORGET_AFTER.total_seconds()
        self._cooldown.forget(at, cooldown_s=kept_s)
        changes = []
        while self._positions:
            oldest = next(iter(self._positions.values()))
            if at - oldest.at <= _FORGET_AFTER:
                break
            if oldest.side is not None and oldest.side is not oldest.counted:
                changes.append(self._report(oldest, oldest.side))
            del self._positions[oldest.person_id]
        return changes

    def expire(self, silence: timedelta) -> list[Change]:
        """Silence of the camera ends nothing: a crossing's event closes at once."""
        del silence
        return []

    def close(self) -> list[Change]:
        """Report the completed crossings that have no event yet, and drop all positions."""
        changes = self._report_all()
        self._positions.clear()
        return changes

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
            cooldowns=tuple(self._cooldown.checkpoint()),
            places=tuple(replace(position) for position in self._positions.values()),
            line=(self.line.first, self.line.second),
        )


def _direction_to(side: Side) -> Direction:
    return Direction.IN if side is Side.RIGHT else Direction.OUT
