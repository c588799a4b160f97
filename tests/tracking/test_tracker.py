import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.tracking_score import score_tracks
from storeguard.config.models import TrackerSettings
from storeguard.detection.detections import Detections
from storeguard.errors import CheckpointError
from storeguard.tracking.tracker import Tracker
from storeguard.tracking.tracks import Tracks

Where = Callable[[float], tuple[float, float]]  # seconds -> centre x, foot y in pixels
HEIGHT = 120.0
WH = (960, 540)


def box(x: float, foot: float, height: float = HEIGHT) -> list[float]:
    return [x - 0.2 * height, foot - height, x + 0.2 * height, foot]


def walkers() -> list[Where]:
    """Eight people on a 960x540 picture: lanes, diagonals, one who turns back, one who stands."""
    return [
        lambda t: (40 + 70 * t, 200),
        lambda t: (900 - 75 * t, 330),
        lambda t: (100 + 45 * t, 520 - 12 * t),
        lambda t: (880 - 50 * t, 190 + 15 * t),
        lambda _: (480, 400),
        lambda t: (650 + 90 * np.sin(0.5 * t), 500),
        lambda t: (200 + 30 * t, 430 + 4 * t),
        lambda t: (760, 150 + 28 * t),
    ]


def played(
    people: list[Where],
    times: np.ndarray,
    *,
    jitter: float = 0.02,
    miss: float = 0.05,
    seed: int = 3,
) -> tuple[list[Detections], dict[int, Tracks]]:
    """Detections of the people (noisy, in random order, some missed) and the truth, by frame."""
    rng = np.random.default_rng(seed)
    seen, truth = [], {}
    for frame, time_s in enumerate(times):
        boxes = np.array([box(*person(time_s)) for person in people])
        truth[frame] = Tracks(
            track_id=np.arange(1, len(people) + 1),
            xyxy=boxes.astype(np.float32),
            score=np.ones(len(people), np.float32),
        )
        noisy = boxes + rng.normal(0, jitter * HEIGHT, boxes.shape)
        order = rng.permutation(len(people))
        order = order[rng.random(len(order)) >= miss]
        seen.append(Detections.of(noisy[order], rng.uniform(0.6, 0.95, len(order))))
    return seen, truth


def followed(tracker: Tracker, seen: list[Detections], times: np.ndarray) -> dict[int, Tracks]:
    return {
        frame: tracker.step(detections, float(time_s), wh=WH)
        for frame, (detections, time_s) in enumerate(zip(seen, times, strict=True))
    }


def one(x: float, foot: float = 300, score: float = 0.9) -> Detections:
    return Detections.of([box(x, foot)], [score])


def ages_of(tracks: Tracks) -> list[float]:
    assert tracks.age_s is not None
    return tracks.age_s.tolist()


def ids(tracks: Tracks) -> list[int]:
    return sorted(tracks.track_id.tolist())


# ----------------------------------------------------------------------- keeping ids


@pytest.mark.parametrize(
    ("every", "least_idf1", "most_switches"),
    # two people who pass close by each other may be taken for each other at 2.5 frames a second
    [(1, 0.96, 0), (2, 0.96, 0), (4, 0.94, 8)],
)
def test_walkers_keep_their_ids_at_10_fps_with_frames_dropped(
    every: int, least_idf1: float, most_switches: int
):
    times = np.arange(0, 10, 0.1)[::every]
    scores = []
    for seed in range(8):
        seen, truth = played(walkers(), times, seed=seed)
        scores.append(score_tracks(truth, followed(Tracker(TrackerSettings()), seen, times)))
    assert np.mean([score.idf1 for score in scores]) > least_idf1
    assert sum(score.num_switches for score in scores) <= most_switches


def test_walkers_keep_their_ids_with_irregular_time_stamps():
    rng = np.random.default_rng(8)
    times = np.cumsum(rng.choice([0.03, 0.1, 0.25, 0.6], size=60, p=[0.3, 0.3, 0.3, 0.1]))
    times = times[times < 10]
    seen, truth = played(walkers(), times)
    score = score_tracks(truth, followed(Tracker(TrackerSettings()), seen, times))
    assert score.idf1 is not None
    assert score.idf1 > 0.95
    assert score.num_switches <= 1


