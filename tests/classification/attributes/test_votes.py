"""Majority votes: who is said to have which label, from when on, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from storeguard.classification.attributes.classifier import AttributeInfo
from storeguard.classification.attributes.votes import Look, Votes
from storeguard.config.models import AttributeSettings
from storeguard.events.event import ModelRef

BY = AttributeInfo("basket", ("none", "basket"), "m", "1" * 64, "onnxruntime-cpu", "fp32")


def votes(**settings: Any) -> Votes:
    return Votes(
        AttributeSettings.model_validate({"name": "basket", "model": "m.onnx", **settings})
    )


def looks(labels: str, person: str = "ann", probability: float = 0.9) -> list[Look]:
    """`n` for none, `b` for a basket."""
    names = {"n": "none", "b": "basket"}
    return [Look(person, names[letter], probability, BY) for letter in labels]


@pytest.mark.parametrize(
    ("taken", "label", "share", "num_votes"),
    [
        ("b", None, 0, 0),
        ("bb", None, 0, 0),
        ("bbb", "basket", 1.0, 3),
        ("nbb", "basket", 2 / 3, 3),
        ("nbbn", "basket", 0.5, 4),  # as many: what was said before stays
        ("nbbnn", "none", 0.6, 5),
        ("bnnb", "none", 0.5, 4),
        ("bbbbbbbb" + "n" * 7, "basket", 8 / 15, 15),
        ("bbbbbbbb" + "n" * 8, "none", 8 / 15, 15),  # only the latest fifteen count
    ],
)
def test_the_majority(taken: str, label: str | None, share: float, num_votes: int) -> None:
    counted = votes()
    counted.take(looks(taken))
    said = counted.said().get("ann")
    if label is None:
        assert said is None
        return
    assert said is not None
    assert (said.name, said.label, said.num_votes) == ("basket", label, num_votes)
    assert said.share == pytest.approx(share)
    assert said.model == ModelRef(name="m", sha256="1" * 64)
    assert said.document() == {
        "label": label,
        "share": round(share, 4),
        "votes": num_votes,
        "model": {"name": "m", "sha256": "1" * 64},
    }


def test_as_many_from_the_start_say_nothing_yet() -> None:
    counted = votes(min_votes=2)
    counted.take(looks("nb"))
    assert counted.said() == {}
    counted.take(looks("b"))
    assert counted.said()["ann"].label == "basket"


def test_an_unsure_look_is_no_vote() -> None:
    counted = votes(min_score=0.8)
    counted.take(looks("bbb", probability=0.79))
    assert counted.said() == {}
    counted.take(looks("bbb", probability=0.8))
    assert counted.said()["ann"].num_votes == 3


def test_people_do_not_share_votes_and_are_forgotten() -> None:
    counted = votes()
    counted.take([*looks("bb"), *looks("nnn", "bob"), *looks("b")])
    assert {name: said.label for name, said in counted.said().items()} == {
        "ann": "basket",
        "bob": "none",
    }
    counted.forget_all_but(["bob"])
    assert list(counted.said()) == ["bob"]
    counted.take(looks("bb"))  # somebody new by that id begins anew
    assert list(counted.said()) == ["bob"]
