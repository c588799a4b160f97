"""One camera's recorder, stepped by hand: no thread, no Ray, no detector."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av

from storeguard.config.store import CameraConfig
from storeguard.events.commands import RecordCommand
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.journal import ChangeBatch, EventChange
from storeguard.recording.manual_recording import RecordingAnswer
from storeguard.recording.messages import Command, FrameSeen, Stop, Tick
from storeguard.recording.recorder import Recorder, RecordingPlace
from storeguard.recording.recovery import recover
from storeguard.recording.spool import ClipItem, Spool
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from storeguard.testing import FakeClock
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
JOURNAL = "journal-1"
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


def verdict_of(*events: Event, seq: int = 1, journal_id: str = JOURNAL) -> Verdict:
    """The rules' answer that brings events, numbered up to `seq`."""
    first = seq - len(events) + 1
    changes = tuple(EventChange(first + i, one) for i, one in enumerate(events))
    return Verdict("till", changes=ChangeBatch(journal_id, changes, seq))


@dataclass
class Till:
    """A camera whose video and verdicts come when the test says so."""

    recorder: Recorder
    spool: Spool
    packets: list[EncodedPacket]
    clock: FakeClock
    fed: int = 0
    seq: int = 0
    journal_id: str = JOURNAL

    def play(self, to_s: float) -> None:
        """Let the camera send until a moment."""
        while self.fed < len(self.packets) and self.packets[self.fed].captured_at < at(to_s):
            self.recorder.ring.append(self.packets[self.fed])
            self.fed += 1
            if self.fed % 5 == 0:  # a second of video at a time
                self.tick()

    def tick(self) -> None:
        """Let the recorder do all that there is to do now."""
        while self.recorder.step(Tick()):
            pass

    def report(self, *events: Event) -> None:
        """Let the rules answer with what changed."""
        self.seq += len(events)
        self.recorder.step(verdict_of(*events, seq=self.seq, journal_id=self.journal_id))
        self.tick()

    def see(self, frame: Frame, observation: Observation) -> None:
        self.recorder.step(FrameSeen(frame, observation))

    def command(self, command: RecordCommand) -> RecordingAnswer:
        answer: Future[RecordingAnswer] = Future()
        self.recorder.step(Command(command, answer))
        return answer.result(0)

    def close(self) -> None:
        self.recorder.step(Stop())

    def manifests(self, kind: type) -> list[Any]:
        return [item.manifest for item in self.spool.items() if isinstance(item.manifest, kind)]

    def clips(self) -> list[ClipItem]:
        """The clips that are queued for upload."""
        self.tick()
        return [one for one in self.manifests(ClipItem) if one.upload]


MakeTill = Callable[..., Till]


def till_of(
    packets: list[EncodedPacket], root: Path, *, place: RecordingPlace | None = None, **more: Any
) -> Till:
    """A recorder on the spool that lies below `root`, recovered first; `more` is its `recording`."""
    camera = CameraConfig.model_validate(
        {"id": "till", "source": "x", "zones": [ZONE], "recording": more}
    )
    # Its clock stands still: a test that is held up is not taken for a silent camera.
    clock = FakeClock()
    spool = Spool(root / "till", prefix="shop/till")
    recorder = Recorder(
        camera,
        place or RecordingPlace("shop", root),
        spool=spool,
        checkpoint=recover(spool, goes_on=True),
        clock=clock,
    )
    return Till(recorder, spool, packets, clock)


def start(**more: Any) -> RecordCommand:
    return RecordCommand.model_validate({"command": "start-recording", **more})


STOP = RecordCommand(command="stop-recording")


def decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
