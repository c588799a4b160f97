"""Suspected shoplifting: scores of one person's clips, over one visit to a zone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from storeguard.config.zones import ZoneConfig
from storeguard.events.event import Event, ModelRef
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import ClipScore

MODEL = ModelRef(name="classifier", sha256="ab" * 32)
INTRUSION = {"type": "intrusion", "cooldown_s": 0}
LOITERING = {"type": "loitering", "loiter_s": 3}
RULE = {"type": "shoplifting_suspected"}
POLYGON = [(0, 0), (1, 0), (1, 1)]


def clip_score(
    stage: Any, person_id: str, at_s: float, score: float, *, threshold: float = 0.7
) -> ClipScore:
    return ClipScore(
        person_id, stage.START + timedelta(seconds=at_s), score, threshold=threshold, model=MODEL
    )


def play(
    stage: Any,
    stop_s: float,
    scores: Mapping[str, Mapping[float, float]],
    *,
    start_s: float = 0.0,
    late_s: float = 0.2,
    threshold: float = 0.7,
    **people: Any,
) -> list[Event]:
    """People for a while at 5 fps, with their clips' scores by the clip's last moment.

    A score comes with the observation `late_s` after its clip.

    Returns:
        The rule's own events, each version of them, in order.
    """
    before = len(stage.events)
    by_frame: dict[int, list[ClipScore]] = {}
    for person_id, by_second in scores.items():
        for clip_s, value in by_second.items():
            score = clip_score(stage, person_id, clip_s, value, threshold=threshold)
            by_frame.setdefault(round((clip_s + late_s) * 5), []).append(score)
    for frame in range(round(start_s * 5), round(stop_s * 5) + 1):
        received = tuple(by_frame.get(frame, ()))
        stage.take(replace(stage.observation(frame / 5, people), clip_scores=received))
    return suspicions(stage, before)


def suspicions(stage: Any, after: int = 0) -> list[Event]:
    return [event for event in stage.events[after:] if event.type == "shoplifting_suspected"]


def second(stage: Any, moment: Any) -> float:
    return round((moment - stage.START).total_seconds(), 3)


@pytest.fixture
def shop(stage: Any) -> Any:
    return stage(INTRUSION, LOITERING, RULE)


# ---------------------------------------------------------------------- when it opens


@pytest.mark.parametrize(
    ("rule", "scores", "opens_s"),
    [
        ({}, {2: 0.9, 3: 0.9, 4: 0.9}, 4.2),  # three clips, when the third score is received
        ({}, {2: 0.7, 3: 0.7, 4: 0.7}, 4.2),  # just at the threshold
        ({}, {2: 0.7, 3: 0.7, 4: 0.69}, None),  # just below
        ({}, {2: 1.0}, None),  # one clip is not enough
        ({}, {2: 1.0, 3: 1.0}, None),
        ({}, {2: 1.0, 3: 1.0, 4: 0.09}, None),  # two are not either
        ({}, {2: 1.0, 3: 0.0, 4: 0.0, 5: 0.6, 6: 0.5}, 6.2),  # the three highest, not the latest
        ({}, {2: 0.9, 7: 0.9, 11.8: 0.9}, 12.0),  # within ten seconds
        ({}, {2: 0.9, 7: 0.9, 12.0: 0.9}, None),  # not within
        ({"window_s": 30}, {2: 0.9, 7: 0.9, 12.0: 0.9}, 12.2),
        ({"top_clips": 1}, {2: 0.2, 3: 0.71}, 3.2),
        ({"threshold": 0.5}, {2: 0.5, 3: 0.5, 4: 0.5}, 4.2),  # rather than the model's
        ({"threshold": 0.95}, {2: 0.9, 3: 0.9, 4: 0.9}, None),
        ({}, {}, None),
    ],
)
def test_it_opens_when_the_highest_clips_reach_the_threshold(
    stage: Any, rule: dict[str, Any], scores: dict[float, float], opens_s: float | None
) -> None:
    shop = stage(INTRUSION, RULE | rule)
    play(shop, 15, {"ann": scores}, ann=shop.IN)
    opened = [event for event in suspicions(shop) if event.version == 1]
    assert [second(shop, event.updated_at) for event in opened] == (
        [] if opens_s is None else [opens_s]
    )


def test_a_long_visit_is_not_suspected_for_being_long(stage: Any) -> None:
    """Twenty minutes with one false alarm of the model a minute, never three within the window."""
    shop = stage(INTRUSION, RULE)
    scores = {float(at): 0.95 if at % 60 == 30 else 0.1 for at in range(2, 1200)}
    assert play(shop, 1200, {"ann": scores}, ann=shop.IN) == []
    # the saved scores are bounded by the window, not by the visit
    assert len(shop.rules.checkpoint()) < 8000


def test_it_opens_once_a_visit(shop: Any) -> None:
    scores = {float(at): 0.9 for at in range(2, 20)}
    events = play(shop, 20, {"ann": scores}, ann=shop.IN)
    assert len({event.event_id for event in events}) == 1
    assert [event.version for event in events] == list(range(1, len(events) + 1))
    assert {event.status.value for event in events} == {"open"}
    gaps = [
        (later.updated_at - earlier.updated_at).total_seconds()
        for earlier, later in pairwise(events)
    ]
    assert min(gaps) >= 1.0  # update_s


# ---------------------------------------------------------------------- what the event carries


def test_it_starts_with_the_first_of_the_clips_that_raised_it(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    scores = {3: 0.1, 4: 0.1, 5: 0.9, 6: 0.2, 7: 0.9, 8: 0.9, 9: 1.0}
    first, *_, last = play(shop, 12, {"ann": scores}, ann=shop.IN)
    assert second(shop, first.started_at) == 3.0  # the clip of 3 s to 5 s
    assert last.started_at == first.started_at


def test_it_never_starts_before_the_visit(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    play(shop, 4, {}, ann=shop.OUT)
    (event, *_) = play(shop, 9, {"ann": {4.6: 0.9, 5.6: 0.9, 6.6: 0.9}}, start_s=4.2, ann=shop.IN)
    assert second(shop, event.started_at) == pytest.approx(4.2)


def test_score_threshold_decision_and_model_are_on_the_event(shop: Any) -> None:
    play(shop, 6, {"ann": {2: 0.9, 3: 0.8, 4: 0.7, 5: 0.3}}, ann=shop.IN)
    shop.watch(6.2, 8, fps=5)
    first, *_, last = suspicions(shop)
    assert first.score == pytest.approx(0.8)
    assert first.model == last.model == MODEL
    assert first.rule["top_clips"] == 3
    assert first.person_id == "ann"
    assert (first.zone_id, first.dwell_s) == ("z", None)
    attributes = dict(first.attributes)
    assert [score for _, score in attributes.pop("clip_scores")] == [0.9, 0.8, 0.7]
    assert attributes == {"threshold": 0.7, "decision": "suspected", "clips": 3}
    # it closes with the highest score
    assert last.status.value == "closed"
    assert last.score == pytest.approx(0.8)
    assert last.attributes["clips"] == 4
    assert last.attributes["decision"] == "suspected"
    assert Event.model_validate_json(last.model_dump_json()) == last


@pytest.mark.parametrize(
    ("scores", "decision", "score"),
    [
        ({2: 0.9, 3: 0.8, 4: 0.7}, "suspected", 0.8),
        ({2: 0.4, 3: 0.3, 4: 0.2}, "not suspected", 0.3),
        ({2: 1.0}, "not suspected", 0.0),  # too few clips
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["last", "first"])
def test_the_prediction_is_on_the_persons_other_events(
    stage: Any, scores: dict[float, float], decision: str, score: float, order: tuple[int, ...]
) -> None:
    """In every order of the rules, and until the events close."""
    rules = (INTRUSION, LOITERING, RULE)
    shop = stage(*(rules[i] for i in order))
    play(shop, 6, {"ann": scores}, ann=shop.IN, bob=shop.IN)
    shop.watch(6.2, 8, fps=5)
    closed = [event for event in shop.events if event.status.value == "closed"]
    for kind in ("intrusion", "loitering"):
        (anns,) = [one for one in closed if (one.type, one.person_id) == (kind, "ann")]
        (bobs,) = [one for one in closed if (one.type, one.person_id) == (kind, "bob")]
        assert anns.attributes["shoplifting"] == {
            "score": pytest.approx(score),
            "threshold": 0.7,
            "decision": decision,
            "clips": len(scores),
            "model": MODEL.model_dump(),
        }
        assert anns.model is None  # the detector's model, not the classifier's
        assert bobs.attributes == {}
    assert {event.person_id for event in suspicions(shop)} <= {"ann"}


def test_a_score_that_comes_with_the_end_is_on_the_closed_event(stage: Any) -> None:
    """It is received with the observation that ends the visit."""
    shop = stage(INTRUSION, RULE)
    play(shop, 4, {"ann": {2: 0.9, 3: 0.9}}, ann=shop.IN)
    play(shop, 5.2, {"ann": {4: 0.9}}, start_s=4.2, late_s=1.2)
    assert shop.statuses()[-3:] == [
        ("shoplifting_suspected", "open", "ann"),
        ("intrusion", "closed", "ann"),
        ("shoplifting_suspected", "closed", "ann"),
    ]
    assert shop.events[-2].attributes["shoplifting"]["decision"] == "suspected"


def test_only_events_of_rules_in_during_carry_the_prediction(stage: Any) -> None:
    shop = stage(INTRUSION, LOITERING, RULE | {"during": ["loitering"]})
    play(shop, 6, {"ann": {4: 0.5, 5: 0.5}}, ann=shop.IN)
    shop.watch(6.2, 8, fps=5)
    closed = {event.type.value: event for event in shop.events if event.ended_at}
    assert "shoplifting" in closed["loitering"].attributes
    assert closed["intrusion"].attributes == {}


def test_a_prediction_stays_on_its_event_when_the_classifiers_visit_is_shorter(
    stage: Any,
) -> None:
    """Loitering bridges five seconds, the classifier's rule one."""
    shop = stage(LOITERING | {"grace_s": 5}, RULE)
    play(shop, 6, {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}, ann=shop.IN)
    play(shop, 9, {}, start_s=6.2, ann=shop.OUT)
    play(shop, 13, {"ann": {11: 0.2, 12: 0.1}}, start_s=9.2, ann=shop.IN)
    loitering = [event for event in shop.events if event.type == "loitering"]
    assert len({event.event_id for event in loitering}) == 1
    assert loitering[-1].attributes["shoplifting"]["score"] == pytest.approx(0.9)
    assert [event.status.value for event in suspicions(shop)][-1] == "closed"


