"""The camera actor's class, in this process, with a detector and rules that answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from storeguard.recording.camera_recorder import RecordingPlace

from actors.camera import CameraActor
from storeguard.config.models import TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.events.event import EventType
from storeguard.recording.spool import ClipItem, Spool
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from tests.camera.group_harness import INFO, Detector
from tests.waiting import EVERYWHERE


def method(call: Callable[..., Awaitable[Any]]) -> SimpleNamespace:
    return SimpleNamespace(remote=call)


async def info() -> Any:
    return INFO


async def observe(observations: Sequence[Observation]) -> Sequence[Verdict]:
    """An event that never ends."""
    del observations
    opened = OpenEvent("e1", EventType.INTRUSION, "all", None)
    return [Verdict("street", open_events=(opened,))]


def test_stopping_waits_for_a_camera_that_is_being_removed(bikes: Path, tmp_path: Path) -> None:
    """Its recordings are finished and queued; a process ended before would leave them torn."""
    spool = tmp_path / "street"

    def torn() -> list[Path]:
        return list(spool.glob(".*.part"))

    async def body() -> None:
        zone = {"id": "all", "polygon": EVERYWHERE, "rules": [{"type": "intrusion"}]}
        camera = CameraConfig.model_validate(
            {"id": "street", "source": str(bikes), "loop": True, "zones": [zone]}
        )
        handles: Any = {
            "models": SimpleNamespace(
                detector=SimpleNamespace(info=method(info), detect=method(Detector().detect)),
                classifier=None,
                attributes={},
            ),
            "rules": SimpleNamespace(observe=method(observe)),
        }
        actor = CameraActor(
            "cameras-0",
            tracker=TrackerSettings(),
            recording=RecordingPlace("shop", tmp_path),
            **handles,
        )
        await actor.set_cameras([camera])
        async with asyncio.timeout(180):
            while not torn():
                await actor.statuses()  # renews its lease, as the supervisor does
                await asyncio.sleep(0.05)
        removing = asyncio.create_task(actor.set_cameras([]))
        await asyncio.sleep(0.01)
        await actor.stop()
        assert not torn()
        items = [item.manifest for item in Spool(spool, prefix="shop").items()]
        assert any(isinstance(item, ClipItem) for item in items)
        await removing

    asyncio.run(body())
