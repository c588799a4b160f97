"""Lines at their default margin and settling time: what counts as a crossing and what does not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.config.zones import LineCrossingRule

RULE = {"type": "line_crossing"}  # of an upright line at x = 0.5, going up: to the right is in
PIXEL = 1 / 640
WIDTH = 0.1  # of a person's box


def directions(show: Any) -> list[str]:
    return [event.attributes["direction"] for event in show.events]


def net(show: Any) -> int:
    found = directions(show)
    return found.count("in") - found.count("out")


# --------------------------------------------------------------------------- trembling


@pytest.mark.parametrize("start", [0.5, 0.5 - PIXEL, 0.5 + PIXEL], ids=["on", "left", "right"])
@pytest.mark.parametrize("fps", [5, 15])
def test_a_foot_that_trembles_by_a_pixel_crosses_nothing(
    stage: type[Any], start: float, fps: int
) -> None:
    show = stage(line=[RULE])
    for index in range(60 * fps):
        show.see(index / fps, ann=start + PIXEL * (-1) ** index)

    assert show.events == []


@pytest.mark.parametrize("home", [0.47, 0.53])
@pytest.mark.parametrize("fps", [2, 5, 15])
def test_one_stray_frame_in_seven_crosses_nothing(stage: type[Any], home: float, fps: int) -> None:
    show = stage(line=[RULE])
    for index in range(60 * fps):
        show.see(index / fps, ann=1 - home if index % 7 == 6 else home)

    assert show.events == []


def test_a_day_on_the_line_adds_up_to_nothing(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    rng = np.random.default_rng(1)
    show.watch(0, 2, ann=0.3)
    for at_s in range(3, 86_400, 8):
        sway = rng.normal(0, 0.3 * WIDTH) if at_s % 7 else 0.03
        show.see(at_s, ann=0.5 + sway)
    show.watch(86_400, 86_402, ann=0.3)

    found = directions(show)
    assert found
    assert found == ["in", "out"] * (len(found) // 2)


def test_a_day_of_people_who_turn_back_on_the_line_adds_up_to_nothing(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    rng = np.random.default_rng(1)
    for visit in range(100):
        for second in range(40):
            sway = 0.5 + rng.normal(0, 0.3 * WIDTH)
            show.see(visit * 864 + second, **{f"p{visit}": 0.3 if second in (0, 39) else sway})
    show.watch(86_400, 86_402)

    assert net(show) == 0


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.floats(0.3, 0.7), max_size=60),
    step_s=st.sampled_from([0.1, 0.3, 1.0, 4.0]),
    cooldown_s=st.sampled_from([0, 2, 30]),
)
def test_a_person_who_is_back_has_crossed_in_as_often_as_out(
    stage: type[Any], places: list[float], step_s: float, cooldown_s: float
) -> None:
    show = stage(line=[RULE | {"cooldown_s": cooldown_s}])
    for index, place in enumerate([0.3, *places, *[0.3] * 20]):
        show.see(index * step_s, ann=place)
    show.events += show.rules.close_all(show.rules.captured_at)

    assert directions(show) == ["in", "out"] * (len(show.events) // 2)


# --------------------------------------------------------------------------- walkers


def walk(start: float, stop: float, *, seconds: float, fps: float) -> Iterator[float]:
    num = round(seconds * fps)
    return (start + (stop - start) * index / num for index in range(num + 1))


@pytest.mark.parametrize("way", ["in", "out"])
@pytest.mark.parametrize("seconds", [1, 2, 4])
@pytest.mark.parametrize("fps", [2, 5, 15])
def test_each_walker_is_counted_once(
    stage: type[Any], fps: float, seconds: float, way: str
) -> None:
    show = stage(line=[RULE])
    rng = np.random.default_rng(2)
    for visit in range(20):
        path = walk(*((0.3, 0.7) if way == "in" else (0.7, 0.3)), seconds=seconds, fps=fps)
        for index, place in enumerate(path):
            jitter = rng.normal(0, 0.03 * WIDTH)
            show.see(visit * 10 + index / fps, **{f"p{visit}": place + jitter})
        show.watch(visit * 10 + seconds + 1 / fps, visit * 10 + seconds + 2, fps=fps)

    assert directions(show) == [way] * 20
    assert len({event.person_id for event in show.events}) == 20
    for visit, event in enumerate(show.events):
        crossed_s = (event.started_at - show.START).total_seconds() - visit * 10
        assert crossed_s == pytest.approx(seconds / 2, abs=0.1)


def test_in_and_out_again_within_the_cooldown_are_both_counted(stage: type[Any]) -> None:
    show = stage(line=[RULE | {"cooldown_s": 60}])
    path = [0.4, 0.45, 0.55, 0.6, 0.6, 0.6, 0.55, 0.45, 0.4, 0.4, 0.4]
    for index, place in enumerate(path):
        show.see(index / 5, ann=place)

    assert directions(show) == ["in", "out"]


def test_a_person_who_leaves_the_picture_right_behind_the_line_is_counted(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    for index, place in enumerate((0.4, 0.46, 0.52)):
        show.see(index / 5, ann=place)
    assert show.events == []

    show.watch(0.6, 2, fps=5)

    assert directions(show) == ["in"]


def test_a_person_who_stood_on_the_line_crosses_when_leaving_it(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.see(0, ann=0.4)
    show.watch(1, 300, fps=2, ann=0.5 + PIXEL)
    show.watch(300.5, 302, fps=2, ann=0.6)

    (event,) = show.events
    assert (event.started_at - show.START).total_seconds() == pytest.approx(299)
    delay_s = (event.updated_at - event.started_at).total_seconds()
    assert delay_s <= LineCrossingRule().longest_delay_s + 0.5  # and the frames' spacing


def test_a_person_who_is_first_seen_on_the_line_has_come_from_neither_side(
    stage: type[Any],
) -> None:
    show = stage(line=[RULE])
    for index, place in enumerate((0.498, 0.502, *[0.6] * 5, *[0.4] * 5)):
        show.see(index / 5, ann=place)

    assert directions(show) == ["out"]


def test_a_walk_round_the_end_of_the_line_is_no_crossing(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    zone = show.camera.zones[0].model_copy(update={"line": ((0.5, 1.0), (0.5, 0.6))})
    show.rules.reconfigure(show.camera.model_copy(update={"zones": (zone,)}))

    def at(x: float, foot: float) -> tuple[float, float, float, float]:
        return (x - 0.05, foot - 0.3, x + 0.05, foot)

    steps = [at(0.4, 0.8), at(0.4, 0.5), at(0.6, 0.5), at(0.6, 0.8)]  # round its upper end
    for index, box in enumerate(itertools.chain(*([step] * 5 for step in steps))):
        show.see(index / 5, ann=box)
    assert show.events == []

    for index, box in enumerate([at(0.4, 0.8)] * 5):  # and back through it
        show.see(5 + index / 5, ann=box)
    assert directions(show) == ["out"]


# --------------------------------------------------------------------------- margin and time


@pytest.mark.parametrize(
    ("margin", "place", "crosses"),
    [(0.1, 0.509, False), (0.1, 0.51, True), (0.5, 0.54, False), (0.5, 0.55, True), (0, 0.5, True)],
)
def test_the_margin_is_a_fraction_of_the_box(
    stage: type[Any], margin: float, place: float, crosses: bool
) -> None:
    show = stage(line=[RULE | {"margin": margin}])
    show.see(0, ann=0.3)
    show.watch(0.5, 2, ann=place)

    assert bool(show.events) is crosses


@pytest.mark.parametrize(("stays_s", "crosses"), [(1.4, False), (1.5, True)])
def test_settling_is_time_and_never_a_count_of_frames(
    stage: type[Any], stays_s: float, crosses: bool
) -> None:
    for fps in (10, 30):
        show = stage(line=[RULE | {"settle_s": 1.5}])
        show.see(0, ann=0.3)
        show.watch(1, 1 + stays_s, fps=fps, ann=0.7)
        show.watch(1 + stays_s + 1 / fps, 5, fps=fps, ann=0.3)

        assert directions(show) == (["in", "out"] if crosses else [])


def test_a_moved_line_takes_people_for_where_they_are(stage: type[Any]) -> None:
    show = stage(line=[RULE])
    show.watch(0, 1, ann=0.6)
    zone = show.camera.zones[0].model_copy(update={"line": ((0.7, 1.0), (0.7, 0.0))})
    show.rules.reconfigure(show.camera.model_copy(update={"zones": (zone,)}))
    show.watch(2, 3, ann=0.6)
    assert show.events == []

    show.watch(3, 4, ann=0.8)

    assert directions(show) == ["in"]


@pytest.mark.parametrize("restart_at", range(12))
def test_a_restart_in_the_middle_of_a_crossing_changes_nothing(
    stage: type[Any], restart_at: int
) -> None:
    show = stage(line=[RULE])
    path = (0.4, 0.48, 0.52, 0.56, 0.6, 0.6, 0.6, 0.55, 0.45, 0.4, 0.4, 0.4)
    for index, place in enumerate(path):
        if index == restart_at:
            fresh = stage(line=[RULE])
            fresh.rules.restore(show.rules.checkpoint())
            show.rules = fresh.rules
        show.see(index / 5, ann=place)

    assert directions(show) == ["in", "out"]
