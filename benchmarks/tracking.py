"""Tracking people: Storeguard's tracker and libraries, at full rate and with frames dropped.

    python benchmarks/tracking.py            # all rows that can be run; writes results/tracking.*
    python benchmarks/tracking.py --tune     # first choose the libraries' settings again

Of every sequence all frames are tracked, then one of two, then one of four; the ground truth is
thinned in the same way. MOTA, IDF1 and switches are computed by py-motmetrics. Where there is no
ground truth, the figure is self-consistency: IDF1 of the result at the reduced rate against the
same tracker's own result at full rate in those frames. It shows how far dropping frames changes the
result, not whether the result is right.

Libraries run as they come and with the settings of results/tracking_tuned.json. Install them
to run their rows: `pip install trackers norfair`. Results depend on nothing but
the seed, the data and the versions; milliseconds are CPU time of one process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from tracking_rivals import RIVALS, Rival, silence
from tracking_score import score_tracks
from tracking_sequences import Sequence, sequences

from storeguard.config.models import TrackerSettings
from storeguard.tracking.tracks import Tracks

RATES = (1, 2, 4)
RESULTS = Path(__file__).resolve().parent / "results"
TUNED = RESULTS / "tracking_tuned.json"
TUNING_RATES = (1, 4)
TUNING_SEQUENCES = ("shoppers simulated", "mot17_02 simulated, 10 fps", "tud simulated")


@dataclass(frozen=True, slots=True)
class Row:
    """One tracker on one sequence at one rate; None is a figure that cannot be had.

    Attributes:
        every: one of so many frames was kept.
        mota, idf1, num_switches: against the ground truth.
        self_idf1: against the tracker's own result at full rate.
        num_ids, mean_length: tracks reported, and the frames each is reported in.
        cpu_ms: CPU time a frame.
    """

    sequence: str
    tracker: str
    every: int
    num_frames: int
    mota: float | None
    idf1: float | None
    num_switches: int | None
    self_idf1: float | None
    num_ids: int
    mean_length: float
    cpu_ms: float


def follow(rival: Rival, sequence: Sequence, every: int) -> tuple[dict[int, Tracks], float]:
    """The tracker's answers by frame, and the CPU milliseconds it took for each frame."""
    step = rival.start(sequence, every, rival.options)
    began = time.process_time()
    found = {
        frame: step(detections, float(time_s))
        for frame, (detections, time_s) in enumerate(
            zip(sequence.detections, sequence.time_s, strict=True)
        )
    }
    return found, (time.process_time() - began) * 1e3 / len(found)


def rows_of(rival: Rival, sequence: Sequence) -> Iterable[Row]:
    """One row a rate."""
    whole: dict[int, Tracks] = {}
    for every in RATES:
        thin = sequence.thinned(every)
        found, cpu_ms = follow(rival, thin, every)
        whole = whole or found
        own = score_tracks({frame: whole[frame * every] for frame in found}, found)
        score = None if thin.truth is None else score_tracks(thin.truth, found)
        ids = np.unique(np.concatenate([tracks.track_id for tracks in found.values()]))
        num_boxes = sum(map(len, found.values()))
        yield Row(
            sequence=sequence.name,
            tracker=rival.name,
            every=every,
            num_frames=len(found),
            mota=score and score.mota,
            idf1=score and score.idf1,
            num_switches=score and score.num_switches,
            self_idf1=own.idf1,
            num_ids=len(ids),
            mean_length=num_boxes / max(len(ids), 1),
            cpu_ms=cpu_ms,
        )


def tune(rival: Rival, given: list[Sequence]) -> dict[str, Any]:
    """The best of the rival's grid, option by option, by mean IDF1 on `TUNING_SEQUENCES`."""
    scored = [one for one in given if one.name in TUNING_SEQUENCES]
    thinned = [(one.thinned(every), every) for one in scored for every in TUNING_RATES]

    def worth(options: dict[str, Any]) -> float:
        trial = replace(rival, options=options)
        scores = [
            score_tracks(thin.truth or {}, follow(trial, thin, every)[0]).idf1 or 0.0
            for thin, every in thinned
        ]
        return float(np.mean(scores))

    options = {key: values[0] for key, values in rival.grid.items()}
    best = worth(options)
    for key, values in rival.grid.items():
        for value in values[1:]:
            trial = {**options, key: value}
            if (reached := worth(trial)) > best:
                best, options = reached, trial
    print(f"{rival.name}: mean IDF1 {best:.3f} with {options}", flush=True)
    return options


