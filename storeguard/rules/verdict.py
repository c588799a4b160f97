"""What the rules answer a camera after judging its frames."""

from __future__ import annotations

from dataclasses import dataclass

from storeguard.events.event import Event
from storeguard.rules.ongoing import Dwell, OpenEvent


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one camera's rules after its latest frame.

    Attributes:
        changes: events that opened, grew or closed since the verdict before.
        num_events: events opened on this camera since the rules began.
    """

    camera_id: str
    dwell: tuple[Dwell, ...] = ()
    open_events: tuple[OpenEvent, ...] = ()
    changes: tuple[Event, ...] = ()
    num_events: int = 0
