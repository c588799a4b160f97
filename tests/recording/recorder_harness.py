"""One camera's recorder at work: what it is told, what it leaves, without Ray or a detector."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av

from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.recording.camera_recorder import CameraRecorder
from storeguard.recording.spool import ClipItem, Spool
from storeguard.rules.ongoing import OpenEvent
from storeguard.video.packets import EncodedPacket
from tests.camera.held_clock import PATIENCE_S

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
ZONE = {
    "id": "seat",
    "polygon": [[0, 0], [1, 0], [1, 1]],
    "rules": [
        {"type": "intrusion", "pre_roll_s": 2, "post_roll_s": 3},
        {"type": "loitering", "record": False},
    ],
}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(name: str = "e1", *, start_s: float, end_s: float | None = None, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": name,
        "version": 1 if end_s is None else 2,
        "type": EventType.INTRUSION,
        "status": EventStatus.OPEN if end_s is None else EventStatus.CLOSED,
        "store_id": "shop",
        "camera_id": "till",
        "zone_id": "seat",
        "person_id": f"person-{name}",
        "started_at": at(start_s),
        "ended_at": None if end_s is None else at(end_s),
        "updated_at": at(start_s if end_s is None else end_s),
        "rule": {"type": "intrusion", "record": True, "pre_roll_s": 2.0, "post_roll_s": 3.0},
        **more,
    }
    return Event(**fields)


def wait_until(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (outcome := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return outcome


@dataclass
class Till:
    """A camera whose video and verdicts come when the test says so."""

    recorder: CameraRecorder
    spool: Spool
    packets: list[EncodedPacket]
    fed: int = 0
    spoken: bool = False
    open: dict[str, Event] = field(default_factory=dict)

    def play(self, to_s: float) -> None:
        """Let the camera send until a moment."""
        while self.fed < len(self.packets) and self.packets[self.fed].captured_at < at(to_s):
            self.recorder.on_packet(self.packets[self.fed])
            self.fed += 1
            if self.fed % 50 == 0:  # ten seconds of video at a time, or the ring would move on
                wait_until(self.is_written)

    def is_written(self) -> bool:
        """Whether the recordings that go on hold all that the camera sent."""
        inner = self.recorder._recordings._recorder
        return all(inner._cursors.get(name, self.fed) >= self.fed for name in inner.active())

    def say(self, *events: Event) -> None:
        """Let the rules say what changed, and have the recorder act on it."""
        self.spoken = True
        for one in events:
            self.open[one.event_id] = one
            if one.status is EventStatus.CLOSED:
                del self.open[one.event_id]
        self.settle(*events)

    @property
    def opened(self) -> tuple[OpenEvent, ...]:
        return tuple(
            OpenEvent(one.event_id, one.type, one.zone_id, one.person_id)
            for one in self.open.values()
        )

    def settle(self, *events: Event) -> None:
        """One step of the recorder's own thread, now."""
        self.recorder._step(list(events), self.opened if self.spoken else None)

    def manifests(self, kind: type) -> list[Any]:
        return [item.manifest for item in self.spool.items() if isinstance(item.manifest, kind)]

    def clips(self, count: int = 1) -> list[ClipItem]:
        """The clips that are queued for upload, once there are so many."""

        def found() -> list[ClipItem] | None:
            self.settle()
            clips = [one for one in self.manifests(ClipItem) if one.upload]
            return clips if len(clips) >= count else None

        clips = wait_until(found)
        assert len(clips) == count
        return clips

    def idle(self) -> None:
        wait_until(lambda: self.settle() or not self.recorder.state().recording)
        self.settle()


MakeTill = Callable[..., Till]


def start(**more: Any) -> RecordCommand:
    return RecordCommand.model_validate({"command": "start-recording", **more})


STOP = RecordCommand(command="stop-recording")


def decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
