from __future__ import annotations

from typing import Any

import pytest

IN, OUT = 0.5, 0.1
RULE = {"type": "intrusion", "anchor": "foot", "grace_s": 1.0, "cooldown_s": 2.0}


@pytest.mark.parametrize(
    ("anchor", "box", "enters"),
    [
        # (0.3..0.7, 0.2..0.9) is the zone
        ({"anchor": "head"}, (0.4, 0.1, 0.6, 0.7), True),  # head at 0.22
        ({"anchor": "head"}, (0.4, 0.0, 0.6, 0.9), False),  # head at 0.18, the rest inside
        ({"anchor": "foot"}, (0.4, 0.1, 0.6, 0.9), True),  # feet on the border
        ({"anchor": "foot"}, (0.4, 0.1, 0.6, 0.95), False),
        ({"anchor": "hit_ratio"}, (0.2, 0.4, 0.3, 0.8), False),  # next to the zone
        ({"anchor": "hit_ratio"}, (0.21, 0.4, 0.31, 0.8), True),  # exactly a tenth inside
        ({"anchor": "hit_ratio"}, (0.205, 0.4, 0.305, 0.8), False),  # half a tenth
        # a fifth, though binary arithmetic makes it 0.19999999999999998
        ({"anchor": "hit_ratio", "min_hit_ratio": 0.2}, (0.1, 0.4, 0.35, 0.8), True),
        ({"anchor": "hit_ratio", "min_hit_ratio": 0.5}, (0.24, 0.4, 0.34, 0.8), False),
        ({"anchor": "hit_ratio", "min_hit_ratio": 0.5}, (0.26, 0.4, 0.36, 0.8), True),
        ({}, (0.4, 0.1, 0.6, 0.95), True),  # the head by default: 0.27
    ],
)
def test_the_anchor_decides_which_people_are_inside(
    stage: type[Any], anchor: dict[str, Any], box: tuple[float, ...], enters: bool
) -> None:
    show = stage({"type": "intrusion", **anchor})

    raised = show.see(0, ann=box)

    assert [event.type.value for event in raised] == (["intrusion"] if enters else [])


def test_feet_below_the_picture_are_in_a_zone_that_ends_there(stage: type[Any]) -> None:
    show = stage(RULE, polygon=[(0.3, 0.5), (0.7, 0.5), (0.7, 1.0), (0.3, 1.0)])

    assert show.see(0, ann=(0.4, 0.6, 0.6, 1.07))


def test_opens_at_entering_and_closes_at_the_last_moment_inside(stage: type[Any]) -> None:
    show = stage(RULE)
    show.see(0, ann=OUT)

    (opened,) = show.see(0.5, ann=IN)
    show.watch(0.6, 4.0, ann=IN)
    show.watch(4.1, 5.0, ann=OUT)
    assert show.statuses() == [("intrusion", "open", "ann")]  # a second outside is still grace
    (closed,) = show.see(5.1, ann=OUT)

    assert (opened.version, opened.dwell_s, opened.ended_at) == (1, 0, None)
    assert closed.event_id == opened.event_id
    assert (closed.version, closed.status.value, closed.dwell_s) == (2, "closed", 3.5)
    assert show.closed() == [("ann", 0.5, 4.0)]
    assert opened.zone_id == "z"
    assert opened.rule["anchor"] == "foot"
    assert opened.rule["cooldown_s"] == 2.0


def test_flicker_at_the_border_is_one_event(stage: type[Any]) -> None:
    show = stage(RULE)

    for tenth in range(100):
        show.see(tenth / 10, ann=0.29 if tenth % 2 else 0.31)

    assert show.statuses() == [("intrusion", "open", "ann")]


@pytest.mark.parametrize(
    ("away_s", "inside_s", "starts"),
    [
        (0.9, 3, [0]),  # within grace: the same visit
        (1.5, 0.3, [0]),  # another visit that ends before the cooldown does
        (1.5, 3, [0, 2.5]),  # still inside when the cooldown is over: reported from its start
        (2.5, 3, [0, 3.5]),  # after the cooldown
    ],
)
def test_cooldown_counts_from_the_last_events_end(
    stage: type[Any], away_s: float, inside_s: float, starts: list[float]
) -> None:
    show = stage(RULE)
    show.watch(0, 1, ann=IN)
    show.watch(1.1, 1 + away_s - 0.1, ann=OUT)
    show.watch(1 + away_s, 1 + away_s + inside_s, ann=IN)
    show.rules.close_all(stage.START)
    show.watch(20, 22)

    opened = [event.started_at for event in show.events if event.version == 1]
    assert [(moment - stage.START).total_seconds() for moment in opened] == starts


def test_each_person_has_a_separate_cooldown(stage: type[Any]) -> None:
    show = stage(RULE | {"cooldown_s": 600})
    show.see(0, ann=IN)
    show.see(0.5, ann=IN, bob=IN)

    assert show.statuses() == [("intrusion", "open", "ann"), ("intrusion", "open", "bob")]


def test_weak_boxes_do_not_count(stage: type[Any]) -> None:
    show = stage(RULE | {"min_score": 0.35})

    assert show.take(show.observation(0, {"ann": IN, "bob": IN}, score={"ann": 0.34, "bob": 0.35}))
    assert [person for _, _, person in show.statuses()] == [
        "bob"
    ]  # exactly at the threshold is enough


def test_score_is_the_highest_and_box_the_latest(stage: type[Any]) -> None:
    show = stage(RULE)
    for at_s, score in ((0, 0.5), (0.1, 0.9), (0.2, 0.6)):
        show.take(show.observation(at_s, {"ann": 0.4 + at_s}, score=score))

    show.see(0.8)
    (closed,) = show.see(1.4)

    assert closed.score == pytest.approx(0.9)
    assert closed.box_xyxy == pytest.approx((0.55, 0.4, 0.65, 0.8))
