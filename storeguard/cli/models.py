"""`storeguard models`: lists and verifies the bundled models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from storeguard.config.models import BackendName, DetectorSettings
from storeguard.engines.build import input_profile
from storeguard.engines.cache import EngineOptions
from storeguard.engines.choice import open_backend
from storeguard.engines.evidence import median_ms, processor_name
from storeguard.engines.loading import load_detector
from storeguard.errors import ModelError
from storeguard.inference.backend import Backend, sha256_of

app = typer.Typer(help="List and verify the bundled models.", no_args_is_help=True)
_PICTURES_RANK = 4
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_LICENCE = re.compile(r"^\|\s*licen[cs]e\s*\|\s*([^|]+?)\s*\|", re.IGNORECASE | re.MULTILINE)
MODELS = Path(str(resources.files("storeguard.models")))
"""The folder of the bundled models and their cards."""


@app.command("list")
def list_models(
    *,
    measure: Annotated[bool, typer.Option(help="Measure the time of one picture or clip.")] = True,
) -> None:
    """List the bundled models: size, hash, licence, card, and their speed on this machine."""
    table = models_table(MODELS, measure=measure)
    Console(width=None if Console().is_terminal else 160).print(table)


@app.command()
def verify(
    detectors: Annotated[
        list[Path] | None, typer.Argument(help="Detectors of your own, to be tested alone.")
    ] = None,
) -> None:
    """Check each bundled model: hash as in its card, loads, one inference gives finite outputs.

    Detectors must find the person in the self-test picture.
    """
    failed = verify_detectors(detectors) if detectors else verify_models(MODELS)
    if failed:
        names = ", ".join(path.name for path in failed)
        Console(stderr=True).print(f"bad: {names}", style="bold red", soft_wrap=True)
        raise typer.Exit(1)


def models_table(folder: Path, *, measure: bool) -> Table:
    """The models in a folder, one a row.

    Args:
        folder: holds ONNX files and their cards.
        measure: whether to measure the time of one picture or clip.
    """
    table = Table(title=f"bundled models, on {processor_name()}", title_justify="left")
    for heading in ("model", "MB", "sha256", "licence", "card", "input", "median ms, batch of 1"):
        table.add_column(heading, overflow="fold")
    for path in models_in(folder):
        card = card_of(path)
        table.add_row(
            path.name,
            f"{path.stat().st_size / 1e6:.1f}",
            sha256_of(path)[:16],
            _licence(card),
            card.name if card.is_file() else "missing",
            *(_speed(path) if measure else ("", "not measured")),
        )
    return table


def verify_models(folder: Path) -> list[Path]:
    """Verify the models in a folder and print the outcome of each; returns those that failed."""
    return _failing(models_in(folder), verified)


def verify_detectors(paths: Sequence[Path]) -> list[Path]:
    """Test detectors and print the outcome of each; returns those that failed."""
    return _failing(paths, self_tested)


def _failing(paths: Sequence[Path], check: Callable[[Path], str]) -> list[Path]:
    failed = []
    for path in paths:
        try:
            Console().print(f"{path.name}: ok, {check(path)}", soft_wrap=True)
        except ModelError as error:
            failed.append(path)
            Console(stderr=True).print(f"{path.name}: {error}", style="red", soft_wrap=True)
    return failed


def models_in(folder: Path) -> list[Path]:
    """The ONNX files in a folder, by name."""
    return sorted(folder.glob("*.onnx"))


def card_of(model: Path) -> Path:
    """The model's card: the Markdown file with the model's name."""
    return model.with_suffix(".md")


def verified(path: Path) -> str:
    """Check a model.

    Returns:
        Its outputs' shapes, the backend and the file's hash.

    Raises:
        ModelError: its card is missing or names another hash; or it does not load, fails on a
            batch, or has outputs that are not finite or not one a picture or clip; or it is a
            detector that finds nobody in the self-test picture.
    """
    found, card = sha256_of(path), card_of(path)
    if not card.is_file():
        raise ModelError(f"its card {card.name} is missing")
    named = _SHA256.search(card.read_text(encoding="utf-8"))
    if named is None or named.group() != found:
        expected = named.group() if named else "none"
        raise ModelError(f"its card names sha256 {expected}, the file has {found}")
    backend = open_backend(path, BackendName.ONNXRUNTIME_CPU)
    shape = _one(path, backend)
    outputs = backend.run(np.zeros((1, *shape), dtype=backend.input.dtype))
    for name, output in outputs.items():
        if not len(output) or not np.isfinite(output).all():
            raise ModelError(f"output {name!r} of shape {output.shape}: expected finite numbers")
    _require_batch(backend, shape, outputs)
    shapes = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
    if len(backend.input.shape) == _PICTURES_RANK:
        self_tested(path)
    return f"{shapes} on {backend.name}, sha256 {found}"


def self_tested(path: Path) -> str:
    """Run a detector on the self-test picture.

    Returns:
        Its layout, and what it found.

    Raises:
        ModelError: it does not load, or finds nobody.
    """
    settings = DetectorSettings(model=str(path), backend=BackendName.ONNXRUNTIME_CPU)
    info = load_detector(settings).info
    if info.self_test is None:
        raise ModelError("the self-test picture is not installed")
    if not info.self_test.found:
        raise ModelError(info.self_test.describe())
    return f"layout {info.layout}, {info.self_test.describe()}"


def _require_batch(
    backend: Backend, shape: tuple[int, ...], alone: Mapping[str, NDArray[np.float32]]
) -> None:
    """Bundled models take any batch size and return one output for each item."""
    if backend.input.shape[0] is not None:
        raise ModelError(
            f"its batch size is fixed to {backend.input.shape[0]}, expected any batch size"
        )
    outputs = backend.run(np.zeros((2, *shape), dtype=backend.input.dtype))
    for name, output in outputs.items():
        if output.shape != (2, *alone[name].shape[1:]):
            raise ModelError(
                f"output {name!r}: expected shape {(2, *alone[name].shape[1:])} for a batch of 2, "
                f"found {output.shape}"
            )


def _one(path: Path, backend: Backend) -> tuple[int, ...]:
    """The shape of one picture or clip."""
    return input_profile(path, backend.input, EngineOptions()).usual[1:]


def _speed(path: Path) -> tuple[str, str]:
    try:
        backend = open_backend(path, BackendName.AUTO)
        shape = _one(path, backend)
        return "x".join(map(str, shape)), f"{median_ms(backend, shape):.1f} on {backend.name}"
    except ModelError as error:
        return "", str(error)


def _licence(card: Path) -> str:
    named = _LICENCE.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    return named.group(1) if named else "not stated"
