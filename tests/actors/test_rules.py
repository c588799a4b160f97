"""The rules actor's class, in this process, on a real journal and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

import actors.rules
from actors.rules import RulesActor
from storeguard.config.store import StoreConfig
from storeguard.events.changes import EventReported
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.rules.observation import Observation
from storeguard.testing import FakeClock
from tests.events.factories import START, event
from tests.valkey import running_valkey
from tests.waiting import wait_for


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def rules(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RulesActor]:
    monkeypatch.setattr(actors.rules, "_BUSY_S", 120.0)  # a slow disk is not what is meant
    config = StoreConfig.model_validate(
        {"store": "shop", "data_dir": tmp_path, "cameras": [{"id": "table", "source": "/dev/v"}]}
    )
    with running_valkey(tmp_path / "valkey") as valkey:
        model = ModelRef(name="m", sha256="0" * 64)
        actor = RulesActor(config, store_url=valkey.url, model=model, clock=clock)
        actor.configure(config.cameras)
        try:
            yield actor
        finally:
            actor.stop()


def seen(seq: int) -> Observation:
    return Observation(
        camera_id="table",
        epoch="e",
        seq=seq,
        captured_at=START + timedelta(seconds=seq),
        person_id=(),
        xyxy=np.zeros((0, 4), np.float32),
        score=np.zeros(0, np.float32),
    )


def unheard() -> Event:
    """A closed event of which the camera's process, killed, never heard."""
    rule = {"type": "loitering", "record": True, "pre_roll_s": 2.0, "post_roll_s": 3.0}
    return event(1, status=EventStatus.CLOSED, ended_at=START + timedelta(seconds=4), rule=rule)


def test_rules_that_hang_turn_others_away_and_take_the_same_in_later(
    rules: RulesActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(actors.rules, "_BUSY_S", 0.05)
        with rules._lock, pytest.raises(TimeoutError, match="busy"):
            rules.observe([seen(0)])
    assert [verdict.camera_id for verdict in rules.observe([seen(0), seen(1)])] == ["table"]
    assert rules.observe([seen(0)])[0].changes == ()  # as when the first call got in late


def test_a_closing_that_nobody_heard_is_said_again(rules: RulesActor, clock: FakeClock) -> None:
    rules.apply([EventReported(unheard())])
    seq = iter(range(10_000))

    def said() -> list[str]:
        clock.advance(2)  # a look each second of real time must not take it for minutes late
        return [one.event_id for one in rules.observe([seen(next(seq))])[0].changes]

    assert wait_for(said) == ["event-1"]


def test_an_event_that_no_camera_takes_up_is_told_so(rules: RulesActor, clock: FakeClock) -> None:
    rules.apply([EventReported(unheard())])

    def told() -> Event | None:
        clock.advance(60)
        found = rules.event("event-1")
        return found if found and found.clip else None

    clip = wait_for(told).clip
    assert clip.error == "no camera was there to record it"
    assert clip.uri is None
    assert clip.requested_start == START - timedelta(seconds=1)  # its start less the pre-roll
    assert clip.requested_end == START + timedelta(seconds=7)
