"""What cameras and the rules exchange beside observations."""

from __future__ import annotations

from dataclasses import dataclass

from storeguard.events.cursor import Cursor
from storeguard.events.journal import ChangeBatch
from storeguard.rules.ongoing import Dwell, OpenEvent


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A camera's request for the rules' answer, sent with each batch and once a second without.

    Attributes:
        camera_id: the camera.
        reads_changes: whether it records events, so that it requests their changes.
        cursor: the last change of the event journal that its recorder has dealt with; None before
            the first.
        is_waiting: its next frame waits for the detector, however long that takes: the camera's
            silence is not the end of any visit.
    """

    camera_id: str
    reads_changes: bool = False
    cursor: Cursor | None = None
    is_waiting: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of one camera's rules after its latest frame.

    Attributes:
        changes: events that opened, grew or closed since the heartbeat's cursor; None if the camera
            did not request them.
        num_events: events opened on this camera since the rules began.
    """

    camera_id: str
    dwell: tuple[Dwell, ...] = ()
    open_events: tuple[OpenEvent, ...] = ()
    changes: ChangeBatch | None = None
    num_events: int = 0
