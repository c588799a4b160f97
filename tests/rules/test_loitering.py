from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.config.store import CameraConfig
from storeguard.events.event import Event, EventStatus
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import Dwell

IN, OUT = 0.5, 0.1
START = datetime(2026, 1, 1, tzinfo=UTC)
RULE = {"type": "loitering", "loiter_s": 3.0, "grace_s": 1.0, "update_s": 1.0}
CAMERA = CameraConfig.model_validate(
    {
        "id": "cam",
        "source": "x",
        "zones": [{"id": "z", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "rules": [RULE]}],
    }
)


def test_opens_at_the_threshold_grows_and_closes(stage: type[Any]) -> None:
    show = stage(RULE)
    show.see(0, ann=OUT)
    show.watch(1, 6.4, fps=5, ann=IN)
    show.watch(6.6, 8, fps=5, ann=OUT)

    assert [(e.version, e.status.value, e.dwell_s) for e in show.events] == [
        (1, "open", 3.0),
        (2, "open", 4.0),
        (3, "open", 5.0),
        (4, "closed", 5.4),
    ]
    assert len({event.event_id for event in show.events}) == 1
    assert {event.started_at for event in show.events} == {show.events[-1].started_at}
    assert show.closed() == [("ann", 1.0, 6.4)]  # the visit's start, not the threshold's


# Frequent errors in measuring dwell, each with its test.


def test_dwell_is_time_and_never_a_count_of_frames(stage: type[Any]) -> None:
    fast, slow = stage(RULE), stage(RULE)

    fast.watch(0, 2.9, fps=30, ann=IN)  # 88 frames, less than 3 s
    slow.watch(0, 3, fps=1, ann=IN)  # 4 frames, 3 s

    assert fast.statuses() == []
    assert slow.statuses() == [("loitering", "open", "ann")]


def test_two_people_in_turn_do_not_add_up_to_one_loiterer(stage: type[Any]) -> None:
    show = stage(RULE)

    show.watch(0, 2, ann=IN)
    show.watch(2.1, 4, bob=IN)
    show.watch(4.1, 6, cem=IN)

    assert show.statuses() == []


def test_two_people_at_once_each_have_their_own_dwell(stage: type[Any]) -> None:
    show = stage(RULE)

    show.watch(0, 1.9, ann=IN, bob=OUT)
    show.watch(2, 4, ann=IN, bob=IN)
    show.watch(4.1, 6, ann=OUT, bob=IN)
    show.watch(6.1, 8)

    assert show.closed() == [("ann", 0, 4), ("bob", 2, 6)]


def test_leaving_resets_dwell(stage: type[Any]) -> None:
    show = stage(RULE)

    show.watch(0, 2, ann=IN)
    show.watch(2.1, 3.5, ann=OUT)
    show.watch(3.6, 5.6, ann=IN)  # 2 s again: 4 s in all, but no visit of 3

    assert show.statuses() == []


def test_people_whose_ids_swap_do_not_add_each_others_dwell(stage: type[Any]) -> None:
    show = stage(RULE)

    show.watch(0, 2, ann=IN, bob=OUT)
    show.watch(2.1, 4.9, ann=OUT, bob=IN)  # the tracker took one for the other
    assert show.statuses() == []
    show.watch(5, 5.2, ann=OUT, bob=IN)

    assert [(e.person_id, e.dwell_s) for e in show.events] == [("bob", 3.0)]


def test_one_event_a_visit_and_another_for_the_next_visit(stage: type[Any]) -> None:
    show = stage(RULE)
    for visit in range(3):
        show.watch(visit * 20, visit * 20 + 5, ann=IN)
        show.watch(visit * 20 + 5.1, visit * 20 + 7, ann=OUT)

    assert show.closed() == [("ann", 0, 5), ("ann", 20, 25), ("ann", 40, 45)]
    assert len({event.event_id for event in show.events}) == 3


@pytest.mark.parametrize(
    ("seen_again_s", "shown_between", "ended_s"),
    [
        # a second away is bridged, whether the camera showed the absence or was silent
        (5.0, [4.5], None),
        (5.0, [], None),
        # more than a second outside, observed: the visit ended at 4
        (5.2, [4.5, 5.1], 4.0),
        # a silent camera proves nothing, up to max_gap_s
        (9.0, [], None),
        (14.0, [], None),
        (14.1, [], 4.0),
        # outside when the camera fell silent, but not for long enough then
        (9.0, [4.5], None),
        # the first observation after the silence shows an empty zone
        (9.1, [9.0], 4.0),
    ],
)
def test_gaps(
    stage: type[Any], seen_again_s: float, shown_between: list[float], ended_s: float | None
) -> None:
    show = stage(RULE)
    show.watch(0, 4, ann=IN)
    for at_s in shown_between:
        show.see(at_s, ann=OUT)

    show.see(seen_again_s, ann=IN)

    assert show.closed() == ([] if ended_s is None else [("ann", 0, ended_s)])
    (dwell,) = show.rules.dwell()
    assert dwell == Dwell("ann", "z", seen_again_s if ended_s is None else 0)