@pytest.mark.parametrize("fps", [25, 10, 2.5])
def test_crossing_people_keep_their_ids(fps: float):
    times = np.arange(0, 6, 1 / fps)
    people: list[Where] = [lambda t: (100 + 100 * t, 300), lambda t: (700 - 100 * t, 312)]
    seen, truth = played(people, times, miss=0)
    # where they cover each other the detector sees the nearer one alone
    for frame, time_s in enumerate(times):
        if abs(people[0](time_s)[0] - people[1](time_s)[0]) < 20:
            front = seen[frame].xyxy[:, 3].argmax()
            seen[frame] = seen[frame][np.array([front])]
    score = score_tracks(truth, followed(Tracker(TrackerSettings()), seen, times))
    assert score.num_switches == 0
    assert score.idf1 is not None
    assert score.idf1 > 0.9


@pytest.mark.parametrize("speed", [0.0, 60.0], ids=["standing", "walking"])
@pytest.mark.parametrize("fps", [10, 2.5])
def test_an_occlusion_of_one_and_a_half_seconds_is_re_linked(fps: float, speed: float):
    tracker = Tracker(TrackerSettings())
    before, after = set(), set()
    for time_s in np.arange(0, 6, 1 / fps):
        hidden = 2.0 < time_s < 3.5
        found = Detections.empty() if hidden else one(100 + speed * time_s)
        tracks = tracker.step(found, float(time_s), wh=WH)
        if hidden:
            assert len(tracks) == 0
        else:
            (before if time_s <= 2 else after).update(ids(tracks))
    assert before == after
    assert len(before) == 1


def test_somebody_gone_for_longer_than_max_lost_is_somebody_new():
    tracker = Tracker(TrackerSettings(max_lost_s=1.0))
    first = ids(tracker.step(one(100), 0.0, wh=WH))
    for time_s in np.arange(0.1, 1.5, 0.1):
        tracker.step(Detections.empty(), float(time_s), wh=WH)
    tracker.step(one(100), 1.6, wh=WH)
    again = ids(tracker.step(one(100), 1.7, wh=WH))
    assert len(again) == 1
    assert again != first


def test_somebody_far_from_everybody_lost_is_new():
    tracker = Tracker(TrackerSettings())
    first = ids(tracker.step(one(100), 0.0, wh=WH))
    tracker.step(one(900), 0.5, wh=WH)
    assert ids(tracker.step(one(900), 0.6, wh=WH)) not in ([], first)


def test_weak_detections_continue_a_track_but_start_none():
    tracker = Tracker(TrackerSettings(high_score=0.5, low_score=0.1))
    first = ids(tracker.step(one(100), 0.0, wh=WH))
    for n in range(1, 20):
        both = Detections.of([box(100 + 5 * n, 300), box(600, 300)], [0.2, 0.2])
        assert ids(tracker.step(both, n * 0.1, wh=WH)) == first
    assert ids(tracker.step(one(205, score=0.05), 2.0, wh=WH)) == []


def test_sure_detections_come_before_weak_ones():
    tracker = Tracker(TrackerSettings(high_score=0.5, low_score=0.1))
    tracker.step(one(100), 0.0, wh=WH)
    # the weak box fits the track better, and is still second choice
    both = Detections.of([box(100, 300), box(106, 300)], [0.3, 0.9])
    assert tracker.step(both, 0.2, wh=WH).score.tolist() == pytest.approx([0.9])


# ----------------------------------------------------------------------- starting tracks


def test_people_in_the_first_frame_are_reported_at_once_and_later_ones_when_seen_twice():
    tracker = Tracker(TrackerSettings())
    assert ids(tracker.step(one(100), 0.0, wh=WH)) == [1]
    both = Detections.of([box(100, 300), box(600, 300)], [0.9, 0.9])
    assert ids(tracker.step(both, 0.1, wh=WH)) == [1]
    assert ids(tracker.step(both, 0.2, wh=WH)) == [1, 2]


@pytest.mark.parametrize(
    ("later_s", "reported"),
    [(0.15, True), (0.35, False)],
    ids=["within confirm_s", "after confirm_s"],
)
def test_the_second_look_must_come_in_time(later_s: float, reported: bool):
    tracker = Tracker(TrackerSettings(confirm_s=0.2))
    tracker.step(Detections.empty(), 0.0, wh=WH)
    tracker.step(one(100), 1.0, wh=WH)
    for between_s in np.arange(0.05, later_s, 0.05):
        tracker.step(Detections.empty(), 1.0 + float(between_s), wh=WH)
    assert bool(ids(tracker.step(one(100), 1.0 + later_s, wh=WH))) is reported


