"""`storeguard engine`: builds engines, and measures models on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from storeguard.config.models import BackendName, DetectorSettings, EngineSettings, Precision
from storeguard.detection.detector import model_path
from storeguard.engines.build import BuiltEngine, build_engine, convert_model
from storeguard.engines.cache import EngineOptions
from storeguard.engines.calibration import CalibrationBatches, read_pictures
from storeguard.engines.evidence import (
    COLUMNS,
    Evidence,
    evidence_row,
    measure,
    not_run,
    write_evidence,
)
from storeguard.engines.loading import load_detector
from storeguard.errors import ConfigError

app = typer.Typer(
    help="Build and measure engines: models for one GPU or precision.", no_args_is_help=True
)


class BuildFor(StrEnum):
    """The library that an engine is built for."""

    TENSORRT = "tensorrt"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


_RUNS_ON = {
    BuildFor.TENSORRT: BackendName.TENSORRT,
    BuildFor.OPENVINO: BackendName.OPENVINO,
    BuildFor.ONNXRUNTIME: BackendName.ONNXRUNTIME_CPU,
}
_DEFAULT_DIR = EngineSettings().dir

Model = Annotated[str, typer.Argument(help="`bundled`, or an ONNX file.")]
MaxBatch = Annotated[int, typer.Option(min=1, max=256, help="The largest batch.")]
Size = Annotated[int, typer.Option(min=32, max=4096, help="Side of the input in pixels.")]
Pictures = Annotated[
    Path | None, typer.Option(help="A folder of pictures; on them it is compared with FP32.")
]
Limit = Annotated[int, typer.Option(min=1, max=4096, help="Use at most this many pictures.")]
Runs = Annotated[int, typer.Option(min=1, max=10_000, help="Timed calls for each batch size.")]
Threads = Annotated[int, typer.Option(min=0, max=256, help="0: one per core.")]


@app.command()
def build(  # noqa: PLR0917 - Typer reads options off the signature
    model: Model = "bundled",
    backend: Annotated[
        BuildFor, typer.Option(help="The library to build for.")
    ] = BuildFor.TENSORRT,
    precision: Precision = Precision.FP16,
    max_batch: MaxBatch = 8,
    size: Size = 320,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of pictures; INT8 needs it.")
    ] = None,
    pictures: Pictures = None,
    limit: Limit = 64,
    runs: Runs = 50,
    out: Annotated[Path, typer.Option(help="Where engines are kept.")] = Path(_DEFAULT_DIR),
    compute_capability: Annotated[
        str | None,
        typer.Option(help="Build for such a GPU, e.g. 8.9, that is not here (TensorRT for RTX)."),
    ] = None,
) -> None:
    """Build an engine, measure it, and write the evidence next to it."""
    path = model_path(model)
    options = _options(precision, max_batch=max_batch, size=size, folder=out)
    if (calibration is None) == (precision is Precision.INT8):
        raise ConfigError(
            f"--calibration: expected with --precision int8 and not otherwise, found precision "
            f"{precision} {'without' if calibration is None else 'with'} it"
        )
    batches = picture_batches(path, size, calibration, limit=limit) if calibration else None
    name = _RUNS_ON[backend]
    built: BuiltEngine | None = None
    if backend is BuildFor.TENSORRT:
        built = build_engine(
            path, options, precision, batches=batches, compute_capability=compute_capability
        )
    elif precision is not Precision.FP32:
        built = convert_model(path, options, precision, batches=batches)
    if compute_capability is not None and backend is BuildFor.TENSORRT:
        evidence = not_run(path, name, precision, f"built for a GPU of {compute_capability}")
    else:
        evidence = measure(
            path, name, options, pictures=pictures or calibration, limit=limit, runs=runs
        )
    if built is not None:
        evidence = evidence.model_copy(
            update={
                "build_s": built.card.build_s,
                "engine_bytes": built.path.stat().st_size,
            }
        )
    where = built.path if built else options.folder / f"{path.stem}-{name}-{precision}"
    _report(evidence, where.with_name(where.name + ".evidence.json"))
    if built is not None:
        Console().print(f"wrote {built.path}", soft_wrap=True)


@app.command("measure")
def measure_model(  # noqa: PLR0917 - Typer reads options off the signature
    model: Model = "bundled",
    backend: BackendName = BackendName.AUTO,
    precision: Annotated[
        Precision | None, typer.Option(help="The backend's own if left out.")
    ] = None,
    max_batch: MaxBatch = 8,
    size: Size = 320,
    pictures: Pictures = None,
    limit: Limit = 64,
    runs: Runs = 50,
    threads: Threads = 0,
    engines: Annotated[Path, typer.Option(help="Where engines are kept.")] = Path(_DEFAULT_DIR),
    out: Annotated[Path | None, typer.Option(help="Write the evidence, JSON.")] = None,
) -> None:
    """Measure a model on a backend: latency, throughput, agreement with FP32."""
    options = _options(precision, max_batch=max_batch, size=size, folder=engines)
    evidence = measure(
        model_path(model),
        backend,
        options,
        pictures=pictures,
        limit=limit,
        runs=runs,
        threads=threads,
    )
    _report(evidence, out)


def _options(
    precision: Precision | None, *, max_batch: int, size: int, folder: Path
) -> EngineOptions:
    if size % 32:
        raise ConfigError(f"--size: expected a multiple of 32, found {size}")
    return EngineOptions(
        settings=EngineSettings(dir=str(folder)),
        precision=precision,
        max_batch=max_batch,
        size_wh=(size, size),
    )


def picture_batches(model: Path, size: int, folder: Path, *, limit: int) -> CalibrationBatches:
    """A folder's pictures as the detector's input, one a batch."""
    plain = DetectorSettings(
        model=str(model),
        backend=BackendName.ONNXRUNTIME_CPU,
        input_size=size,
    )
    detector = load_detector(plain)
    inputs = detector.to_input(read_pictures(folder, detector, limit=limit))
    return CalibrationBatches(
        detector.input_name, [inputs[at : at + 1] for at in range(len(inputs))]
    )


def _report(evidence: Evidence, out: Path | None) -> None:
    table = Table(title=f"{evidence.model} on {evidence.device}", title_justify="left")
    table.show_header = False
    for heading, value in zip(COLUMNS, evidence_row(evidence), strict=True):
        table.add_row(heading, value.replace("; ", "\n"))
    Console().print(table)
    if out is not None:
        write_evidence(out, evidence)
        Console().print(f"evidence in {out}", soft_wrap=True)
