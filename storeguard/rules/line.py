"""Line crossing: somebody steps over a line."""

from __future__ import annotations

from datetime import datetime, timedelta

from storeguard.config.zones import Anchor, Direction, LineCrossingRule
from storeguard.events.event import EventStatus
from storeguard.geometry import Line, Point
from storeguard.rules.cooldown import Cooldown
from storeguard.rules.scene import Scene, Sighting
from storeguard.rules.visit import Change, LastPlace, Memory, Visit

_FORGET_AFTER = timedelta(seconds=60)
"""Where somebody was is forgotten when others, but not they, have been seen for this long."""

_MIN_COOLDOWN_S = 0.001
"""Event ids tell crossings apart by the millisecond."""


class LineCrossingState:
    """Raises an event, opened and closed at once, for each crossing of the line.

    A crossing is the straight step between the points where a person was seen last and is seen
    now, however long that took, but never from one life of the tracker to the next. The event's
    time is interpolated along the step; its attribute `direction` is `in` or `out`. After an event
    the person's next crossing counts only `cooldown_s` later, in either direction.
    """

    def __init__(self, settings: LineCrossingRule, line: Line) -> None:
        self._cooldown = Cooldown()
        self._places: dict[str, LastPlace] = {}
        self.reconfigure(settings, line)

    def reconfigure(self, settings: LineCrossingRule, line: Line) -> None:
        """Go on under other settings or with the line elsewhere; last places are kept."""
        self.settings = settings
        self.line = line
        self._dump = settings.model_dump(mode="json")

    def step(self, scene: Scene) -> list[Change]:
        """Take in an observation."""
        if scene.new_epoch:
            self._places.clear()
        anchors = scene.head if self.settings.anchor is Anchor.HEAD else scene.foot
        changes = []
        for sighting, (x, y) in zip(scene.sightings, anchors.tolist(), strict=True):
            if sighting.score < self.settings.min_score:
                continue
            # Taken out and put in again, the places stay in the order of their time.
            before = self._places.pop(sighting.person_id, None)
            self._places[sighting.person_id] = LastPlace.model_construct(
                person_id=sighting.person_id, x=x, y=y, at=scene.at
            )
            if before is not None:
                changes += self._judge(sighting, before, (x, y), scene.at)
        self._forget_gone(scene.at)
        return changes

    def _judge(
        self, sighting: Sighting, before: LastPlace, after: Point, at: datetime
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
            rule=self._dump,
            attributes={"direction": direction.value},
        )

    def _forget_gone(self, at: datetime) -> None:
        # A step may still begin, and so cross, as long ago as the oldest place.
        kept_s = self.settings.cooldown_s + _FORGET_AFTER.total_seconds()
        self._cooldown.forget(at, cooldown_s=kept_s)
        while self._places:
            oldest = next(iter(self._places.values()))
            if at - oldest.at <= _FORGET_AFTER:
                return
            del self._places[oldest.person_id]

    def expire(self, silence: timedelta) -> list[Change]:
        """Silence of the camera ends nothing: crossings are over at once."""
        del silence
        return []

    def close(self) -> list[Change]:
        """Nothing is ever open; where people were is forgotten."""
        self._places.clear()
        return []

    def ongoing(self) -> tuple[Visit, ...]:
        """There are no visits to a line."""
        return ()

    def forget(self) -> None:
        """Drop what counts from past capture times: the camera's clock was set back."""
        self._cooldown.clear()
        self._places.clear()

    def checkpoint(self) -> Memory:
        """What has to survive a restart."""
        return Memory(
            cooldowns=tuple(self._cooldown.checkpoint()), places=tuple(self._places.values())
        )

    def restore(self, memory: Memory) -> None:
        """Take the place of what is there."""
        self._cooldown.restore(memory.cooldowns)
        self._places = {place.person_id: place for place in memory.places}