# ---------------------------------------------------------------------- one person, one visit


def test_scores_are_never_shared(shop: Any) -> None:
    scores = {"ann": {2: 0.9, 4: 0.9}, "bob": {3: 0.9}}
    assert play(shop, 8, scores, ann=shop.IN, bob=shop.IN) == []


def test_a_person_outside_is_not_suspected(shop: Any) -> None:
    scores = {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}
    assert play(shop, 8, scores, ann=shop.OUT, bob=shop.IN) == []


@pytest.mark.parametrize("away_s", [2.0, 12.0], ids=["out of the zone", "camera silent"])
def test_a_new_visit_begins_without_a_score(stage: Any, away_s: float) -> None:
    """Also when the camera was silent in between, and the old and the new visit meet in one step."""
    shop = stage(INTRUSION, RULE)
    play(shop, 6, {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}, ann=shop.IN)
    if away_s < 10:
        shop.watch(6.2, 6 + away_s, fps=5, ann=shop.OUT)
    back_s = 6 + away_s + 0.2
    events = play(
        shop, back_s + 8, {"ann": {back_s + 2: 0.9, back_s + 3: 0.9}}, start_s=back_s, ann=shop.IN
    )
    assert [event.status.value for event in suspicions(shop)][-1] == "closed"
    assert all(event.status.value == "closed" for event in events)


