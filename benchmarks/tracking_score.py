"""How well tracks follow people, by py-motmetrics: a referee that is not ours.

MOTA and identity switches: CLEAR MOT, Bernardin and Stiefelhagen, EURASIP JIVP 2008. IDF1: Ristani
et al., ECCV workshops 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import motmetrics
import numpy as np
from numpy.typing import NDArray

from storeguard.detection.nms import iou_matrix
from storeguard.tracking.tracks import Tracks

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class TrackingScore:
    """The figures of one sequence.

    Attributes:
        num_truth: boxes in the ground truth.
        num_misses, num_false, num_switches: people without a track, tracks without a person, and
            people whose track has another id than the last time they had one.
        id_true, id_false, id_missed: boxes that agree under the best one-to-one naming of tracks,
            the tracks' other boxes, and the ground truth's.
        mota: None without ground truth.
        idf1: None if there is no box on either side.
        distance: mean of 1 - IoU over the matched boxes (MOTP); None without a match.
    """

    num_truth: int
    num_misses: int
    num_false: int
    num_switches: int
    id_true: int
    id_false: int
    id_missed: int
    mota: float | None
    idf1: float | None
    distance: float | None


_COUNTS = {
    "num_truth": "num_objects",
    "num_misses": "num_misses",
    "num_false": "num_false_positives",
    "num_switches": "num_switches",
    "id_true": "idtp",
    "id_false": "idfp",
    "id_missed": "idfn",
}
_SHARES = {"mota": "mota", "idf1": "idf1", "distance": "motp"}


def score_tracks(truth: Mapping[int, Tracks], found: Mapping[int, Tracks]) -> TrackingScore:
    """Compare tracks with a ground truth, frame by frame.

    Args:
        truth: who was where, by frame; frames in neither mapping do not count.
        found: the tracker's result, by frame.
    """
    events = motmetrics.MOTAccumulator()
    for frame in sorted(set(truth) | set(found)):
        people, tracks = truth.get(frame, Tracks.empty()), found.get(frame, Tracks.empty())
        events.update(people.track_id, tracks.track_id, _distances(people, tracks), frameid=frame)
    figures: Mapping[str, Any] = motmetrics.metrics.create().compute(
        events, metrics=[*_COUNTS.values(), *_SHARES.values()], return_dataframe=False
    )
    return TrackingScore(
        **{ours: int(figures[theirs]) for ours, theirs in _COUNTS.items()},
        **{ours: _known(float(figures[theirs])) for ours, theirs in _SHARES.items()},
    )


def _distances(people: Tracks, tracks: Tracks) -> NDArray[np.float64]:
    """(n, m) 1 - IoU of every pair; NaN if they overlap too little to be matched.

    Ours, because motmetrics.distances needs a NumPy older than 2.
    """
    overlap = iou_matrix(people.xyxy.astype(np.float64), tracks.xyxy.astype(np.float64))
    return np.where(overlap >= MIN_IOU, 1 - overlap, np.nan)


def _known(figure: float) -> float | None:
    return figure if math.isfinite(figure) else None
