"""Attribute classifiers on real (small) models of every kind that people have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from storeguard.classification.attributes.classifier import AttributeClassifier, are_probabilities
from storeguard.config.models import AttributeSettings
from storeguard.engines.loading import load_attribute_classifier
from storeguard.errors import ModelError
from tests.classification.attributes.models import COLOURS, save_colour_model
from tests.classification.clips.clip_models import save_clip_model
from tests.inference.gated_backend import GatedBackend


def crop(*rgb: int) -> NDArray[np.uint8]:
    picture = np.zeros((60, 30, 3), np.uint8)
    picture[:] = rgb
    return picture


RED, GREEN, BLUE = crop(255, 0, 0), crop(0, 255, 0), crop(0, 0, 255)


def opened(model: Path, **settings: Any) -> AttributeClassifier:
    document = {"name": "colour", "model": str(model), **settings}
    return load_attribute_classifier(AttributeSettings.model_validate(document))


def labels_of(classifier: AttributeClassifier) -> list[str]:
    return [label for label, _ in classifier.label([RED, GREEN, BLUE])]


@pytest.mark.parametrize(
    "shape", [("n", 3, 32, 16), (1, 3, 32, 16), ("n", 32, 16, 3), ("n", 3, "h", "w")]
)
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_a_model_of_any_shape(
    tmp_path: Path, shape: tuple[int | str, ...], softmax: bool, resize: str
) -> None:
    model = save_colour_model(tmp_path / "m.onnx", shape=shape, softmax=softmax)
    classifier = opened(model, resize=resize)
    probabilities = classifier.probabilities([RED, GREEN, BLUE])
    assert probabilities.shape == (3, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert labels_of(classifier) == list(COLOURS)
    best = [probability for _, probability in classifier.label([RED, GREEN, BLUE])]
    assert best == pytest.approx(probabilities.max(axis=1).tolist())


def test_what_it_is(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "hats.onnx")
    info = opened(model).info
    assert (info.attribute, info.name, info.labels) == ("colour", "hats", COLOURS)
    assert info.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (info.backend, info.precision) == ("onnxruntime-cpu", "fp32")


def test_logits_that_happen_to_look_like_probabilities_are_none(tmp_path: Path) -> None:
    """Whether a model gives probabilities is decided by many pictures, not by one."""
    model = save_colour_model(tmp_path / "m.onnx", gain=1.0, metadata={"pixels": "unit"})
    classifier = opened(model, resize="stretch")
    assert are_probabilities(np.array([[0.0, 1.0, 0.0]], np.float32))
    logits = np.exp([1.0, 0.0, 0.0])  # of pure red, whose means are 1, 0 and 0
    assert classifier.probabilities([RED])[0] == pytest.approx(logits / logits.sum(), abs=1e-5)


@pytest.mark.parametrize(("metadata_resize", "set_to", "is_filled"), [
    (None, None, True), ("stretch", None, False), ("stretch", "letterbox", True),
])  # fmt: skip
def test_resizing_as_in_the_metadata(
    tmp_path: Path, metadata_resize: str | None, set_to: str | None, is_filled: bool
) -> None:
    """A tall red crop in a square picture: filled up at its sides, or stretched over all of it."""
    metadata = {"pixels": "unit"} | ({} if metadata_resize is None else {"resize": metadata_resize})
    model = save_colour_model(
        tmp_path / "m.onnx", shape=("n", 3, 32, 32), gain=1.0, metadata=metadata
    )
    red = opened(model, resize=set_to).probabilities([RED])[0, 0]
    whole = np.e / (np.e + 2)
    assert (red < whole - 0.05) if is_filled else red == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize(
    ("metadata", "settings", "seen"),
    [
        ({}, {}, COLOURS),
        ({}, {"channels": "bgr"}, COLOURS[::-1]),
        ({"channels": "bgr"}, {}, COLOURS[::-1]),
        ({"channels": "bgr"}, {"channels": "rgb"}, COLOURS),
        ({"channels": "3"}, {}, COLOURS),  # others' metadata
    ],
)
def test_colour_order(
    tmp_path: Path, metadata: dict[str, str], settings: dict[str, str], seen: tuple[str, ...]
) -> None:
    model = save_colour_model(tmp_path / "m.onnx", metadata=metadata)
    assert labels_of(opened(model, **settings)) == list(seen)


def test_pixels_are_normalised_as_configured(tmp_path: Path) -> None:
    """Logits are means: what a white crop's are shows what the model was given."""
    model = save_colour_model(tmp_path / "m.onnx", gain=0.01, shape=("n", 3, 8, 8))
    white = crop(255, 255, 255)
    for pixels, means in {
        "bytes": (255, 255, 255),
        "unit": (1, 1, 1),
        "imagenet": [
            (1 - mean) / std
            for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
        ],
    }.items():
        classifier = opened(model, pixels=pixels, resize="stretch")
        found = classifier.probabilities([white])[0]
        powers = np.exp(np.array(means) * 0.01)
        assert found == pytest.approx(powers / powers.sum(), abs=1e-5), pixels


