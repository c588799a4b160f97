"""From an observation over the journal to a clip, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storeguard.config.store import CameraConfig
from storeguard.events.journal import Journal
from storeguard.recording.spool import ClipItem
from storeguard.rules.host import RulesHost
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Heartbeat
from storeguard.testing import FakeClock
from tests.recording.recorder_harness import ZONE, MakeTill, Till, at

CAMERA = CameraConfig.model_validate(
    {
        "id": "till",
        "source": "x",
        "zones": [{**ZONE, "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}],
    }
)


def seen(second: int, *, people: int = 1) -> Observation:
    """One observation a second; the person stands in the zone."""
    return Observation(
        camera_id="till",
        epoch="e1",
        seq=second,
        captured_at=at(second),
        person_id=("anna",) * people,
        xyxy=np.tile(np.array([0.4, 0.4, 0.6, 0.8], np.float32), (people, 1)),
        score=np.full(people, 0.9, np.float32),
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3", max_bytes=2**24) as opened:
        yield opened


def host_of(journal: Journal) -> RulesHost:
    host = RulesHost("shop", journal, clock=FakeClock())
    host.configure([CAMERA])
    return host


def exchange(
    one: Till, host: RulesHost, *observations: Observation, is_answer_lost: bool = False
) -> None:
    """One call of the outbox; a lost answer means that the rules did their part."""
    heartbeat = Heartbeat("till", reads_changes=True, cursor=one.recorder.state.cursor)
    (verdict,) = host.observe(observations, [heartbeat])
    if not is_answer_lost:
        one.recorder.step(verdict)
        one.tick()


def starts(one: Till) -> list[float]:
    """Seconds at which the clips for events of rules begin."""
    clips: list[ClipItem] = one.clips()
    return [(clip.start - at(0)).total_seconds() for clip in clips]


def test_six_seconds_of_retries_do_not_put_the_clip_six_seconds_late(
    till: MakeTill, journal: Journal
) -> None:
    """Answers lost while the batch was sent again and again, each time as a replay."""
    one, host = till(), host_of(journal)
    one.play(10)
    for second in range(10, 16):
        one.play(second)
        exchange(one, host, seen(10), is_answer_lost=True)
    exchange(one, host, seen(10))
    for second in range(16, 25):
        one.play(second)
        exchange(one, host, seen(second, people=int(second < 20)))
    one.play(40)
    assert starts(one) == [8]  # the event's own start less its pre-roll
    (clip,) = one.clips()
    assert clip.end >= at(22)


def test_rules_killed_before_they_answered_still_start_the_clip_in_time(
    till: MakeTill, journal: Journal
) -> None:
    one = till()
    one.play(10)
    exchange(one, host_of(journal), seen(10), is_answer_lost=True)
    one.play(16)
    host = host_of(journal)  # from its checkpoint
    exchange(one, host, seen(16))
    for second in range(17, 24):
        exchange(one, host, seen(second, people=0))
    one.play(40)
    assert starts(one) == [8]


def test_a_recorder_that_starts_anew_goes_on_behind_its_cursor(
    till: MakeTill, journal: Journal
) -> None:
    one, host = till(), host_of(journal)
    one.play(10)
    exchange(one, host, seen(10))
    for second in range(11, 20):
        one.play(second)
        exchange(one, host, seen(second, people=int(second < 13)))
    one.close()

    again = till()
    again.fed = one.fed
    again.play(25)
    exchange(again, host, seen(25))  # another visit
    for second in range(26, 34):
        again.play(second)
        exchange(again, host, seen(second, people=int(second < 28)))
    again.play(50)
    events = [{link.event_id for link in clip.links} for clip in again.clips()]
    assert len(events) == 2
    assert events[0].isdisjoint(events[1])
