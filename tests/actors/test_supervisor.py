"""The supervisor's end; the whole of it is in tests/system."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actors.supervisor
from actors.lease import Lease
from actors.supervisor import Supervisor


class Fleet:
    def __init__(self) -> None:
        self.stopped = False

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.stopped = True


def test_a_supervisor_whom_nobody_asks_stops_everything_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(actors.supervisor.ray.actor, "exit_actor", lambda: ended.append(True))

    async def body() -> None:
        supervisor: Any = Supervisor.__new__(Supervisor)
        fleet = Fleet()
        supervisor._commands = supervisor._rules = supervisor._valkey = None
        supervisor._fleet, supervisor._started = fleet, True
        lease = Lease("supervisor", lasts_s=0.0, expired=supervisor._end)
        others = asyncio.create_task(asyncio.sleep(3600))
        watching = asyncio.create_task(lease.watch())
        supervisor._watches = [others, watching]
        await watching
        assert others.cancelled()
        assert fleet.stopped
        assert not supervisor._started

    asyncio.run(body())
    assert ended == [True]
