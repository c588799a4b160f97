"""`storeguard engine` and `storeguard models`, as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from storeguard.cli import models as cli_models
from storeguard.cli.main import app
from storeguard.cli.models import bundled_models
from storeguard.engines.cache import write_whole
from storeguard.errors import BackendUnavailableError, ConfigError, DatasetError, StoreguardError
from storeguard.inference.backend import sha256_of
from tests.inference.factories import mean_model, pictures


def storeguard(*words: object) -> str:
    """The output of the command; its errors are raised."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def evidence_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_measure_writes_evidence(tmp_path: Path) -> None:
    out = tmp_path / "evidence.json"
    storeguard(
        *("engine", "measure", "--backend", "onnxruntime-cpu", "--runs", 3, "--out", out),
        *("--pictures", pictures(tmp_path / "pictures"), "--engines", tmp_path),
    )
    evidence = evidence_of(out)
    assert [speed["batch"] for speed in evidence["speed"]] == [1, 4, 8]
    for speed in evidence["speed"]:
        assert 0 < speed["p50_ms"] <= speed["p95_ms"] <= speed["p99_ms"]
    agreement = evidence["agreement"]
    assert agreement["inputs"] == "pictures"
    assert agreement["num_inputs"] == 4
    assert agreement["max_abs"] == 0  # the same backend in the same precision
    assert agreement["equal_detections"] == 1
    assert "onnxruntime" in evidence["versions"]
    assert evidence["build_s"] is None


def test_build_converts_measures_and_keeps(tmp_path: Path) -> None:
    told = storeguard(
        *("engine", "build", "--backend", "onnxruntime", "--precision", "fp16"),
        *("--runs", 2, "--max-batch", 4, "--out", tmp_path),
        *("--pictures", pictures(tmp_path / "pictures")),
    )
    (engine,) = tmp_path.glob("*.onnx")
    evidence = evidence_of(engine.with_name(engine.name + ".evidence.json"))
    assert evidence["precision"] == "fp16"
    assert evidence["engine_bytes"] == engine.stat().st_size < 2_000_000
    assert [speed["batch"] for speed in evidence["speed"]] == [1, 4]
    assert 0 < evidence["agreement"]["max_abs"] < 1
    assert "fp16" in told


def test_clips_are_measured_on_noise(tmp_path: Path) -> None:
    model = mean_model(tmp_path / "clips.onnx", ("n", 4, 3, 32, 32))
    out = tmp_path / "evidence.json"
    storeguard(
        *("engine", "measure", model, "--backend", "onnxruntime-cpu", "--runs", 2, "--out", out),
        *("--pictures", tmp_path),
    )
    agreement = evidence_of(out)["agreement"]
    assert (agreement["inputs"], agreement["equal_detections"]) == ("noise", None)


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["build"], BackendUnavailableError, "needs the package tensorrt"),
        (["build", "--precision", "int8"], ConfigError, "--calibration goes with"),
        (["build", "--calibration", "x"], ConfigError, "--calibration goes with"),
        (["build", "--size", "321"], ConfigError, "multiple of 32"),
        (
            ["build", "--precision", "int8", "--calibration", "/nowhere"],
            DatasetError,
            "expected a folder of pictures",
        ),
        (["measure", "--backend", "tensorrt"], BackendUnavailableError, "tensorrt"),
    ],
)
def test_what_cannot_be_done(
    tmp_path: Path, words: list[str], error: type[StoreguardError], told: str
) -> None:
    where = ["--out", tmp_path / "e"] if words[0] == "build" else []
    with pytest.raises(error, match=told):
        storeguard("engine", *words, *where)
    assert not (tmp_path / "e").exists()


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


def test_a_file_that_cannot_be_finished_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "evidence.json"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreguardError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --------------------------------------------------------------------------- models


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled models and one that takes clips, each with its card."""
    for path in cli_models.bundled_models():
        shutil.copy(path, tmp_path)
        shutil.copy(cli_models.card_of(path), tmp_path)
    clips = mean_model(tmp_path / "shoplifting_small.onnx", ("n", 4, 3, 64, 64))
    card = f"| sha256 | `{sha256_of(clips)}` |\n| licence | MIT |\n"
    clips.with_suffix(".md").write_text(card)
    monkeypatch.setattr(cli_models, "_MODELS", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("models")
def test_list_shows_all_models_with_their_speed() -> None:
    told = storeguard("models", "list")
    assert "person_yolox_nano.onnx" in told
    assert "shoplifting_small.onnx" in told
    assert "Apache-2.0" in told
    assert "MIT" in told
    assert "4x3x64x64" in told
    assert told.count("on onnxruntime-cpu") == len(bundled_models())
    assert storeguard("models", "list", "--no-measure").count("not measured") == len(
        bundled_models()
    )


@pytest.mark.usefixtures("models")
def test_verify_finds_good_models_good() -> None:
    assert storeguard("models", "verify").count(": ok, ") == len(bundled_models())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hash", "its card names sha256"),  # the file is another than the card's
        ("card", "its card shoplifting_small.md is missing"),
        ("corrupt", "not a usable ONNX model"),
        ("batch", "batch size is fixed to 1"),
    ],
)
def test_verify_names_the_bad_one(models: Path, fault: str, told: str) -> None:
    clips = models / "shoplifting_small.onnx"
    card = clips.with_suffix(".md")
    if fault == "card":
        card.unlink()
    elif fault == "hash":
        mean_model(clips, ("n", 8, 3, 64, 64))
    else:
        if fault == "corrupt":
            clips.write_bytes(clips.read_bytes()[:50])
        else:
            mean_model(clips, (1, 4, 3, 64, 64))
        card.write_text(f"sha256 {sha256_of(clips)}")
    done = CliRunner().invoke(app, ["models", "verify"])
    assert done.exit_code == 1
    assert told in done.output
    assert "bad: shoplifting_small.onnx" in done.output
    assert "person_yolox_nano.onnx: ok" in done.output
