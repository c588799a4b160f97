"""`storeguard train`: trains the models on data of your own store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from storeguard.errors import BackendUnavailableError, QueryError

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
    """Fine-tune the bundled person detector on your own labelled boxes."""
    try:
        from storeguard.training.detector.data import DetectorSource  # noqa: PLC0415
        from storeguard.training.detector.train import (  # noqa: PLC0415
            DetectorTrainSettings,
            train_detector,
        )
    except ModuleNotFoundError as error:
        raise _needs(error) from None
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


@app.command()
def classifier(
    data: Annotated[
        Path, typer.Option(help="Folder with videos.csv (file, label, group) and its videos.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model, its settings and scores.")],
    *,
    validation_group: Annotated[
        list[str] | None,
        typer.Option(help="A group (person, store) kept for validation; may be repeated."),
    ] = None,
    head: Annotated[
        str, typer.Option(help="tap, tt, lstm, or resnet3d (no backbone; on a GPU).")
    ] = "tap",
    backbone: Annotated[
        str,
        typer.Option(help="efficientnet-lite0-closeup, efficientnet-lite0 or mobilenetv3-small."),
    ] = "efficientnet-lite0-closeup",
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's ImageNet weights, a torch state dict.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=0)] = 3,
    unfrozen_epochs: Annotated[
        int, typer.Option(min=0, help="Further epochs with the backbone learning; on a GPU.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 42,
) -> None:
    """Train a clip classifier on your own labelled videos, split by group, never at random."""
    try:
        from storeguard.training.clips.fit import ClipFitSettings  # noqa: PLC0415
        from storeguard.training.clips.heads import BackboneName, HeadName  # noqa: PLC0415
        from storeguard.training.clips.train import (  # noqa: PLC0415
            ClipTrainSettings,
            train_classifier,
        )
    except ModuleNotFoundError as error:
        raise _needs(error) from None
    for option, value, known in (("head", head, HeadName), ("backbone", backbone, BackboneName)):
        if value not in list(known):
            raise QueryError(f"--{option}: expected one of {', '.join(known)}, found {value!r}")
    settings = ClipTrainSettings(
        data=data,
        out=out,
        backbone=BackboneName(backbone),
        head=HeadName(head),
        weights=weights,
        validation_groups=tuple(validation_group or ()),
        fit=ClipFitSettings(epochs=epochs, unfrozen_epochs=unfrozen_epochs, seed=seed),
        dataset=data.name,
    )
    result = train_classifier(settings)
    Console().print(f"wrote {result.model}")
    if result.metrics is not None:
        Console().print(result.metrics)


@app.command()
def attribute(
    data: Annotated[
        Path,
        typer.Option(help="Folder of LABEL/ folders with crops, or of images/ with KITTI labels/."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model, its settings and scores.")],
    *,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label to learn; others are left out; may be repeated."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", help="FOUND=CALLED: a label under another name; may be repeated."),
    ] = None,
    validation_group: Annotated[
        list[str] | None,
        typer.Option(help="A group (person, camera) kept for validation; may be repeated."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="EfficientNet-Lite0's ImageNet weights, torch state dict.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of the linear layer, at most.")] = 200,
    unfrozen_epochs: Annotated[
        int, typer.Option(min=0, help="Further epochs with the backbone learning; on a GPU.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 42,
) -> None:
    """Train an attribute classifier (basket or none) on people's crops, split by group."""
    try:
        from storeguard.training.attributes.data import LabelChoice  # noqa: PLC0415
        from storeguard.training.attributes.fit import AttributeFitSettings  # noqa: PLC0415
        from storeguard.training.attributes.train import (  # noqa: PLC0415
            AttributeTrainSettings,
            train_attribute,
        )
    except ModuleNotFoundError as error:
        raise _needs(error) from None
    settings = AttributeTrainSettings(
        data=data,
        out=out,
        choice=LabelChoice(
            labels=tuple(label or ()), renamed=tuple(_renaming(one) for one in rename or ())
        ),
        validation_groups=tuple(validation_group or ()),
        weights=weights,
        fit=AttributeFitSettings(epochs=epochs, unfrozen_epochs=unfrozen_epochs, seed=seed),
    )
    result = train_attribute(settings)
    console = Console()
    console.print(f"wrote {result.model}")
    console.print(result.metrics)
    for warning in result.warnings:
        console.print(f"[bold yellow]beware:[/] {escape(warning)}")


def _renaming(text: str) -> tuple[str, str]:
    found, _, called = text.partition("=")
    if not found or not called:
        raise QueryError(f"--map: expected FOUND=CALLED, found {text!r}")
    return found, called


def _needs(error: ModuleNotFoundError) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"training needs the package {error.name}: install storeguard[train], or run make setup"
    )
