"""Majority votes: which label a person has, from which vote on, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from storeguard.classification.attributes.classifier import AttributeInfo
from storeguard.classification.attributes.votes import CropPrediction, Votes
from storeguard.config.models import AttributeSettings
from storeguard.events.event import ModelRef

BY = AttributeInfo("basket", ("none", "basket"), "m", "1" * 64, "onnxruntime-cpu", "fp32")


def votes(**settings: Any) -> Votes:
    return Votes(
        AttributeSettings.model_validate({"name": "basket", "model": "m.onnx", **settings})
    )


def predictions(labels: str, person: str = "ann", probability: float = 0.9) -> list[CropPrediction]:
    """`n` for none, `b` for a basket."""
    names = {"n": "none", "b": "basket"}
    return [CropPrediction(person, names[letter], probability, BY) for letter in labels]


@pytest.mark.parametrize(
    ("taken", "label", "share", "num_votes"),
    [
        ("b", None, 0, 0),
        ("bb", None, 0, 0),
        ("bbb", "basket", 1.0, 3),
        ("nbb", "basket", 2 / 3, 3),
        ("nbbn", "basket", 0.5, 4),  # a tie: the label before stays
        ("nbbnn", "none", 0.6, 5),
        ("bnnb", "none", 0.5, 4),
        ("bbbbbbbb" + "n" * 7, "basket", 8 / 15, 15),
        ("bbbbbbbb" + "n" * 8, "none", 8 / 15, 15),  # only the latest fifteen count
    ],
)
def test_the_majority(taken: str, label: str | None, share: float, num_votes: int) -> None:
    counted = votes()
    counted.count(predictions(taken))
    voted = counted.labels().get("ann")
    if label is None:
        assert voted is None
        return
    assert voted is not None
    assert (voted.name, voted.label, voted.num_votes) == ("basket", label, num_votes)
    assert voted.share == pytest.approx(share)
    assert voted.model == ModelRef(name="m", sha256="1" * 64)
    assert voted.document() == {
        "label": label,
        "share": round(share, 4),
        "votes": num_votes,
        "model": {"name": "m", "sha256": "1" * 64},
    }


def test_a_tie_from_the_start_gives_no_label() -> None:
    counted = votes(min_votes=2)
    counted.count(predictions("nb"))
    assert counted.labels() == {}
    counted.count(predictions("b"))
    assert counted.labels()["ann"].label == "basket"


def test_an_unsure_look_is_no_vote() -> None:
    counted = votes(min_score=0.8)
    counted.count(predictions("bbb", probability=0.79))
    assert counted.labels() == {}
    counted.count(predictions("bbb", probability=0.8))
    assert counted.labels()["ann"].num_votes == 3


def test_people_do_not_share_votes_and_are_forgotten() -> None:
    counted = votes()
    counted.count([*predictions("bb"), *predictions("nnn", "bob"), *predictions("b")])
    assert {name: label.label for name, label in counted.labels().items()} == {
        "ann": "basket",
        "bob": "none",
    }
    counted.forget_all_but(["bob"])
    assert list(counted.labels()) == ["bob"]
    counted.count(predictions("bb"))  # a new person of that id starts without votes
    assert list(counted.labels()) == ["bob"]
