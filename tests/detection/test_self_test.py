"""The self-test: a detector that is blind is reported when it is loaded and verified."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from storeguard.cli.main import app
from storeguard.config.models import DetectorSettings
from storeguard.detection.self_test import BUNDLED_PERSON
from storeguard.engines.loading import load_detector
from storeguard.errors import ModelError
from tests.detection.small_models import Box, save_constant, yolov8

SCALE = 320 / 512
MAN = tuple(SCALE * value for value in BUNDLED_PERSON)


def model_of(folder: Path, *boxes: Box) -> Path:
    return save_constant(folder / "m.onnx", yolov8(boxes, (320, 320), 80))


def test_the_bundled_detector_finds_the_man() -> None:
    test = load_detector(DetectorSettings()).info.self_test

    assert test is not None
    assert test.found
    assert test.best_score is not None
    assert test.best_score > 0.5


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        ([Box(MAN)], True),
        ([], False),
        # elsewhere, too improbable, or of another class
        ([Box((200, 200, 300, 300))], False),
        ([Box(MAN, score=0.2)], False),
        ([Box(MAN, class_id=24)], False),
    ],
    ids=["the man", "nothing", "elsewhere", "improbable", "a bag"],
)
def test_a_model_that_finds_nobody_is_reported_at_start_and_by_verify(
    boxes: list[Box], found: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(tmp_path, *boxes)

    test = load_detector(DetectorSettings(model=str(model))).info.self_test
    verified = CliRunner().invoke(app, ["models", "verify", str(model)])

    assert test is not None
    assert test.found is found
    assert ("finds nobody in the self-test picture" in caplog.text) is not found
    assert verified.exit_code == (0 if found else 1)
    assert "m.onnx" in verified.output


def test_a_picture_of_ones_own_takes_the_bundled_ones_place(tmp_path: Path) -> None:
    model = model_of(tmp_path, Box((200, 200, 300, 300)))
    picture = Path(__file__).parents[2] / "storeguard" / "models" / "self_test.jpg"

    test = load_detector(DetectorSettings(model=str(model), self_test=str(picture))).info.self_test

    assert test is not None
    assert test.found  # where its people are is not known


def test_a_picture_that_is_missing_is_an_error(tmp_path: Path) -> None:
    settings = DetectorSettings(model=str(model_of(tmp_path)), self_test="/nowhere/people.jpg")

    with pytest.raises(ModelError, match=r"m\.onnx.*detector\.self_test.*people\.jpg"):
        load_detector(settings)
