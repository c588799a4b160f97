"""The fleet on a real Ray: camera actors that stop slowly, come back, or do not answer."""

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
from actors.naming import NAMESPACE, actor_name
from actors.uploader import spool_root
from serve.runner import init_ray
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.config.roster import Roster
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.events.changes import Change, Outcome
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
    """Keeps which events the uploaders report."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        self._reported |= {change.event_id for change in changes}
        return [Outcome.APPLIED for _ in changes]

    def reported(self) -> set[str]:
        return self._reported


@pytest.fixture
def local_ray() -> Iterator[None]:
    init_ray(None)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_stopping_group_keeps_its_uploader_and_its_name_until_it_is_done(
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
                assert time.monotonic() < end_s, f"not reached within {seconds:.0f} s"
                assert await fleet.check() == []
                if fleet.lacks_a_group():
                    fleet.reconcile()
                await asyncio.sleep(0.2)

        def state() -> CameraState:
            return fleet.status_of(config.cameras[0]).state

        def process() -> str | None:
            playing = state() is CameraState.PLAYING
            return fleet.status_of(config.cameras[0]).source if playing else None

        def reported() -> set[str]:
            return set(ray.get(rules.reported.remote()))

        def uploader() -> Any:
            group, node_id = roster.group_of("street"), ray.get_runtime_context().get_node_id()
            name = actor_name(STORE, f"uploader-{group}-{node_id[:8]}")
            return ray.get_actor(name, namespace=NAMESPACE)

        fleet.reconcile()
        await until(180, lambda: process() and fleet.spools())
        first = process()

        silence.touch()
        await until(180, lambda: state() is CameraState.RECONNECTING)
        assert "does not answer" in str(fleet.status_of(config.cameras[0]).last_error)
        silence.unlink()
        await until(180, lambda: state() is CameraState.PLAYING)

        roster.remove("street")
        fleet.reconcile()  # returns at once, while the group is still recording
        assert fleet.spools()
        roster.add(config.cameras[0])
        fleet.reconcile()  # under the same name, so only after its predecessor
        await until(180, lambda: process() not in (None, first))
        await until(180, lambda: len(reported()) == 1)

        # Ended without a restart, as when their leases ran out: others take their place.
        second, before = process(), uploader()
        ray.kill(before, no_restart=True)
        ray.kill(fleet.group_of("street"), no_restart=True)
        await until(180, lambda: process() not in (None, first, second) and fleet.spools())
        assert uploader() != before

        roster.remove("street")
        fleet.reconcile()
        await until(180, lambda: not fleet.spools())  # its uploader has nothing left to do
        assert len(reported()) == 2
        await fleet.stop()

    asyncio.run(body())
