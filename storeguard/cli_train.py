"""`storeguard train`: adapting the bundled models to one's own store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from storeguard.errors import BackendUnavailableError

app = typer.Typer(help="Adapt the models to your own store.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Adapt the models to your own store."""


@app.command()
def detector(
    data: Annotated[
        Path, typer.Option(help="Folder with images/ and labels/ (YOLO), or with COCO JSON.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model, its settings and scores.")],
    steps: Annotated[int, typer.Option(min=1)] = 600,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Fine-tune the bundled person detector on your own boxes."""
    try:
        from storeguard.training.detector_data import DetectorSource  # noqa: PLC0415
        from storeguard.training.detector_train import (  # noqa: PLC0415
            DetectorTrainSettings,
            train_detector,
        )
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"training needs the package {error.name}: install storeguard[train], or run make setup"
        ) from None
    settings = DetectorTrainSettings(
        sources=(DetectorSource(path=data),),
        out=out,
        num_steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    result = train_detector(settings)
    Console().print(f"wrote {result.model}")
    for score in result.scores:
        Console().print(score)
