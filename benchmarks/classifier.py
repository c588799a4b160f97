"""How good is the clip classifier on people it never saw?

    python benchmarks/classifier.py DATA [--cache DIR]

DATA holds the list and the videos (see storeguard.training.clips.data). Each head is fitted with
three seeds, leaving one actor out at a time; videos without a shopper are no part of training, and
are counted apart. The same with a random split by video shows what a split that knows nothing of
actors claims. Writes benchmarks/results/classifier.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import machine

from storeguard.training.clips.data import (
    ClipVideo,
    Fold,
    leave_one_group_out,
    random_folds,
    read_list,
)
from storeguard.training.clips.evaluate import ClipMetrics, VideoScore, measure
from storeguard.training.clips.features import VideoFeatures
from storeguard.training.clips.fit import ClipFitSettings, fit_head, score_videos
from storeguard.training.clips.heads import HeadName, make_head
from storeguard.training.clips.plots import plot_scores
from storeguard.training.clips.train import (
    ClipTrainSettings,
    feature_bank,
    follow,
    start_backbone,
)

NO_SHOPPER = "no_shopper"
HEADS = (HeadName.TAP, HeadName.TT, HeadName.LSTM)
SEEDS = (42, 43, 44)
RESULTS = Path(__file__).parent / "results"
_HEADING = """\
# The clip classifier on people it never saw

`python benchmarks/classifier.py DATA`. AUC over the videos with a shopper, scored by models that
were fitted without their actor; three seeds each. The last column is the same with videos dealt out
at random, which lets a model know its actors: it is no measure of what happens in a store. The
close-up's size, resolution and pooling were chosen among a dozen and more variants by these same
videos, so the figures flatter; videos that no choice was made by are not at hand.

| head | AUC by seed | mean | 95 % interval | accuracy | interval | found / missed | false alarms \
| per hour of normal | random split |
|---|---|---|---|---|---|---|---|---|---|
"""


def videos_of(data: Path) -> list[ClipVideo]:
    """The list, with the video of two actors marked as both's."""
    return [
        replace(video, group="E+F") if video.group == "EF" else video for video in read_list(data)
    ]


def run_folds(
    folds: Sequence[Fold],
    bank: dict[str, VideoFeatures],
    head: HeadName,
    seed: int,
    *,
    views: Sequence[int],
) -> list[VideoScore]:
    """Each fold's test videos, scored by a head that was fitted to its training videos."""
    scores = []
    for fold in folds:
        train = [bank[video.name] for video in fold.train if video.group != NO_SHOPPER]
        fitted = make_head(head, *views)
        fit_head(fitted, train, ClipFitSettings(seed=seed))
        scores += score_videos(fitted, [bank[video.name] for video in fold.test])
    return scores


def summary(scores: Sequence[VideoScore]) -> dict[str, Any]:
    """Scores of the videos with a shopper; by actor; and of those without, apart."""
    there = [one for one in scores if one.group != NO_SHOPPER]
    without_shopper = [one for one in scores if one.group == NO_SHOPPER]
    by_actor = {}
    for group in sorted({one.group for one in there}):
        theirs = [one for one in there if one.group == group]
        by_actor[group] = {
            "videos": len(theirs),
            "positive": sum(one.positive for one in theirs),
            "auc": measure(theirs).auc,
        }
    return {
        "with_shopper": measure(there).model_dump(mode="json"),
        "by_actor": by_actor,
        "without_shopper": {
            "videos": len(without_shopper),
            "alarms": sum((one.score or 0.0) >= 0.5 for one in without_shopper),
        },
        "all": measure(scores).model_dump(mode="json"),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("storeguard-data/clips"))
    arguments = parser.parse_args()
    settings = ClipTrainSettings(
        data=arguments.data, out=arguments.cache / "run", cache=arguments.cache
    )
    videos = videos_of(arguments.data)
    followed = follow(settings, videos, progress=True)
    backbone = start_backbone(settings)
    features = feature_bank(settings, backbone, followed, progress=True)
    bank = {one.followed.video.name: one for one in features}
    rows, shown = [], None
    for head in HEADS:
        for seed in SEEDS:
            started = time.perf_counter()
            actors = run_folds(leave_one_group_out(videos), bank, head, seed, views=backbone.views)
            chance = None
            if head is HEADS[0]:
                dealt = random_folds(videos, num_folds=5, seed=seed)
                chance = summary(run_folds(dealt, bank, head, seed, views=backbone.views))
            row = {
                "head": head.value,
                "seed": seed,
                "leave_one_actor_out": summary(actors),
                "random_by_video": chance,
                "seconds": round(time.perf_counter() - started, 1),
            }
            rows.append(row)
            print(head.value, seed, auc_of(row, "leave_one_actor_out"), row["seconds"], flush=True)
            if shown is None:
                shown = [one for one in actors if one.group != NO_SHOPPER]
    document = {
        "settings": settings.model_dump(mode="json", include={"backbone", "train_clips", "fit"})
        | {"augmentation": settings.augmentation.model_dump(mode="json")},
        "machine": machine(),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "classifier.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "classifier.md").write_text(table(rows))
    if shown:
        plot_scores(shown, measure(shown), RESULTS / "classifier.png")
    print(table(rows))


def auc_of(row: dict[str, Any], protocol: str) -> float:
    """A row's AUC over the videos with a shopper."""
    return float(row[protocol]["with_shopper"]["auc"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown page."""
    lines = [*_HEADING.splitlines()]
    for head in HEADS:
        mine = [row for row in rows if row["head"] == head.value]
        first = ClipMetrics.model_validate(mine[0]["leave_one_actor_out"]["with_shopper"])
        aucs = [auc_of(row, "leave_one_actor_out") for row in mine]
        dealt = [auc_of(row, "random_by_video") for row in mine if row["random_by_video"]]
        chance = f"{statistics.mean(dealt):.3f}" if dealt else "not run"
        (_, false), (missed, found) = first.confusion
        interval, right = first.auc_interval, first.accuracy_interval
        spread = f"{interval.low:.2f} to {interval.high:.2f}" if interval else ""
        lines.append(
            f"| {head.value} | {', '.join(f'{auc:.3f}' for auc in aucs)} | "
            f"{statistics.mean(aucs):.3f} | {spread} | {first.accuracy:.2f} | "
            f"{right.low:.2f} to {right.high:.2f} | {found} / {missed} | {false} | "
            f"{first.false_alarms_per_hour:.0f} | {chance} |"
        )
    first_row = rows[0]["leave_one_actor_out"]
    lines += ["", "By actor (TAP, first seed):", "", "| actor | videos | concealing | AUC |"]
    lines.append("|---|---|---|---|")
    for actor, found_of in first_row["by_actor"].items():
        auc = "one class only" if found_of["auc"] is None else f"{found_of['auc']:.2f}"
        lines.append(f"| {actor} | {found_of['videos']} | {found_of['positive']} | {auc} |")
    without_shopper = first_row["without_shopper"]
    note = (
        f"Videos without a shopper, counted apart: {without_shopper['alarms']} alarms in "
        f"{without_shopper['videos']}. With them counted in as normal the AUC reads "
        f"{first_row['all']['auc']:.3f}."
    )
    lines += ["", note]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