def test_the_very_next_frame_is_in_time_however_late_it_comes():
    tracker = Tracker(TrackerSettings(confirm_s=0.2))
    tracker.step(Detections.empty(), 0.0, wh=WH)
    tracker.step(one(100), 1.0, wh=WH)
    assert ids(tracker.step(one(110), 1.8, wh=WH)) == [1]


def test_a_second_box_around_one_person_starts_no_track():
    tracker = Tracker(TrackerSettings())
    twice = Detections.of([box(100, 300), box(102, 303, 116)], [0.9, 0.6])
    tracker.step(one(100), 0.0, wh=WH)
    for n in range(1, 6):
        assert ids(tracker.step(twice, n * 0.1, wh=WH)) == [1]


def test_age_counts_from_the_first_look_and_goes_on_through_a_gap():
    tracker = Tracker(TrackerSettings())
    tracker.step(Detections.empty(), 50.0, wh=WH)
    tracker.step(one(100), 50.5, wh=WH)
    ages = [ages_of(tracker.step(one(100), 50.625, wh=WH))]
    tracker.step(Detections.empty(), 51.0, wh=WH)
    ages.append(ages_of(tracker.step(one(100), 52.0, wh=WH)))
    assert ages == [[0.125], [1.5]]


# ----------------------------------------------------------------------- time


def test_the_same_moment_twice_moves_no_one():
    tracker = Tracker(TrackerSettings())
    first = ids(tracker.step(one(100), 5.0, wh=WH))
    assert ids(tracker.step(one(101), 5.0, wh=WH)) == first
    assert ids(tracker.step(one(101), 5.0, wh=WH)) == first


def test_a_small_step_back_counts_as_no_time():
    tracker = Tracker(TrackerSettings())
    for n in range(10):
        first = ids(tracker.step(one(100 + 8 * n), 10 + n * 0.1, wh=WH))
    for n in range(10, 20):  # the clock was set back by half a second
        assert ids(tracker.step(one(100 + 8 * n), 9.5 + n * 0.1, wh=WH)) == first


@pytest.mark.parametrize("jump_s", [-3600.0, -3.5, 8.5, 3600.0, 1e12])
def test_a_big_jump_ends_all_tracks_and_starts_a_scene(jump_s: float):
    tracker = Tracker(TrackerSettings(max_lost_s=3.0), max_gap_s=8.0)
    tracker.step(one(100), 10.0, wh=WH)
    assert ids(tracker.step(one(100), 10.1, wh=WH)) == [1]
    assert ids(tracker.step(one(100), 10.1 + jump_s, wh=WH)) == [2]


# ----------------------------------------------------------------------- silence of the camera


@pytest.mark.parametrize("gap_s", [1.1, 2.5, 3.4, 6.0, 9.0])
def test_a_gap_between_frames_ends_no_track(gap_s: float):
    tracker = Tracker(TrackerSettings(max_lost_s=3.0), max_gap_s=10.0)
    for n in range(10):
        first = ids(tracker.step(one(200 + 4 * n), n * 0.1, wh=WH))
    assert ids(tracker.step(one(260), 0.9 + gap_s, wh=WH)) == first


@pytest.mark.parametrize(
    ("x", "height"), [(930, HEIGHT), (205, 2.5 * HEIGHT)], ids=["too far away", "too big"]
)
def test_another_person_after_a_gap_is_new(x: float, height: float):
    tracker = Tracker(TrackerSettings())
    for n in range(10):
        first = ids(tracker.step(one(200), n * 0.1, wh=WH))
    for time_s in (5.0, 5.1):
        later = ids(tracker.step(Detections.of([box(x, 300, height)], [0.9]), time_s, wh=WH))
    assert len(later) == 1
    assert later != first


def test_unseen_time_is_observed_time():
    tracker = Tracker(TrackerSettings(max_lost_s=3.0))
    tracker.step(one(200), 0.0, wh=WH)
    # a silence of 7 s counts as the second up to its first frame
    times = [7.0, *np.arange(7.5, 9.0, 0.5)]
    for time_s in times:
        tracker.step(Detections.empty(), float(time_s), wh=WH)
    assert ids(tracker.step(one(200), 9.0, wh=WH)) == [1]
    for time_s in np.arange(9.5, 12.6, 0.5):
        tracker.step(Detections.empty(), float(time_s), wh=WH)
    assert 1 not in ids(tracker.step(one(200), 12.7, wh=WH))


