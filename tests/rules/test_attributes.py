"""Attribute predictions for people, on these people's events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storeguard.classification.attributes.prediction import AttributePrediction
from storeguard.events.event import Event, EventStatus, ModelRef
from storeguard.rules.engine import CameraRules
from storeguard.rules.observation import Observation

IN, OUT = 0.5, 0.1
INTRUSION = {"type": "intrusion", "anchor": "foot"}
LOITERING = {"type": "loitering", "loiter_s": 3, "update_s": 60}
OCCUPANCY = {"type": "occupancy", "max_people": 0, "for_s": 0}
BY = ModelRef(name="m", sha256="1" * 64)


def predicted(label: str, share: float = 1.0, name: str = "basket") -> AttributePrediction:
    return AttributePrediction(name=name, label=label, share=share, num_votes=3, model=BY)


def observed(
    show: Any, at_s: float, people: dict[str, float], **attributes: AttributePrediction
) -> Observation:
    observation: Observation = show.observation(at_s, people)
    return replace(observation, attributes={name: (one,) for name, one in attributes.items()})


def labels(event: Event) -> dict[str, Any]:
    return {name: one["label"] for name, one in event.attributes.items()}


def test_an_event_opens_with_the_present_prediction(stage: type[Any]) -> None:
    show = stage(INTRUSION, OCCUPANCY)
    events = show.rules.step(
        observed(show, 0, {"ann": IN, "bob": IN}, ann=predicted("basket", 2 / 3))
    )
    ann, bob, occupancy = events
    assert ann.attributes == {
        "basket": {"label": "basket", "share": 0.6667, "votes": 3, "model": BY.model_dump()}
    }
    assert (ann.person_id, bob.person_id, occupancy.person_id) == ("ann", "bob", None)
    assert bob.attributes == {}
    assert "basket" not in occupancy.attributes


def test_an_open_event_is_updated_by_its_first_label_and_by_another_label(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING)
    show.rules.step(observed(show, 0, {"ann": IN}))
    (first,) = show.rules.step(observed(show, 1, {"ann": IN}, ann=predicted("none")))
    assert (first.type.value, first.version, first.status) == ("intrusion", 2, EventStatus.OPEN)
    assert labels(first) == {"basket": "none"}
    # the same label by other votes changes nothing, another label does
    assert show.rules.step(observed(show, 2, {"ann": IN}, ann=predicted("none", 0.8))) == []
    opened, changed = show.rules.step(observed(show, 3, {"ann": IN}, ann=predicted("basket")))
    assert (opened.type.value, opened.version, labels(opened)) == (
        "loitering",
        1,
        {"basket": "basket"},
    )
    assert (changed.type.value, changed.version, labels(changed)) == (
        "intrusion",
        3,
        {"basket": "basket"},
    )


def test_an_event_that_opens_in_the_same_step_is_reported_once(stage: type[Any]) -> None:
    show = stage(LOITERING | {"loiter_s": 1})
    show.rules.step(observed(show, 0, {"ann": IN}))
    (event,) = show.rules.step(observed(show, 1, {"ann": IN}, ann=predicted("basket")))
    assert (event.version, labels(event)) == (1, {"basket": "basket"})


def test_it_stays_with_the_event_to_its_end(stage: type[Any]) -> None:
    """There may be one prediction only; the person is out of view when the event closes."""
    show = stage(INTRUSION)
    show.rules.step(observed(show, 0, {"ann": IN}, ann=predicted("basket")))
    show.rules.step(observed(show, 1, {"ann": IN}))
    closed = [
        event
        for at_s in (2, 3, 4, 5)
        for event in show.rules.step(observed(show, at_s, {}))
        if event.status is EventStatus.CLOSED
    ]
    assert [labels(event) for event in closed] == [{"basket": "basket"}]
    # and is dropped with them: the state is bounded by the people in view
    show.rules.step(observed(show, 6, {}))
    assert b"basket" not in show.rules.checkpoint()


@pytest.mark.parametrize("how", ["tick", "close_all"])
def test_it_stays_when_the_camera_falls_silent_or_is_removed(stage: type[Any], how: str) -> None:
    show = stage(INTRUSION)
    show.rules.step(observed(show, 0, {"ann": IN}, ann=predicted("basket")))
    at = stage.START.replace(hour=23)
    (closed,) = show.rules.tick(at) if how == "tick" else show.rules.close_all(at)
    assert (closed.status, labels(closed)) == (EventStatus.CLOSED, {"basket": "basket"})


def test_it_survives_a_restart(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    show.rules.step(observed(show, 0, {"ann": IN}, ann=predicted("basket")))
    restarted = CameraRules("shop", show.camera)
    assert restarted.restore(show.rules.checkpoint()) == []
    # the same prediction after the restart changes nothing, and none loses nothing
    assert restarted.step(observed(show, 1, {"ann": IN}, ann=predicted("basket"))) == []
    (closed,) = restarted.close_all(stage.START)
    assert labels(closed) == {"basket": "basket"}


def test_an_event_has_several_attributes_and_the_rules_own(stage: type[Any]) -> None:
    show = stage(INTRUSION, line=[{"type": "line_crossing"}])
    both = {"ann": (predicted("basket"), predicted("red", name="shirt"))}
    for at_s, place in enumerate((0.1, 0.9, 0.9)):
        observation = replace(show.observation(at_s, {"ann": place}), attributes=both)
        for event in show.rules.step(observation):
            seen = set(event.attributes)
            assert {"basket", "shirt"} <= seen
            if event.type.value == "line_crossing":
                assert seen == {"basket", "shirt", "direction"}
                return
    raise AssertionError("expected a line crossing, found none")
