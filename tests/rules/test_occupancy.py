from __future__ import annotations

from typing import Any

IN, OUT = 0.5, 0.1
RULE = {
    "type": "occupancy",
    "anchor": "foot",
    "max_people": 1,
    "for_s": 2.0,
    "grace_s": 1.0,
    "update_s": 1.0,
}


def test_opens_after_for_s_counts_its_peak_and_closes_after_grace(stage: type[Any]) -> None:
    show = stage(RULE)
    show.watch(0, 0.9, ann=IN)
    show.watch(1, 3.5, ann=IN, bob=0.4)
    show.watch(3.6, 3.9, ann=IN, bob=0.4, cem=0.6)
    show.watch(4, 4.5, ann=IN, bob=0.4)
    show.watch(4.6, 6, ann=IN, bob=OUT)

    assert [
        (e.version, e.status.value, e.attributes["people"], e.attributes["peak_people"])
        for e in show.events
    ] == [(1, "open", 2, 2), (2, "open", 2, 3), (3, "closed", 2, 3)]
    assert show.closed() == [(None, 1.0, 4.5)]
    closed = show.events[-1]
    assert (closed.zone_id, closed.person_id, closed.box_xyxy, closed.dwell_s) == (
        "z",
        None,
        None,
        None,
    )


def test_at_the_limit_is_not_over_it(stage: type[Any]) -> None:
    show = stage(RULE | {"max_people": 2})
    show.watch(0, 10, ann=IN, bob=IN, cem=OUT)

    assert show.events == []


def test_too_short_raises_no_event(stage: type[Any]) -> None:
    show = stage(RULE)
    show.watch(0, 1.9, ann=IN, bob=IN)
    show.watch(2, 10, ann=IN)

    assert show.events == []


def test_people_may_change_places(stage: type[Any]) -> None:
    show = stage(RULE)
    show.watch(0, 1.4, ann=IN, bob=IN)
    show.watch(1.5, 2.9, bob=IN, cem=IN)  # never two of the same for two seconds

    assert show.statuses() == [("occupancy", "open", None)]


def test_a_person_undetected_for_one_frame_ends_nothing(stage: type[Any]) -> None:
    show = stage(RULE)
    for index in range(60):
        show.see(index / 10, **({"ann": IN} if index % 7 == 3 else {"ann": IN, "bob": IN}))

    assert [status for _, status, _ in show.statuses()] == ["open"] * 4  # at 2, 3, 4 and 5 s


def test_max_people_0_and_for_s_0_open_at_the_first_person(stage: type[Any]) -> None:
    show = stage(RULE | {"max_people": 0, "for_s": 0})

    (event,) = show.see(0, ann=IN)

    assert event.attributes == {"people": 1, "peak_people": 1}
