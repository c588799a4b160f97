"""`storeguard models`: what is bundled, and whether it is what it should be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from storeguard.config.models import BackendName
from storeguard.engines.build import input_profile
from storeguard.engines.cache import EngineOptions
from storeguard.engines.choice import open_backend
from storeguard.engines.evidence import median_ms, processor_name
from storeguard.errors import ModelError
from storeguard.inference.backend import Backend, sha256_of

app = typer.Typer(help="The bundled models.", no_args_is_help=True)
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_LICENCE = re.compile(r"^\|\s*licen[cs]e\s*\|\s*([^|]+?)\s*\|", re.IGNORECASE | re.MULTILINE)
_MODELS = Path(str(resources.files("storeguard.models")))


@app.command("list")
def list_models(
    *,
    measure: Annotated[bool, typer.Option(help="Time one picture or clip here.")] = True,
) -> None:
    """List the bundled models: size, hash, licence, card, and their speed on this machine."""
    table = Table(title=f"bundled models, on {processor_name()}", title_justify="left")
    for heading in ("model", "MB", "sha256", "licence", "card", "input", "median ms, batch of 1"):
        table.add_column(heading, overflow="fold")
    for path in bundled_models():
        card = card_of(path)
        table.add_row(
            path.name,
            f"{path.stat().st_size / 1e6:.1f}",
            sha256_of(path)[:16],
            _licence(card),
            card.name if card.is_file() else "missing",
            *(_speed(path) if measure else ("", "not measured")),
        )
    Console(width=None if Console().is_terminal else 160).print(table)


@app.command()
def verify() -> None:
    """Check each bundled model: hash as in its card, loads, one inference gives finite outputs."""
    failed = []
    for path in bundled_models():
        try:
            Console().print(f"{path.name}: ok, {verified(path)}", soft_wrap=True)
        except ModelError as error:
            failed.append(path.name)
            Console(stderr=True).print(f"{path.name}: {error}", style="red", soft_wrap=True)
    if failed:
        Console(stderr=True).print(f"bad: {', '.join(failed)}", style="bold red", soft_wrap=True)
        raise typer.Exit(1)


def bundled_models() -> list[Path]:
    """The ONNX files in this package, by name."""
    return sorted(_MODELS.glob("*.onnx"))


def card_of(model: Path) -> Path:
    """The model's card, which lies beside it."""
    return model.with_suffix(".md")


def verified(path: Path) -> str:
    """What was found to be right with a model.

    Raises:
        ModelError: its card is missing or names another hash; or it does not load, fails on a
            batch, or gives outputs that are not finite or not one a picture or clip.
    """
    found, card = sha256_of(path), card_of(path)
    if not card.is_file():
        raise ModelError(f"its card {card.name} is missing")
    named = _SHA256.search(card.read_text(encoding="utf-8"))
    if named is None or named.group() != found:
        wanted = named.group() if named else "none"
        raise ModelError(f"its card names sha256 {wanted}, the file has {found}")
    backend = open_backend(path, BackendName.ONNXRUNTIME_CPU)
    shape = _one(path, backend)
    outputs = backend.run(np.zeros((1, *shape), dtype=backend.input.dtype))
    for name, output in outputs.items():
        if not len(output) or not np.isfinite(output).all():
            raise ModelError(f"output {name!r} {output.shape} is empty or not finite")
    _require_batch(backend, shape, outputs)
    shapes = ", ".join(f"{name} {output.shape}" for name, output in outputs.items())
    return f"{shapes} on {backend.name}, sha256 {found}"


def _require_batch(
    backend: Backend, shape: tuple[int, ...], alone: Mapping[str, NDArray[np.float32]]
) -> None:
    """Bundled models take any batch, and give one answer for each of it."""
    if backend.input.shape[0] is not None:
        raise ModelError(f"its batch size is fixed to {backend.input.shape[0]}")
    outputs = backend.run(np.zeros((2, *shape), dtype=backend.input.dtype))
    for name, output in outputs.items():
        if output.shape != (2, *alone[name].shape[1:]):
            raise ModelError(
                f"output {name!r}: expected {(2, *alone[name].shape[1:])} for a batch of 2, got "
                f"{output.shape}"
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
