from __future__ import annotations

from typing import Any

IN, OUT = 0.5, 0.1
RULE = {"type": "person", "min_score": 0.35, "cooldown_s": 30}


def test_opens_at_the_first_sighting_and_closes_after_leaving(stage: type[Any]) -> None:
    show = stage(person=RULE)
    show.watch(0, 5, fps=2, ann=OUT)
    show.watch(5.5, 7, fps=2)
    assert show.statuses() == [("person", "open", "ann")]  # two seconds of grace
    show.see(7.5)

    assert show.closed() == [("ann", 0, 5)]
    closed = show.events[-1]
    assert (closed.zone_id, closed.dwell_s, closed.version) == (None, None, 2)


def test_one_cooldown_for_all_people(stage: type[Any]) -> None:
    show = stage(person=RULE)
    show.see(0, ann=OUT)
    show.watch(20, 40, fps=2, bob=OUT)  # first seen within the cooldown: no event, and none later
    show.see(41, bob=OUT, cem=OUT)

    assert [person for _, status, person in show.statuses() if status == "open"] == ["ann", "cem"]


def test_weak_boxes_do_not_count(stage: type[Any]) -> None:
    show = stage(person=RULE)
    show.take(show.observation(0, {"ann": OUT}, score=0.34))
    assert show.events == []

    show.take(show.observation(1, {"ann": OUT}, score=0.4))

    assert show.closed() == []
    assert [e.started_at for e in show.events] == [show.rules.captured_at]


def test_in_a_zone_it_means_first_seen_in_the_zone(stage: type[Any]) -> None:
    show = stage(RULE, person=RULE)
    show.see(0, ann=OUT)
    show.see(1, ann=IN)

    # The camera's rule and the zone's have separate cooldowns.
    assert [(e.type.value, e.zone_id) for e in show.events] == [("person", None), ("person", "z")]