def test_one_logit_decides_between_two_labels(tmp_path: Path) -> None:
    model = save_colour_model(
        tmp_path / "m.onnx", labels=("other", "red"), mix=[[1.0], [-1.0], [-1.0]]
    )
    assert labels_of(opened(model)) == ["red", "other", "other"]


def test_a_model_that_takes_bytes(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "m.onnx", gain=0.1, input_type=TensorProto.UINT8)
    assert labels_of(opened(model)) == list(COLOURS)


def test_more_crops_than_a_batch_go_in_several(tmp_path: Path) -> None:
    """An engine takes no batch larger than it was built for."""
    model = save_colour_model(tmp_path / "m.onnx")
    backend = GatedBackend(model)
    settings = AttributeSettings(name="colour", model=str(model), max_batch=2)
    classifier = AttributeClassifier(settings, backend)
    found = classifier.label([RED, GREEN, BLUE, BLUE, RED])
    assert [label for label, _ in found] == ["red", "green", "blue", "blue", "red"]
    backend.sizes.clear()
    classifier.label([RED, GREEN, BLUE])
    assert backend.sizes == [2, 1]


def test_labels_that_are_set_come_before_the_models_own(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "m.onnx")
    assert labels_of(opened(model, labels=["a", "b", "c"])) == ["a", "b", "c"]


def _not_a_model(path: Path) -> Path:
    path.write_bytes(b"no model")
    return path


def _unnamed(path: Path) -> Path:
    return save_colour_model(path, labels=None)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda path: path, "there is no such model file"),
        (_not_a_model, r"m\.onnx"),
        (_unnamed, r"m\.onnx: its metadata names no labels: set 'labels' of attribute 'colour'"),
        (lambda path: save_colour_model(path, labels=("a", "b")), "each of the 2 labels"),
        (lambda path: save_colour_model(path, labels=("a", "a", "b")), "each once"),
        (lambda path: save_colour_model(path, labels=("a",)), "two labels or more"),
        (lambda path: save_colour_model(path, twice=True), r"got logits .*, other"),
        (lambda path: save_colour_model(path, gain=float("nan")), "one finite score"),
        (lambda path: save_clip_model(path, metadata={"storeguard_labels": '["a", "b"]'}),
         "expected pictures"),
        (lambda path: save_colour_model(
            path, labels=None, metadata={"storeguard_labels": json.dumps({"a": 1})}), "JSON list"),
        (lambda path: save_colour_model(
            path, labels=None, metadata={"storeguard_labels": "a,b"}), "JSON list"),
    ],
)  # fmt: skip
def test_what_is_no_attribute_classifier_is_refused(
    tmp_path: Path, made: Any, message: str
) -> None:
    model = made(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        opened(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "score"}, "rules do not use"),
        ({"name": "a b"}, "name"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["one", "one"]}, "each once"),
        ({"min_votes": 5, "max_votes": 4}, "at least min_votes"),
        ({"every_s": 0}, "every_s"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttributeSettings.model_validate({"name": "colour", "model": "m.onnx", **settings})
