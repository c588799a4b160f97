"""The referee of the tracking benchmark, on cases worked out by hand and on a real sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tracking_score import score_tracks
from storeguard.tracking.mot import read_tracks
from storeguard.tracking.tracks import Tracks


def tracks(**at: float) -> Tracks:
    """`a1=0` puts track 1 in a 10x10 box at x = 0."""
    return Tracks(
        track_id=np.array([int(name[1:]) for name in at], np.int64),
        xyxy=np.array([[x, 0, x + 10, 10] for x in at.values()], np.float32).reshape(-1, 4),
        score=np.ones(len(at), np.float32),
    )


# truth, found, then by hand: misses, false, switches, id_true, id_false, id_missed
CASES = {
    "perfect, ids of other names": (
        [tracks(a1=0, a2=50)] * 3,
        [tracks(a7=0, a8=50)] * 3,
        (0, 0, 0, 6, 0, 0),
    ),
    "nothing found": ([tracks(a1=0)] * 4, [Tracks.empty()] * 4, (4, 0, 0, 0, 0, 4)),
    "no person": ([Tracks.empty()] * 2, [tracks(a1=0)] * 2, (0, 2, 0, 0, 2, 0)),
    # one person, 3 frames as track 1, then 2 as track 2: the best single name is track 1
    "one switch": (
        [tracks(a1=0)] * 5,
        [tracks(a1=0)] * 3 + [tracks(a2=0)] * 2,
        (0, 0, 1, 3, 2, 2),
    ),
    # the switch is counted against the last known name, also across a miss
    "a switch across a gap": (
        [tracks(a1=0)] * 3,
        [tracks(a1=0), Tracks.empty(), tracks(a2=0)],
        (1, 0, 1, 1, 1, 2),
    ),
    # ids of two people are swapped after 2 of 4 frames: two switches, half agrees
    "swap": (
        [tracks(a1=0, a2=50)] * 4,
        [tracks(a1=0, a2=50)] * 2 + [tracks(a1=50, a2=0)] * 2,
        (0, 0, 2, 4, 4, 4),
    ),
    # overlap 1/3 is no match: a miss and a false one
    "too far off": ([tracks(a1=0)], [tracks(a1=5)], (1, 1, 0, 0, 1, 1)),
    # track 1 still overlaps enough (IoU 0.67), so it keeps its person though track 2 fits better;
    # for IDF1 track 2 fits that frame as well, but its name may be used once only
    "the old name is kept": (
        [tracks(a1=0), tracks(a1=0)],
        [tracks(a1=0), tracks(a1=2, a2=0)],
        (0, 1, 0, 2, 1, 0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_figures_worked_out_by_hand(case: str):
    truth, found, expected = CASES[case]
    score = score_tracks(dict(enumerate(truth)), dict(enumerate(found)))
    assert (
        score.num_misses,
        score.num_false,
        score.num_switches,
        score.id_true,
        score.id_false,
        score.id_missed,
    ) == expected


def test_mota_and_idf1_of_one_switch():
    score = score_tracks(
        dict(enumerate([tracks(a1=0)] * 5)),
        dict(enumerate([tracks(a1=0)] * 3 + [tracks(a2=0)] * 2)),
    )
    assert score.mota == pytest.approx(1 - 1 / 5)
    assert score.idf1 == pytest.approx(2 * 3 / (2 * 3 + 2 + 2))
    assert score.distance == pytest.approx(0)


def test_nothing_at_all_has_no_figures():
    score = score_tracks({}, {})
    assert score.mota is None
    assert score.idf1 is None
    assert score.distance is None


def test_a_real_sequence(shared_data: Path):
    tud = shared_data / "tracking" / "tud_stadtmitte"
    score = score_tracks(read_tracks(tud / "gt.txt"), read_tracks(tud / "test.txt"))
    # as compare_to_groundtruth(gt, test, "iou", distth=0.5) of py-motmetrics 1.4.0 gives them
    assert score.num_truth == 1156
    assert (score.num_misses, score.num_false, score.num_switches) == (452, 45, 7)
    assert (score.id_true, score.id_false, score.id_missed) == (614, 135, 542)
    assert score.mota == pytest.approx(0.564014, abs=1e-6)
    assert score.idf1 == pytest.approx(0.644619, abs=1e-6)
    assert score.distance == pytest.approx(0.345904, abs=1e-6)