def test_a_grace_longer_than_the_gap_bridges_the_gap(stage: type[Any]) -> None:
    show = stage(RULE | {"grace_s": 30, "max_gap_s": 5})
    show.see(0, ann=IN)

    show.see(20, ann=IN)

    assert [(e.status.value, e.dwell_s) for e in show.events] == [("open", 20)]


def test_dwell_survives_when_three_of_four_frames_are_dropped(stage: type[Any]) -> None:
    show = stage(RULE)
    for index in range(0, 120, 4):  # of 10 fps
        show.see(index / 10, ann=IN if 10 <= index < 90 else OUT)

    ((person, start_s, end_s),) = show.closed()
    assert person == "ann"
    assert 1.0 <= start_s <= 1.4
    assert 8.5 <= end_s <= 9.0


# A walk: half a second or more inside each time, absences clearly shorter or longer than grace.
ABSENCES = st.one_of(st.floats(0.05, 0.5), st.floats(1.9, 5))
WALKS = st.lists(st.tuples(st.floats(0.5, 6), ABSENCES), min_size=1, max_size=5)
SAMPLINGS = st.one_of(
    st.sampled_from([[0.1], [0.2], [0.4]]),  # 10, 5 and 2.5 fps
    st.lists(st.floats(0.02, 0.4), min_size=1, max_size=20),  # irregular
)


@settings(max_examples=60, deadline=None)
@given(walk=WALKS, sampling=SAMPLINGS)
def test_dwell_is_the_walks_within_a_frame_interval_at_each_end(
    stage: type[Any], walk: list[tuple[float, float]], sampling: list[float]
) -> None:
    now, inside = 0.5, []
    for inside_s, absence_s in walk:
        inside.append((now, now + inside_s))
        now += inside_s + absence_s
    expected = [inside[0]]
    for before, after in pairwise(inside):
        if after[0] - before[1] <= 1.0:
            expected[-1] = (expected[-1][0], after[1])
        else:
            expected.append(after)

    show = stage({"type": "intrusion", "anchor": "foot", "grace_s": 1.0, "cooldown_s": 0})
    at_s, index = 0.0, 0
    while at_s < now + 3:
        show.see(at_s, ann=IN if any(a <= at_s < b for a, b in inside) else OUT)
        at_s += sampling[index % len(sampling)]
        index += 1

    found = [(start_s, end_s) for _, start_s, end_s in show.closed()]
    assert len(found) == len(expected)
    for (start_s, end_s), (entered_s, left_s) in zip(found, expected, strict=True):
        assert 0 <= start_s - entered_s + 1e-5 <= max(sampling) + 2e-5
        assert 0 <= left_s - end_s + 1e-5 <= max(sampling) + 2e-5


@pytest.mark.parametrize("step_s", [0.1, 0.2, 0.4])
def test_dwell_is_unbiased_by_the_frame_rate(step_s: float) -> None:
    """A person is inside from 2.05 to 12.05 s. Frames a step apart, wherever they fall, measure
    10 s within one step, and right on average: people come and go between frames."""
    dwells = []
    for phase in np.linspace(0, step_s, 8, endpoint=False):
        rules = CameraRules("shop", CAMERA)
        events: list[Event] = []
        for seq, at_s in enumerate(np.arange(phase, 15, step_s)):
            there = 2.05 <= at_s < 12.05
            # A tracker reports a person from the second detection on, with the track's age.
            known = there and at_s - step_s >= 2.05
            age_s = at_s - (2.05 + (phase - 2.05) % step_s)
            events += rules.step(
                Observation(
                    camera_id=CAMERA.id,
                    epoch="e",
                    seq=seq,
                    captured_at=START + timedelta(seconds=float(at_s)),
                    person_id=("ann",) if known else (),
                    xyxy=np.tile(np.array([0.4, 0.4, 0.6, 0.8], np.float32), (int(known), 1)),
                    score=np.full(int(known), 0.9, np.float32),
                    step_s=step_s if seq else 0.0,
                    age_s=np.full(int(known), age_s),
                )
            )
        (closed,) = (event for event in events if event.status is EventStatus.CLOSED)
        assert closed.dwell_s == pytest.approx(10, abs=step_s + 1e-3)
        dwells.append(closed.dwell_s)
    assert np.mean(dwells) == pytest.approx(10, abs=0.25 * step_s + 1e-3)


@pytest.mark.parametrize("rule", [RULE, {"type": "intrusion", "anchor": "foot"}])
@pytest.mark.parametrize("fps", [2, 5, 15])
def test_flicker_at_the_edge_of_a_zone_is_one_visit(
    stage: type[Any], rule: dict[str, Any], fps: int
) -> None:
    """A foot that trembles by a pixel, or an edge that a tenth of the box just reaches."""
    show = stage(rule)
    edge = 0.3 if rule is not RULE else 0.26
    for index in range(60 * fps):
        show.see(index / fps, ann=edge + (-1) ** index / 640)
    show.watch(60, 62, fps=fps, ann=OUT)

    assert len({event.event_id for event in show.events}) == 1
    ((_, started_s, ended_s),) = show.closed()
    assert (started_s, ended_s) == pytest.approx((0, 60), abs=1)
