"""How well tracks follow people: MOTA, IDF1 and identity switches, against a ground truth.

CLEAR MOT (Bernardin and Stiefelhagen, EURASIP JIVP 2008): in each frame a person keeps the track
they had while the two still overlap enough, the rest are assigned best first in total; misses,
false positives and switches follow. IDF1 (Ristani et al., ECCV workshops 2016): one track a person
over the whole sequence, chosen so that the frames in which they agree are most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from storeguard.tracking.tracks import Tracks

MIN_IOU = 0.5


@dataclass(frozen=True, slots=True)
class TrackingScore:
    """The figures of one sequence.

    Attributes:
        num_frames: frames judged, those without anybody included.
        num_truth: boxes in the ground truth.
        num_misses, num_false, num_switches: people without a track, tracks without a person, and
            people whose track has another id than the last time they had one.
        overlap: mean IoU of the matched boxes (1 - MOTP); None without a match.
        id_true, id_false, id_missed: boxes that agree under the best one-to-one naming of tracks,
            the tracks' other boxes, and the ground truth's.
    """

    num_frames: int
    num_truth: int
    num_misses: int
    num_false: int
    num_switches: int
    overlap: float | None
    id_true: int
    id_false: int
    id_missed: int

    @property
    def mota(self) -> float | None:
        """1 - (misses + false + switches) / truth; None without ground truth."""
        if self.num_truth == 0:
            return None
        return 1 - (self.num_misses + self.num_false + self.num_switches) / self.num_truth

    @property
    def idf1(self) -> float | None:
        """2 TP / (2 TP + FP + FN) of identities; None when there is nothing on either side."""
        total = 2 * self.id_true + self.id_false + self.id_missed
        return 2 * self.id_true / total if total else None


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, m) intersection over union of boxes (n, 4) and (m, 4), corners xyxy."""
    one, two = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    wh = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    shared = np.clip(wh, 0, None).prod(axis=2)
    areas = (one[..., 2:] - one[..., :2]).prod(axis=2) + (two[..., 2:] - two[..., :2]).prod(axis=2)
    union = areas - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def evaluate(
    truth: Mapping[int, Tracks], found: Mapping[int, Tracks], *, min_iou: float = MIN_IOU
) -> TrackingScore:
    """Judge tracks against a ground truth, frame by frame.

    Args:
        truth: who was where, by frame; frames in neither mapping do not count.
        found: the tracker's answer, by frame.
        min_iou: a person and a track agree in a frame when their boxes overlap at least this much.
    """
    frames = sorted(set(truth) | set(found))
    named: dict[int, int] = {}  # person -> the track they had last
    overlaps: list[float] = []
    misses = false = switches = 0
    for frame in frames:
        people, tracks = truth.get(frame, Tracks.empty()), found.get(frame, Tracks.empty())
        pairs, shared = _pair(people, tracks, named, min_iou)
        for row, col in pairs:
            person, track = int(people.track_id[row]), int(tracks.track_id[col])
            switches += named.get(person, track) != track
            named[person] = track
            overlaps.append(float(shared[row, col]))
        misses += len(people) - len(pairs)
        false += len(tracks) - len(pairs)
    num_truth = sum(len(people) for people in truth.values())
    num_found = sum(len(tracks) for tracks in found.values())
    id_true = _agreement(truth, found, min_iou)
    return TrackingScore(
        num_frames=len(frames),
        num_truth=num_truth,
        num_misses=misses,
        num_false=false,
        num_switches=switches,
        overlap=float(np.mean(overlaps)) if overlaps else None,
        id_true=id_true,
        id_false=num_found - id_true,
        id_missed=num_truth - id_true,
    )


def _pair(
    people: Tracks, tracks: Tracks, named: Mapping[int, int], min_iou: float
) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    """Rows of people and tracks that go together in one frame, and the IoU of all pairs."""
    shared = iou(people.xyxy, tracks.xyxy)
    column = {int(track): col for col, track in enumerate(tracks.track_id)}
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for row, person in enumerate(people.track_id):
        col = column.get(named.get(int(person), -1), -1)
        if col >= 0 and col not in taken and shared[row, col] >= min_iou:
            pairs.append((row, col))
            taken.add(col)
    rows = [row for row in range(len(people)) if row not in {pair[0] for pair in pairs}]
    cols = [col for col in range(len(tracks)) if col not in taken]
    rest = shared[np.ix_(rows, cols)]
    # First as many pairs as can be, then the largest overlap in all.
    worth = np.where(rest >= min_iou, 1e3 + rest, 0.0)
    for i, j in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
        if rest[i, j] >= min_iou:
            pairs.append((rows[i], cols[j]))
    return pairs, shared


def _agreement(truth: Mapping[int, Tracks], found: Mapping[int, Tracks], min_iou: float) -> int:
    """The most boxes that agree when every person is given at most one track, and back."""
    person_row = _index(truth)
    track_col = _index(found)
    together = np.zeros((len(person_row), len(track_col)))
    for frame in set(truth) & set(found):
        people, tracks = truth[frame], found[frame]
        for i, j in zip(*np.nonzero(iou(people.xyxy, tracks.xyxy) >= min_iou), strict=True):
            together[person_row[int(people.track_id[i])], track_col[int(tracks.track_id[j])]] += 1
    return int(together[linear_sum_assignment(together, maximize=True)].sum())


def _index(tracks: Mapping[int, Tracks]) -> dict[int, int]:
    ids = sorted({int(one) for frame in tracks.values() for one in frame.track_id})
    return {one: place for place, one in enumerate(ids)}
