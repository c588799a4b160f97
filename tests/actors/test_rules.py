"""The rules actor's class, in this process, on a real journal and a real store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from actors.rules import RulesActor
from storeguard.config.store import StoreConfig
from storeguard.events.changes import EventReported
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.events.faults import FaultCode
from storeguard.rules.observation import Observation
from storeguard.testing import FakeClock
from tests.events.factories import START, event
from tests.valkey import running_valkey
from tests.waiting import wait_for


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@contextmanager
def running_rules(
    tmp_path: Path, clock: FakeClock, *, busy_s: float = 120.0
) -> Iterator[RulesActor]:
    """An actor on its own store; a slow disk is not what is tested, so it waits for long."""
    config = StoreConfig.model_validate(
        {"store": "shop", "data_dir": tmp_path, "cameras": [{"id": "table", "source": "/dev/v"}]}
    )
    with running_valkey(tmp_path / "valkey") as valkey:
        model = ModelRef(name="m", sha256="0" * 64)
        actor = RulesActor(config, store_url=valkey.url, model=model, clock=clock, busy_s=busy_s)
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


def refused(rules: RulesActor) -> bool:
    try:
        rules.observe([seen(0)], [])
    except TimeoutError as error:
        return "busy" in str(error)
    return False


def closed() -> Event:
    """A closed event that no recorder has dealt with."""
    rule = {"type": "loitering", "record": True, "pre_roll_s": 2.0, "post_roll_s": 3.0}
    return event(1, status=EventStatus.CLOSED, ended_at=START + timedelta(seconds=4), rule=rule)


def test_a_batch_behind_one_that_hangs_is_refused_and_taken_in_later(
    tmp_path: Path, clock: FakeClock
) -> None:
    journal = tmp_path / "journal.sqlite3"
    with running_rules(tmp_path, clock, busy_s=0.2) as rules:
        # Another process holds the database, so that the first batch hangs in its commit.
        with closing(sqlite3.connect(journal, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor() as pool:
                first = pool.submit(rules.observe, [seen(0)], [])
                wait_for(lambda: refused(rules))
                other.execute("ROLLBACK")
                assert [verdict.camera_id for verdict in first.result(120)] == ["table"]
        (verdict,) = rules.observe([seen(0), seen(1)], [])
        assert verdict.camera_id == "table"


def test_an_event_that_no_camera_records_gets_a_fault(tmp_path: Path, clock: FakeClock) -> None:
    with running_rules(tmp_path, clock) as rules:
        rules.apply([EventReported(closed())])

        def with_clip() -> Event | None:
            clock.advance(60)
            found = rules.event("event-1")
            return found if found and found.clip else None

        clip = wait_for(with_clip).clip
    assert [fault.code for fault in clip.faults] == [FaultCode.NO_RECORDER]
    assert clip.uri is None
    assert clip.requested_start == START - timedelta(seconds=1)  # its start less the pre-roll
    assert clip.requested_end == START + timedelta(seconds=7)
