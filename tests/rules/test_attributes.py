"""What attribute classifiers say of people, on the events about them."""

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


def told(label: str, share: float = 1.0, name: str = "basket") -> AttributePrediction:
    return AttributePrediction(name=name, label=label, share=share, num_votes=3, model=BY)


def seeing(
    show: Any, at_s: float, people: dict[str, float], **attributes: AttributePrediction
) -> Observation:
    observation: Observation = show.observation(at_s, people)
    return replace(observation, attributes={name: (one,) for name, one in attributes.items()})


def labels(event: Event) -> dict[str, Any]:
    return {name: one["label"] for name, one in event.attributes.items()}


def test_an_event_opens_with_what_is_known(stage: type[Any]) -> None:
    show = stage(INTRUSION, OCCUPANCY)
    events = show.rules.step(seeing(show, 0, {"ann": IN, "bob": IN}, ann=told("basket", 2 / 3)))
    ann, bob, everybody = events
    assert ann.attributes == {
        "basket": {"label": "basket", "share": 0.6667, "votes": 3, "model": BY.model_dump()}
    }
    assert (ann.person_id, bob.person_id, everybody.person_id) == ("ann", "bob", None)
    assert bob.attributes == {}
    assert "basket" not in everybody.attributes


def test_an_open_event_hears_of_it_at_once_and_of_another_label(stage: type[Any]) -> None:
    show = stage(INTRUSION, LOITERING)
    show.rules.step(seeing(show, 0, {"ann": IN}))
    (first,) = show.rules.step(seeing(show, 1, {"ann": IN}, ann=told("none")))
    assert (first.type.value, first.version, first.status) == ("intrusion", 2, EventStatus.OPEN)
    assert labels(first) == {"basket": "none"}
    # the same label by other votes is no news, another label is
    assert show.rules.step(seeing(show, 2, {"ann": IN}, ann=told("none", 0.8))) == []
    opened, changed = show.rules.step(seeing(show, 3, {"ann": IN}, ann=told("basket")))
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


def test_an_event_that_changes_anyhow_is_not_said_twice(stage: type[Any]) -> None:
    show = stage(LOITERING | {"loiter_s": 1})
    show.rules.step(seeing(show, 0, {"ann": IN}))
    (event,) = show.rules.step(seeing(show, 1, {"ann": IN}, ann=told("basket")))
    assert (event.version, labels(event)) == (1, {"basket": "basket"})


def test_it_stays_with_the_event_to_its_end(stage: type[Any]) -> None:
    """The classifier's answer may come once; the person is out of sight when the event closes."""
    show = stage(INTRUSION)
    show.rules.step(seeing(show, 0, {"ann": IN}, ann=told("basket")))
    show.rules.step(seeing(show, 1, {"ann": IN}))
    closed = [
        event
        for at_s in (2, 3, 4, 5)
        for event in show.rules.step(seeing(show, at_s, {}))
        if event.status is EventStatus.CLOSED
    ]
    assert [labels(event) for event in closed] == [{"basket": "basket"}]
    # and is forgotten with them: the state is bounded by who is there
    show.rules.step(seeing(show, 6, {}))
    assert b"basket" not in show.rules.checkpoint()


@pytest.mark.parametrize("how", ["tick", "close_all"])
def test_it_stays_when_the_camera_falls_silent_or_goes(stage: type[Any], how: str) -> None:
    show = stage(INTRUSION)
    show.rules.step(seeing(show, 0, {"ann": IN}, ann=told("basket")))
    at = stage.START.replace(hour=23)
    (closed,) = show.rules.tick(at) if how == "tick" else show.rules.close_all(at)
    assert (closed.status, labels(closed)) == (EventStatus.CLOSED, {"basket": "basket"})


def test_it_survives_a_restart(stage: type[Any]) -> None:
    show = stage(INTRUSION)
    show.rules.step(seeing(show, 0, {"ann": IN}, ann=told("basket")))
    restarted = CameraRules("shop", show.camera)
    assert restarted.restore(show.rules.checkpoint()) == []
    # told again after the restart it is no news, and not told it is not lost
    assert restarted.step(seeing(show, 1, {"ann": IN}, ann=told("basket"))) == []
    (closed,) = restarted.close_all(stage.START)
    assert labels(closed) == {"basket": "basket"}


def test_several_attributes_and_a_rules_own_beside_each_other(stage: type[Any]) -> None:
    show = stage(INTRUSION, line=[{"type": "line_crossing"}])
    both = {"ann": (told("basket"), told("red", name="shirt"))}
    for at_s, place in enumerate((0.1, 0.9, 0.1)):
        observation = replace(show.observation(at_s, {"ann": place}), attributes=both)
        for event in show.rules.step(observation):
            seen = set(event.attributes)
            assert {"basket", "shirt"} <= seen
            if event.type.value == "line_crossing":
                assert seen == {"basket", "shirt", "direction"}
                return
    raise AssertionError("nobody crossed the line")
