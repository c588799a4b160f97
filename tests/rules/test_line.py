from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

# Of an upright line at x = 0.5, going up. A crossing is complete at once.
RULE = {"type": "line_crossing", "cooldown_s": 2.0, "margin": 0, "settle_s": 0}


def _directions(show: Any) -> list[tuple[str, float]]:
    return [
        (event.attributes["direction"], round((event.started_at - show.START).total_seconds(), 3))
        for event in show.events
    ]


def test_a_crossing_is_opened_and_closed_at_once_between_two_frames(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.see(0, ann=0.3)
    (event,) = show.see(1, ann=0.7)

    assert (event.type.value, event.status.value, event.version) == ("line_crossing", "closed", 1)
    assert event.started_at == event.ended_at
    assert (event.zone_id, event.person_id, event.dwell_s) == ("line", "ann", None)
    assert _directions(show) == [("in", 0.5)]  # from the picture's left to its right


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("both", ["in", "out"]), ("in", ["in"]), ("out", ["out"])],
)
def test_direction(stage: type[Any], direction: str, expected: list[str]) -> None:
    show = stage(line=[RULE | {"direction": direction}])
    for at_s, place in ((0, 0.3), (1, 0.7), (5, 0.7), (6, 0.3)):
        show.see(at_s, ann=place)

    assert [found for found, _ in _directions(show)] == expected


def test_a_long_gap_is_one_straight_step(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.see(0, ann=0.4)
    show.see(100, ann=0.8)

    assert _directions(show) == [("in", 25.0)]


def test_no_crossing_from_one_epoch_to_the_next(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.see(0, ann=0.3)
    show.take(show.observation(1, {"ann": 0.7}, epoch="b"))
    assert show.events == []

    show.see(2, ann=0.3)  # within the new epoch it is a step again

    assert _directions(show) == [("out", 1.5)]


def test_cooldown_is_for_the_person_and_the_direction(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    for index in range(31):  # to and fro over the line, twice a second
        show.see(index / 2, ann=0.45 if index % 2 else 0.55, bob=0.2)

    found = _directions(show)
    assert len(found) >= 5
    assert {event.person_id for event in show.events} == {"ann"}
    for direction in ("in", "out"):
        times = [at_s for name, at_s in found if name == direction]
        assert all(later - sooner >= 1.5 for sooner, later in pairwise(times))


def test_cooldown_does_not_swallow_the_way_back(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"cooldown_s": 30}])
    for at_s, place in ((0, 0.3), (1, 0.7), (2, 0.3)):
        show.see(at_s, ann=place)

    assert _directions(show) == [("in", 0.5), ("out", 1.5)]


@pytest.mark.parametrize("then", ["stays", "is unseen", "camera stopped", "another epoch"])
def test_a_crossing_during_the_cooldown_is_reported_once_it_counts(
    stage: type[Any], then: str
) -> None:
    show = stage(line=[RULE | {"cooldown_s": 30}])
    for at_s, place in ((0, 0.3), (1, 0.7), (2, 0.3), (3, 0.7)):
        show.see(at_s, ann=place)
    assert _directions(show) == [("in", 0.5), ("out", 1.5)]

    match then:
        case "stays":
            show.watch(4, 40, fps=1, ann=0.7)
        case "is unseen":
            show.watch(4, 40, fps=1)
        case "camera stopped":
            show.events += show.rules.close_all(show.rules.captured_at)
        case _:
            show.take(show.observation(5, {"ann": 0.7}, epoch="b"))

    assert _directions(show) == [("in", 0.5), ("out", 1.5), ("in", 2.5)]


def test_a_person_who_is_forgotten_during_the_cooldown_is_counted(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"cooldown_s": 3600}])
    for at_s, place in ((0, 0.3), (1, 0.7), (2, 0.3), (3, 0.7)):
        show.see(at_s, ann=place)
    show.watch(4, 70, fps=1)

    assert [found for found, _ in _directions(show)] == ["in", "out", "in"]


def test_to_and_fro_during_the_cooldown_is_no_event(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"cooldown_s": 30}])
    for at_s, place in enumerate((0.3, 0.7, 0.3, 0.7, 0.3, 0.7, 0.3)):
        show.see(at_s, ann=place)
    show.watch(7, 60, fps=1, ann=0.3)

    assert [found for found, _ in _directions(show)] == ["in", "out"]


def test_two_people_have_separate_positions_and_cooldowns(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.see(0, ann=0.3, bob=0.7)
    show.see(1, ann=0.7, bob=0.3)

    assert [(e.person_id, e.attributes["direction"]) for e in show.events] == [
        ("ann", "in"),
        ("bob", "out"),
    ]


def test_crossings_in_the_same_millisecond_are_a_millisecond_apart(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"cooldown_s": 0}])
    # Barely over the line and back: both interpolated to within a fraction of a millisecond.
    for at_s, place in ((0, 0.3), (1, 0.50002), (2, 0.3), (3, 0.7)):
        show.see(at_s, ann=place)

    assert [found for found, _ in _directions(show)] == ["in", "out", "in"]
    assert len({event.event_id for event in show.events}) == 3


def test_the_foot_or_the_head_crosses(stage: type[Any]) -> None:
    # A line across the picture at half its height, from left to right: down is in.
    foot, head = (stage(line=[RULE | {"anchor": anchor}]) for anchor in ("foot", "head"))
    for show in (foot, head):
        zone = show.camera.zones[0].model_copy(update={"line": ((0.0, 0.5), (1.0, 0.5))})
        show.rules.reconfigure(show.camera.model_copy(update={"zones": (zone,)}))
        show.see(0, ann=(0.4, 0.1, 0.6, 0.4))
        show.see(1, ann=(0.4, 0.3, 0.6, 0.7))  # feet below the line, head at 0.38

    assert [found for found, _ in _directions(foot)] == ["in"]
    assert head.events == []


def test_weak_boxes_neither_cross_nor_count_as_positions(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"min_score": 0.5}])
    show.take(show.observation(0, {"ann": 0.3}))
    show.take(show.observation(1, {"ann": 0.7}, score=0.4))
    assert show.events == []

    show.take(show.observation(2, {"ann": 0.7}))

    assert _directions(show) == [("in", 1.0)]