def test_age_counts_the_silence():
    tracker = Tracker(TrackerSettings())
    tracker.step(one(200), 0.0, wh=WH)
    assert ages_of(tracker.step(one(200), 7.0, wh=WH)) == [7.0]


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), -float("inf")])
def test_a_time_that_is_no_number_is_refused_and_changes_nothing(time_s: float):
    tracker = Tracker(TrackerSettings())
    tracker.step(one(100), 0.0, wh=WH)
    before = tracker.checkpoint()
    with pytest.raises(ValueError, match="finite"):
        tracker.step(one(100), time_s, wh=WH)
    assert tracker.checkpoint() == before


def test_ids_are_never_used_again_after_a_reset():
    tracker = Tracker(TrackerSettings())
    used: list[int] = []
    for scene in range(4):
        for n in range(5):
            used += [
                i
                for i in ids(tracker.step(one(100), scene * 10 + n * 0.1, wh=WH))
                if i not in used[-1:]
            ]
        tracker.reset()
    assert used == [1, 2, 3, 4]


# ----------------------------------------------------------------------- sizes


def scaled(detections: Detections, factor: tuple[float, float]) -> Detections:
    return Detections.of(detections.xyxy * np.array(factor * 2), detections.score)


@pytest.mark.parametrize(
    "sizes",
    [
        [(1920, 1080)],  # another size, from the first frame on
        [(960, 540)] * 40 + [(480, 270)] * 100,  # a camera that changes its resolution
        [(960, 540), (1920, 1080), (320, 180)],  # a folder of mixed sizes
        [(960, 540)] * 40 + [(720, 540)] * 100,  # the same view, squeezed
    ],
    ids=["another", "changes", "mixed", "squeezed"],
)
def test_people_are_the_same_at_any_size_of_the_frame(sizes: list[tuple[int, int]]):
    times = np.arange(0, 8, 0.1)
    seen, _ = played(walkers(), times)
    usual, other = Tracker(TrackerSettings()), Tracker(TrackerSettings())
    for n, (detections, time_s) in enumerate(zip(seen, times, strict=True)):
        wh = sizes[n % len(sizes)]
        factor = (wh[0] / WH[0], wh[1] / WH[1])
        expected = usual.step(detections, float(time_s), wh=WH)
        found = other.step(scaled(detections, factor), float(time_s), wh=wh)
        assert found.track_id.tolist() == expected.track_id.tolist()
        np.testing.assert_allclose(found.xyxy, expected.xyxy * np.array(factor * 2), rtol=1e-4)


def test_a_frame_without_a_size_is_refused():
    with pytest.raises(ValueError, match=r"wh: expected a frame of at least 1x1 pixels"):
        Tracker(TrackerSettings()).step(one(100), 0.0, wh=(0, 10))


# ----------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "bad",
    [
        [float("nan"), 0, 10, 10],
        [0, 0, float("inf"), 10],
        [50, 50, 40, 90],
        [50, 50, 50, 90],
        [0, 0, 1e9, 1e9],
    ],
    ids=["nan", "inf", "negative width", "no width", "far out of any picture"],
)
def test_unusable_boxes_are_ignored_and_counted(bad: list[float]):
    tracker = Tracker(TrackerSettings())
    both = Detections.of([bad, box(100, 300)], [0.9, 0.9])
    assert ids(tracker.step(both, 0.0, wh=WH)) == [1]
    assert tracker.ignored_boxes == 1
    assert ids(tracker.step(both, 0.1, wh=WH)) == [1]
    assert tracker.ignored_boxes == 2


def test_a_score_that_is_no_number_is_ignored():
    tracker = Tracker(TrackerSettings())
    assert len(tracker.step(one(100, score=float("nan")), 0.0, wh=WH)) == 0
    assert tracker.ignored_boxes == 1


# ----------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("at", [0, 1, 17, 40])
def test_what_follows_a_restore_is_byte_identical(at: int):
    times = np.arange(0, 8, 0.1)
    times[17:] += 4.0  # a silence, with people who are missed right after it
    seen, _ = played(walkers(), times, miss=0.3)
    whole = Tracker(TrackerSettings())
    for detections, time_s in zip(seen[:at], times[:at], strict=True):
        whole.step(detections, float(time_s), wh=WH)
    resumed = Tracker(TrackerSettings())
    resumed.restore(whole.checkpoint())
    for detections, time_s in zip(seen[at:], times[at:], strict=True):
        a, b = (
            whole.step(detections, float(time_s), wh=WH),
            resumed.step(detections, float(time_s), wh=WH),
        )
        assert a.track_id.tobytes() == b.track_id.tobytes()
        assert a.xyxy.tobytes() == b.xyxy.tobytes()
        assert a.score.tobytes() == b.score.tobytes()
        assert ages_of(a) == ages_of(b)
    assert whole.checkpoint() == resumed.checkpoint()


