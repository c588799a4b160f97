"""`storeguard bench`: runs a checkout's benchmarks by name."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from storeguard.errors import NotFoundError

FOLDER: Final = Path(__file__).resolve().parents[2] / "benchmarks"


def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="The benchmark to run; lists all if left out.")
    ] = None,
) -> None:
    """Run a benchmark of this checkout; options after its name are passed to it (try --help)."""
    known = benchmarks(FOLDER)
    if name is None:
        Console().print(_table(known))
        return
    if name not in known:
        raise NotFoundError(f"benchmark: expected one of {', '.join(known)}, found {name!r}")
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]  # some import their neighbours as a package
    sys.argv = [f"storeguard bench {name}", *context.args]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)


def benchmarks(folder: Path) -> dict[str, str]:
    """The benchmarks in a folder, by name, with the first paragraph of their docstrings.

    Raises:
        NotFoundError: the folder does not exist, because this is not a checkout.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"{folder}: expected the benchmarks of a checkout, found no such folder"
        )
    found = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text:  # the others are modules that benchmarks share
            about = ast.get_docstring(ast.parse(text)) or ""
            found[path.stem] = " ".join(about.split("\n\n")[0].split())
    return found


def _table(known: dict[str, str]) -> Table:
    table = Table("benchmark", "what it measures")
    for name, about in known.items():
        table.add_row(name, about)
    return table
