"""Labels for unlabelled films: the start model's own findings, enlarged and mirrored.

At twice the size and averaged with its mirror image a detector finds people that it misses at
working size. What all views agree on becomes a label; what they half agree on is ignored in the
loss, neither taught nor denied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

from storeguard.detection.detections import Detections
from storeguard.detection.nms import iou_matrix, nms
from storeguard.errors import DatasetError
from storeguard.training.detector.evaluate import Forward, detect

PERSON_CLASS = 0
IGNORE_CLASS = 1


class DistillSettings(BaseModel):
    """How films are sampled and what counts as seen.

    Attributes:
        frames_per_film: pictures taken of each film, spread evenly.
        sides_px: input sides at which the model runs on each picture, plain and mirrored.
        sure: mean score over all views from which a box is a label.
        unsure: mean score from which a box is ignored rather than taken for background.
        same_iou: overlap from which boxes of two views mean one person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames_per_film: int = Field(default=40, ge=1)
    sides_px: tuple[int, ...] = (640, 832)
    sure: float = Field(default=0.45, gt=0, le=1)
    unsure: float = Field(default=0.08, gt=0, le=1)
    same_iou: float = Field(default=0.55, gt=0, lt=1)


def label_films(
    forward: Forward, films: Sequence[Path], folder: Path, settings: DistillSettings
) -> int:
    """Write frames of `films` and labels for them to `folder`, in YOLO layout.

    Class 0 is a person, class 1 a box to ignore.

    Returns:
        The number of pictures written.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    num_written = 0
    for film in films:
        for index, picture in enumerate(sample_frames(film, settings.frames_per_film)):
            name = f"{film.stem}_{index:04d}"
            sure, unsure = label_picture(forward, picture, settings)
            size = np.array([picture.width, picture.height] * 2, np.float32)
            lines = [
                f"{class_id} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}"
                for class_id, found in ((PERSON_CLASS, sure), (IGNORE_CLASS, unsure))
                for x1, y1, x2, y2 in found.xyxy / size
                if x2 > x1 and y2 > y1
            ]
            picture.save(folder / "images" / f"{name}.jpg", quality=92)
            (folder / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
            num_written += 1
    return num_written


def label_picture(
    forward: Forward, picture: Image.Image, settings: DistillSettings
) -> tuple[Detections, Detections]:
    """Return the persons that the views agree on, and those they half agree on, in its pixels."""
    views = []
    for side in settings.sides_px:
        views.append(detect(forward, picture, (side, side)))
        mirrored = detect(forward, ImageOps.mirror(picture), (side, side))
        boxes = mirrored.xyxy.copy()
        boxes[:, [0, 2]] = picture.width - boxes[:, [2, 0]]
        views.append(Detections.of(boxes, mirrored.score))
    merged = merge_views(views, settings.same_iou)
    sure = merged.score >= settings.sure
    return merged[sure], merged[~sure & (merged.score >= settings.unsure)]


def merge_views(views: Sequence[Detections], same_iou: float) -> Detections:
    """Join the findings of several views: box and score are means over the views that saw it.

    A view that missed a person counts with score 0.
    """
    boxes = np.concatenate([view.xyxy for view in views])
    scores = np.concatenate([view.score for view in views])
    view_ids = np.repeat(np.arange(len(views)), [len(view) for view in views])
    merged_boxes, merged_scores = [], []
    for kept in nms(boxes, scores, same_iou):
        same = iou_matrix(boxes[kept][None], boxes)[0] >= same_iou
        best = [scores[same & (view_ids == view)].max(initial=0.0) for view in range(len(views))]
        merged_scores.append(float(np.mean(best)))
        merged_boxes.append(np.average(boxes[same], axis=0, weights=scores[same]))
    return Detections.of(merged_boxes, merged_scores)


def sample_frames(film: Path, count: int) -> Iterator[Image.Image]:
    """Yield up to `count` frames of a film, RGB, spread evenly over the frames it holds.

    Raises:
        DatasetError: the film cannot be opened or holds no picture.
    """
    try:
        with av.open(str(film)) as container:
            total = sum(1 for packet in container.demux(video=0) if packet.size)
        chosen = frozenset(np.linspace(0, max(total - 1, 0), count).round().astype(int).tolist())
        num_found = 0
        with av.open(str(film)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in chosen:
                    num_found += 1
                    yield Image.fromarray(frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, OSError) as error:
        raise DatasetError(f"{film}: expected a film: {error}") from error
    if not num_found:
        raise DatasetError(f"{film}: expected frames, found none")
