"""`storeguard engine` and `storeguard models`, as a user runs them, and the parts they print."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from storeguard.cli.main import app
from storeguard.cli.models import MODELS, card_of, models_in, models_table, verify_models
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


def test_build_converts_and_measures(tmp_path: Path) -> None:
    printed = storeguard(
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
    assert "fp16" in printed


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
    ("words", "error", "message"),
    [
        (["build"], BackendUnavailableError, "needs the package tensorrt"),
        (["build", "--precision", "int8"], ConfigError, "found precision int8 without it"),
        (["build", "--calibration", "x"], ConfigError, "found precision fp16 with it"),
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
    tmp_path: Path, words: list[str], error: type[StoreguardError], message: str
) -> None:
    where = ["--out", tmp_path / "e"] if words[0] == "build" else []
    with pytest.raises(error, match=message):
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
def models(tmp_path: Path) -> Path:
    """A folder with the bundled models and one that takes clips, each with its card."""
    for path in models_in(MODELS):
        shutil.copy(path, tmp_path)
        shutil.copy(card_of(path), tmp_path)
    clips = mean_model(tmp_path / "shoplifting_small.onnx", ("n", 4, 3, 64, 64))
    card = f"| sha256 | `{sha256_of(clips)}` |\n| licence | MIT |\n"
    clips.with_suffix(".md").write_text(card)
    return tmp_path


def printed_table(models: Path, *, measure: bool) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(models_table(models, measure=measure))
    return console.export_text()


def test_the_table_has_all_models_with_their_speed(models: Path) -> None:
    printed = printed_table(models, measure=True)
    assert "person_yolox_nano.onnx" in printed
    assert "shoplifting_small.onnx" in printed
    assert "Apache-2.0" in printed
    assert "MIT" in printed
    assert "4x3x64x64" in printed
    num_models = len(models_in(models))
    assert printed.count("on onnxruntime-cpu") == num_models
    assert printed_table(models, measure=False).count("not measured") == num_models


def test_the_bundled_models_are_listed_and_good() -> None:
    names = [path.name for path in models_in(MODELS)]
    listed = storeguard("models", "list", "--no-measure")
    assert all(name in listed for name in names)
    assert storeguard("models", "verify").count(": ok, ") == len(names) == 2


def test_verify_accepts_good_models(models: Path) -> None:
    assert verify_models(models) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hash", "its card names sha256"),  # the file is another than the card's
        ("card", "its card shoplifting_small.md is missing"),
        ("corrupt", "not a usable ONNX model"),
        ("batch", "batch size is fixed to 1"),
    ],
)
def test_verify_names_the_bad_one(
    models: Path, fault: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert verify_models(models) == [clips]
    printed = capsys.readouterr()
    assert message in printed.err
    assert "shoplifting_small.onnx: " in printed.err
    assert "person_yolox_nano.onnx: ok" in printed.out
