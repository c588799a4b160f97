"""`storeguard models`: what is bundled, and whether it is what it should be."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from storeguard.config import DetectorSettings
from storeguard.detection.backends import sha256_of
from storeguard.detection.detector import BUNDLED_MODEL, Detector, model_path
from storeguard.errors import ModelError

app = typer.Typer(help="The bundled models.", no_args_is_help=True)
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")


@app.command("list")
def list_models() -> None:
    """List the bundled models: size, hash, licence, card."""
    table = Table(title="bundled models", title_justify="left")
    for heading in ("model", "MB", "sha256", "licence", "card"):
        table.add_column(heading)
    path = model_path("bundled")
    size_mb = f"{path.stat().st_size / 1e6:.1f}"
    table.add_row(path.name, size_mb, sha256_of(path)[:16], "Apache-2.0", card_of(path).name)
    Console().print(table)


@app.command()
def verify() -> None:
    """Check that each bundled model loads, and that its hash is the one its card names."""
    path = model_path("bundled")
    expected = _SHA256.search(card_of(path).read_text(encoding="utf-8"))
    found = sha256_of(path)
    if expected is None or expected.group() != found:
        wanted = expected.group() if expected else "none"
        raise ModelError(f"{path.name}: its card names sha256 {wanted}, the file has {found}")
    info = Detector(DetectorSettings()).info
    Console().print(f"{BUNDLED_MODEL}: ok, {info.layout} on {info.backend}, sha256 {found}")


def card_of(model: Path) -> Path:
    """The model's card, which lies beside it."""
    return Path(str(resources.files("storeguard.models") / f"{model.stem}.md"))