def contenders(given: list[Sequence], *, choose_again: bool) -> list[Rival]:
    """Ours, and the libraries that are installed: as they come, and with chosen settings."""
    tuned: dict[str, dict[str, Any]] = json.loads(TUNED.read_text()) if TUNED.exists() else {}
    chosen = []
    for rival in RIVALS:
        if rival.package is None:
            chosen.append(rival)
            continue
        if rival.version is None:
            print(f"not run: {rival.name}: {rival.package} is not installed")
            continue
        if choose_again:
            tuned[rival.name] = tune(rival, given)
        chosen.append(replace(rival, name=f"{rival.name}, defaults"))
        if rival.name in tuned:
            chosen.append(replace(rival, name=f"{rival.name}, tuned", options=tuned[rival.name]))
    if choose_again:
        TUNED.write_text(json.dumps(tuned, indent=2) + "\n")
    return chosen


def versions() -> dict[str, str]:
    """Those of the libraries in the table."""
    packages = ("motmetrics", "trackers", "supervision", "norfair")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def markdown(rows: list[Row]) -> str:
    """The table as a page: one block a sequence, one line a tracker, three rates side by side."""
    lines = [
        "# Following people",
        "",
        "Made by `python benchmarks/tracking.py`; settings and machine are in tracking.json.",
        "Each cell: all frames / one of two / one of four; ground truth is thinned alike. *self*:",
        "IDF1 against the tracker's own full-rate result (one of two / one of four). *lost*: IDF1",
        "at full rate minus IDF1 at one of four.",
        "",
        "Storeguard's defaults were chosen on other seeds of the simulated sequences and on the",
        "self-consistency of plaza_pedestrians and grocery_checkout_hevc; the libraries' tuned",
        "settings by a shorter search on three of the simulated sequences below, this very seed.",
        "The public DPM boxes were used for neither. CPU time was taken on a busy machine: compare",
        "it within this page only.",
        "",
    ]
    for sequence in dict.fromkeys(row.sequence for row in rows):
        of_it = [row for row in rows if row.sequence == sequence]
        scored = of_it[0].idf1 is not None
        columns = ["MOTA", "IDF1", "lost", "switches"] if scored else ["ids", "mean length"]
        columns = ["tracker", *columns, "self", "CPU ms a frame"]
        lines += [f"## {sequence}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for tracker in dict.fromkeys(row.tracker for row in of_it):
            line = [row for row in of_it if row.tracker == tracker]
            cells = [tracker]
            if scored:
                cells += [_cells(line, "mota", 3), _cells(line, "idf1", 3)]
                cells += [f"{(line[0].idf1 or 0) - (line[-1].idf1 or 0):.3f}"]
                cells += [_cells(line, "num_switches", 0)]
            else:
                cells += [_cells(line, "num_ids", 0), _cells(line, "mean_length", 1)]
            cells += [_cells(line[1:], "self_idf1", 3), _cells(line, "cpu_ms", 2)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cells(rows: list[Row], figure: str, digits: int) -> str:
    values = (getattr(row, figure) for row in rows)
    return " / ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def main() -> None:
    """Run the table and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tune", action="store_true", help="choose the libraries' settings again")
    parser.add_argument("--only", default="", help="trackers whose name contains this; no files")
    arguments = parser.parse_args()
    silence()
    given = list(sequences())
    rows = []
    ran = [
        rival
        for rival in contenders(given, choose_again=arguments.tune)
        if arguments.only.lower() in rival.name.lower()
    ]
    for sequence in given:
        for rival in ran:
            rows += rows_of(rival, sequence)
        print(f"{sequence.name}: done", flush=True)
    page = markdown(rows)
    print(page)
    if arguments.only:
        return
    RESULTS.mkdir(exist_ok=True)
    result = {
        "machine": machine(),
        "libraries": versions(),
        "settings": {
            "Storeguard": TrackerSettings().model_dump(mode="json"),
            **{rival.name: dict(rival.options) for rival in ran if rival.package},
        },
        "rates": RATES,
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / "tracking.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "tracking.md").write_text(page)


if __name__ == "__main__":
    main()
