"""`storeguard classify`: scores video files with the clip classifier."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from storeguard.config.models import ClassifierSettings, DetectorSettings
from storeguard.errors import SourceError


def classify(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    model: Annotated[str, typer.Option(help="`bundled`, or an ONNX file.")] = "bundled",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Label `shoplifting` from this score on; the model's if left out."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds of video between a person's clips.")
    ] = 1.0,
) -> None:
    """Score the people in videos; one JSON line each: video, score, label, clip_scores, people.

    A video's score is that of the person with the highest one: the mean of their three highest
    clips. A file that cannot be read is reported, the others are scored, and the exit code is 2.
    """
    from storeguard.engines.loading import (  # noqa: PLC0415 - slow to load
        load_clip_classifier,
        load_detector,
    )
    from storeguard.offline.video_scores import score_video  # noqa: PLC0415

    classifier = load_clip_classifier(ClassifierSettings(model=model))
    detector = load_detector(DetectorSettings())
    limit = classifier.info.threshold if threshold is None else threshold
    failed = False
    for video in clips:
        try:
            scored = score_video(video, detector, classifier, every_s=every)
        except SourceError as error:
            failed = True
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False)
            continue
        best = max(scored.people, key=lambda one: one.score, default=None)
        line = {
            "video": str(video),
            "score": None if scored.score is None else round(scored.score, 4),
            "label": "shoplifting" if (scored.score or 0.0) >= limit else "normal",
            "clip_scores": [round(score, 4) for score in best.scores] if best else [],
            "people": [
                {
                    "person": one.person,
                    "score": round(one.score, 4),
                    "ends_s": one.ends_s,
                    "clip_scores": [round(score, 4) for score in one.scores],
                }
                for one in scored.people
            ],
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - the command's output
    if failed:
        sys.exit(2)
