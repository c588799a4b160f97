"""The clip classifier on small real models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from storeguard.classification.clips.classifier import ClipClassifier, top_mean
from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX, to_input
from storeguard.config.models import ClassifierSettings
from storeguard.engines.loading import load_clip_classifier
from storeguard.errors import ModelError
from tests.classification.clips.clip_models import SHAPE, save_clip_model
from tests.inference.gated_backend import GatedBackend


def clip_of(red: int) -> Any:
    clip = np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
    clip[..., 0] = red
    return clip


def opened(path: Path) -> ClipClassifier:
    return load_clip_classifier(ClassifierSettings(model=str(path)))


def expected(red: int, *, gain: float = 1.0) -> float:
    """The logistic function of the normalised red."""
    return float(1 / (1 + np.exp(-gain * (red / 255 - 0.485) / 0.229)))


@pytest.mark.parametrize(
    ("batch", "input_type", "tolerance"),
    [
        ("n", TensorProto.FLOAT, 1e-3),
        (1, TensorProto.FLOAT, 1e-3),  # exports with the batch of one baked in
        ("n", TensorProto.FLOAT16, 5e-3),
    ],
    ids=["any batch", "batch of one", "half floats"],
)
def test_each_clip_gets_its_probability(
    tmp_path: Path, batch: int | str, input_type: int, tolerance: float
) -> None:
    path = save_clip_model(tmp_path / "red.onnx", shape=(batch, *SHAPE), input_type=input_type)
    scores = opened(path).score([clip_of(0), clip_of(124), clip_of(255)])
    assert scores.dtype == np.float32
    assert scores == pytest.approx([expected(0), expected(124), expected(255)], abs=tolerance)


def test_more_clips_than_an_engine_takes_go_in_several_batches(tmp_path: Path) -> None:
    path = save_clip_model(tmp_path / "red.onnx", shape=("n", *SHAPE))
    backend = GatedBackend(path)
    classifier = ClipClassifier(ClassifierSettings(model=str(path), max_batch=2), backend)
    backend.sizes.clear()
    scores = classifier.score([clip_of(0), clip_of(124), clip_of(255)])
    assert backend.sizes == [2, 1]
    assert scores == pytest.approx([expected(0), expected(124), expected(255)], abs=1e-3)


def test_what_it_is(tmp_path: Path) -> None:
    path = save_clip_model(tmp_path / "red.onnx", metadata={"storeguard_threshold": "0.37"})
    info = opened(path).info
    assert (info.name, info.threshold, info.precision) == ("red", 0.37, "fp32")
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened(save_clip_model(tmp_path / "bare.onnx")).info.threshold == 0.5


def test_colours_are_red_first(tmp_path: Path) -> None:
    for channel in range(3):
        model = opened(save_clip_model(tmp_path / f"{channel}.onnx", channel=channel))
        clip = np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
        clip[..., channel] = 255
        given = to_input([clip])[0, 0, channel].mean()
        assert model.score([clip]) == pytest.approx([1 / (1 + np.exp(-given))], abs=1e-3)


@pytest.mark.parametrize(("gain", "sure"), [(1000.0, 1.0), (-1000.0, 0.0)])
def test_great_logits_end_at_the_ends(tmp_path: Path, gain: float, sure: float) -> None:
    model = opened(save_clip_model(tmp_path / "sure.onnx", gain=gain))
    assert model.score([clip_of(255)]).tolist() == [sure]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"shape": ("n", 8, 3, SIDE_PX, SIDE_PX)}, r"\(n, 16, 3, 224, 224\), saw \(None, 8"),
        ({"shape": ("n", 16, 3, 112, 112)}, "expected a clip classifier"),
        ({"shape": ("n", 3, SIDE_PX, SIDE_PX)}, "expected a clip classifier"),  # of pictures
        ({"input_type": TensorProto.UINT8}, "saw .* uint8"),
        ({"shape": (4, *SHAPE)}, "fails on a blank clip: .*expected"),
        ({"num_logits": 2}, r"expected one finite logit for each of 1 clips, got logit \(1, 2\)"),
        ({"twice": True}, "expected one finite logit"),
        ({"bias": float("nan")}, "expected one finite logit"),
        ({"bias": float("inf")}, "expected one finite logit"),
        ({"metadata": {"storeguard_threshold": "high"}}, "expected a number in 0..1, got 'high'"),
        ({"metadata": {"storeguard_threshold": "nan"}}, "got 'nan'"),
        ({"metadata": {"storeguard_threshold": "1.5"}}, "got '1.5'"),
    ],
)
def test_models_for_something_else_are_refused(
    tmp_path: Path, made: dict[str, Any], message: str
) -> None:
    path = save_clip_model(tmp_path / "odd.onnx", **made)
    with pytest.raises(ModelError, match=message) as raised:
        opened(path)
    assert str(path) in str(raised.value)


def test_answers_that_are_no_numbers_are_refused_later_too(tmp_path: Path) -> None:
    """The logit of a blank clip is just short of infinity, that of a red one is not."""
    model = opened(save_clip_model(tmp_path / "odd.onnx", gain=1.56e38))
    with pytest.raises(ModelError, match="expected one finite logit for each of 2 clips"):
        model.score([clip_of(124), clip_of(255)])


@pytest.mark.parametrize("content", [b"", b"this is no model" * 50, None])
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        opened(path)


def test_a_torn_model_is_refused(tmp_path: Path) -> None:
    path = save_clip_model(tmp_path / "torn.onnx")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"torn\.onnx"):
        opened(path)


@pytest.mark.parametrize(
    ("scores", "mean"),
    [([], None), ([0.4], 0.4), ([0.1, 0.9, 0.2, 0.7, 0.5], 0.7), ([0.2, 0.4], 0.3)],
)
def test_a_whole_stay_is_the_mean_of_its_three_highest(
    scores: list[float], mean: float | None
) -> None:
    assert top_mean(scores) == (None if mean is None else pytest.approx(mean))