def test_a_visit_ended_by_silence_leaves_no_score_to_the_next(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    play(shop, 6, {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}, ann=shop.IN)
    closed = shop.rules.tick(shop.START + timedelta(seconds=30))
    assert {event.type.value for event in closed} == {"intrusion", "shoplifting_suspected"}
    assert all(event.status.value == "closed" for event in closed)
    events = play(shop, 44, {"ann": {33: 0.9, 34: 0.9}}, start_s=31, ann=shop.IN)
    assert events == []


def test_a_clip_from_before_the_visit_does_not_count(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    play(shop, 4, {}, ann=shop.OUT)
    late = play(shop, 9, {"ann": {3.9: 1.0, 6: 0.9, 7: 0.9}}, start_s=4.2, late_s=0.4, ann=shop.IN)
    assert late == []


@pytest.mark.parametrize("absent", [{}, {"ann": 0.1}], ids=["unseen", "outside"])
def test_the_last_clip_counts_though_its_score_comes_when_the_person_has_left(
    stage: Any, absent: dict[str, float]
) -> None:
    shop = stage(INTRUSION, RULE)
    scores = {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}
    play(shop, 4, scores, ann=shop.IN)
    (event,) = play(shop, 4.8, scores, start_s=4.2, **absent)
    assert (event.status.value, event.person_id) == ("open", "ann")
    play(shop, 7, {}, start_s=5, **absent)
    closed = suspicions(shop)[-1]
    assert closed.event_id == event.event_id
    assert second(shop, closed.ended_at) == 4.0


def test_an_observation_sent_repeatedly_counts_once(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    play(shop, 3, {"ann": {2: 0.9}}, ann=shop.IN)
    repeated = replace(
        shop.observation(3.2, {"ann": shop.IN}), clip_scores=(clip_score(shop, "ann", 3, 0.9),)
    )
    for _ in range(5):
        shop.take(repeated)
    assert suspicions(shop) == []


# ---------------------------------------------------------------------- restarts and changes


@pytest.mark.parametrize("restart_s", [2.6, 3.4, 4.0, 4.6, 7.0])
def test_a_restart_changes_nothing(stage: Any, restart_s: float) -> None:
    """Before the first clip that counts, between clips, after opening: the same events come."""
    rules = (INTRUSION, LOITERING, RULE)
    scores = {"ann": {2: 0.9, 3: 0.9, 4: 0.9, 6: 0.8, 8: 0.95}}

    def played(*, restarted: bool) -> list[Event]:
        shop = stage(*rules)
        play(shop, restart_s, scores, ann=shop.IN)
        if restarted:
            blob = shop.rules.checkpoint()
            shop.rules = CameraRules("shop", shop.camera)
            assert shop.rules.restore(blob) == []
        play(shop, 10, scores, start_s=restart_s + 0.2, ann=shop.IN)
        shop.watch(10.2, 12, fps=5)
        events: list[Event] = shop.events
        return events

    whole, resumed = played(restarted=False), played(restarted=True)
    assert [one.model_dump(mode="json") for one in resumed] == [
        one.model_dump(mode="json") for one in whole
    ]
    assert (
        len([one for one in resumed if one.type == "shoplifting_suspected" and one.version == 1])
        == 1
    )


def test_another_threshold_applies_from_the_next_clip_on(stage: Any) -> None:
    shop = stage(INTRUSION, RULE | {"threshold": 0.95})
    assert play(shop, 5, {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}, ann=shop.IN) == []
    shop.rules.reconfigure(shop.configured(INTRUSION, RULE | {"threshold": 0.5}))
    assert play(shop, 6, {}, start_s=5.2, ann=shop.IN) == []
    events = play(shop, 8, {"ann": {6.4: 0.1}}, start_s=6.2, ann=shop.IN)
    assert [event.status.value for event in events] == ["open"]


def test_a_removed_rule_closes_its_event(stage: Any) -> None:
    shop = stage(INTRUSION, RULE)
    play(shop, 5, {"ann": {2: 0.9, 3: 0.9, 4: 0.9}}, ann=shop.IN)
    (closed,) = shop.rules.reconfigure(shop.configured(INTRUSION))
    assert (closed.type.value, closed.status.value) == ("shoplifting_suspected", "closed")
    assert closed.model == MODEL
    assert play(shop, 9, {"ann": {6: 0.9, 7: 0.9, 8: 0.9}}, start_s=5.2, ann=shop.IN) == []


# ---------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([RULE], "needs one of these rules in the same zone: intrusion or loitering"),
        ([RULE, {"type": "occupancy", "max_people": 1}], "needs one of these rules"),
        ([RULE | {"during": ["loitering"]}, INTRUSION], "same zone: loitering"),
        ([RULE | {"during": []}, INTRUSION], "during"),
        ([RULE | {"during": ["person"]}, INTRUSION], "during"),
        ([RULE | {"threshold": 0}, INTRUSION], "threshold"),
        ([RULE | {"threshold": 1}, INTRUSION], "threshold"),
        ([RULE | {"cls_every_s": 0}, INTRUSION], "cls_every_s"),
        ([RULE | {"top_clips": 0}, INTRUSION], "top_clips"),
        ([RULE, RULE, INTRUSION], "is given 2 times"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ZoneConfig.model_validate({"id": "z", "polygon": POLYGON, "rules": rules})


@pytest.mark.parametrize("other", [INTRUSION, LOITERING])
def test_one_of_the_two_rules_in_the_zone_is_enough(other: dict[str, Any]) -> None:
    zone = ZoneConfig.model_validate({"id": "z", "polygon": POLYGON, "rules": [other, RULE]})
    assert zone.shoplifting is not None
    assert zone.shoplifting.threshold is None