def good_state() -> dict:
    tracker = Tracker(TrackerSettings())
    tracker.step(Detections.of([box(100, 300), box(500, 300)], [0.9, 0.9]), 0.0, wh=WH)
    return json.loads(tracker.checkpoint())


def broken(**changes: object) -> bytes:
    state = good_state()
    for path, value in changes.items():
        part = state
        *outer, last = path.split("__")
        for key in outer:
            part = part[key]
        part[last] = value
    return json.dumps(state).encode()


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "unreadable"),
        (b"\x80\x04\x95 pickle?", "unreadable"),
        (b"[]", "unreadable"),
        (b"{}", "unreadable"),
        (broken(version=99), "expected version"),
        (broken(next_id=1), "expected unique ids"),
        (broken(next_id="many"), "unreadable"),
        (broken(now_s=float("nan")), "finite"),
        (broken(aspect=-1.0), "positive aspect"),
        (broken(book__track_id=[1, 1]), "expected unique ids"),
        (broken(book__track_id=[1]), "one length"),
        (broken(book__seen_s=[[0.0], [0.0]]), "one length"),
        (broken(book__seen_s=[0.0, float("inf")]), "finite"),
        (broken(motion__position=[[0, 0, 0]]), "unreadable"),
        (broken(motion__var_p=[[0, 0, 0, 0], [1, 1, 1, 1]]), "positive"),
        (broken(motion__position=[[0, 0, 0, float("nan")]] * 2), "finite"),
    ],
)
def test_a_bad_checkpoint_is_refused_and_changes_nothing(blob: bytes, message: str):
    tracker = Tracker(TrackerSettings())
    tracker.step(one(100), 0.0, wh=WH)
    before = tracker.checkpoint()
    with pytest.raises(CheckpointError, match=message):
        tracker.restore(blob)
    assert tracker.checkpoint() == before


def test_a_checkpoint_without_allowances_is_restored():
    state = good_state()
    del state["book"]["allowance"]
    tracker = Tracker(TrackerSettings())
    tracker.restore(json.dumps(state).encode())
    assert json.loads(tracker.checkpoint()) == good_state()


def test_a_checkpoint_is_small():
    times = np.arange(0, 5, 0.1)
    seen, _ = played(walkers(), times)
    tracker = Tracker(TrackerSettings())
    followed(tracker, seen, times)
    num_tracks = len(json.loads(tracker.checkpoint())["book"]["track_id"])
    assert len(tracker.checkpoint()) < 1000 * (num_tracks + 1)


# ----------------------------------------------------------------------- any input

numbers = st.floats(-2000, 2000, width=32) | st.sampled_from([float("nan"), float("inf")])
frames = st.lists(
    st.tuples(
        st.lists(
            st.tuples(numbers, numbers, numbers, numbers, st.floats(0, 1, width=32)), max_size=8
        ),
        st.floats(-5, 5),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames)
def test_tracks_are_well_formed_for_any_input(
    frames: list[tuple[list[tuple[float, ...]], float]],
):
    tracker = Tracker(TrackerSettings())
    time_s = 0.0
    highest = 0
    for rows, dt_s in frames:
        time_s += dt_s
        table = np.array(rows, np.float32).reshape(-1, 5)
        tracks = tracker.step(Detections.of(table[:, :4], table[:, 4]), time_s, wh=WH)
        assert tracks.track_id.dtype == np.int64
        assert tracks.xyxy.dtype == np.float32
        assert tracks.score.dtype == np.float32
        assert all(age_s >= 0 for age_s in ages_of(tracks))
        assert len(set(ids(tracks))) == len(tracks)
        assert (tracks.track_id > 0).all()
        assert np.isfinite(tracks.xyxy).all()
        assert ((tracks.score >= 0) & (tracks.score <= 1)).all()
        # what is reported was detected in this very frame
        for reported in tracks.xyxy:
            assert np.isclose(table[:, :4], reported, atol=0.01).all(axis=1).any()
        resumed = Tracker(TrackerSettings())
        resumed.restore(tracker.checkpoint())
        assert resumed.checkpoint() == tracker.checkpoint()
        highest = max([highest, *ids(tracks)])
    tracker.reset()
    fresh = tracker.step(one(100), time_s, wh=WH)
    assert (fresh.track_id > highest).all()
