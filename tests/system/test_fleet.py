"""The fleet on a real Ray: camera actors that leave slowly, come back, or do not answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import actors.fleet
from actors.fleet import Fleet
from actors.uploader import spool_root
from serve.runner import init_ray
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.roster import Roster
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.events.event import Event
from storeguard.recording.recorder import RecordingPlace
from storeguard.recording.spool import EventItem, Spool
from tests.events.factories import event

STORE = "fleet"
SILENCE = "no-camera-actor-answers-while-this-is-there"
CAMERA = {"id": "street", "source": "/dev/video0"}


class SlowCameras:
    """A camera actor whose cameras take seconds to finish what they record."""

    def __init__(self, name: str, *, recording: RecordingPlace, **rest: Any) -> None:
        self._name, self._root, self._rest = name, recording.root, rest
        self._spools: dict[str, Spool] = {}

    async def set_cameras(self, cameras: Sequence[CameraConfig]) -> None:
        for camera in cameras:
            folder = self._root / camera.id
            self._spools[camera.id] = Spool(folder, prefix=STORE)

    async def statuses(self) -> list[CameraStatus]:
        if (self._root / SILENCE).exists():
            raise RuntimeError("not now")
        return [
            CameraStatus(id=name, source=str(os.getpid()), state=CameraState.PLAYING)
            for name in self._spools
        ]

    async def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    async def stop(self) -> None:
        await asyncio.sleep(4)
        for name, spool in self._spools.items():
            spool.put(EventItem(event=event(f"{name}-{os.getpid()}")), "last")


class Rules:
    """Remembers what the recorders hand on."""

    def __init__(self) -> None:
        self._seen: list[str] = []

    def journal(self, event: Event) -> None:
        self._seen.append(event.event_id)

    def seen(self) -> list[str]:
        return self._seen


@pytest.fixture
def local_ray() -> Iterator[None]:
    init_ray(None)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_leaving_group_keeps_its_recorder_and_its_name_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.fleet, "CameraActor", SlowCameras)
    config = StoreConfig.model_validate(
        {
            "store": STORE,
            "data_dir": tmp_path,
            "cameras": [CAMERA],
            "storage": {"min_free_bytes": 0},
        }
    )
    rules = ray.remote(Rules).remote()
    silence = spool_root(config) / SILENCE

    async def body() -> None:
        roster = Roster(config.cameras, tmp_path / "cameras.json")
        handles: dict[str, Any] = {"models": None, "rules": rules}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        fleet = Fleet(config, roster, here=here, **handles)

        async def until(seconds: float, what: Any) -> None:
            end_s = time.monotonic() + seconds
            while not what():
                assert time.monotonic() < end_s, "waited in vain"
                assert await fleet.check() == []
                if fleet.lacks_a_group():
                    fleet.reconcile()
                await asyncio.sleep(0.2)

        def state() -> CameraState:
            return fleet.status_of(config.cameras[0]).state

        def process() -> str | None:
            playing = state() is CameraState.PLAYING
            return fleet.status_of(config.cameras[0]).source if playing else None

        def told() -> set[str]:  # at least once, each
            return set(ray.get(rules.seen.remote()))

        fleet.reconcile()
        await until(180, lambda: process() and fleet.spools())
        first = process()

        silence.touch()
        await until(180, lambda: state() is CameraState.RECONNECTING)
        assert "does not answer" in str(fleet.status_of(config.cameras[0]).last_error)
        silence.unlink()
        await until(180, lambda: state() is CameraState.PLAYING)

        roster.remove("street")
        fleet.reconcile()  # at once: nobody waits for what is still recorded
        assert fleet.spools()
        roster.add(config.cameras[0])
        fleet.reconcile()  # under the same name, so only after its predecessor
        await until(180, lambda: process() not in (None, first))
        await until(180, lambda: len(told()) == 1)

        # Ended for good, as when nobody has renewed their leases: others take their place.
        second, recorder = process(), fleet._recorders[roster.group_of("street") or ""].actor
        ray.kill(recorder, no_restart=True)
        ray.kill(fleet.group_of("street"), no_restart=True)
        await until(180, lambda: process() not in (None, first, second) and fleet.spools())
        (other,) = fleet._recorders.values()
        assert other.actor != recorder

        roster.remove("street")
        fleet.reconcile()
        await until(180, lambda: not fleet.spools())  # its recorder has nothing left to do
        assert len(told()) == 2
        await fleet.stop()

    asyncio.run(body())
