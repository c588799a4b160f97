import numpy as np
import pytest

from storeguard.tracking.motion import (
    MotionModel,
    MotionState,
    size_of,
    to_measurement,
    to_xyxy,
)

MODEL = MotionModel()
BOXES = np.array([[100.0, 50.0, 140.0, 170.0], [10.0, 10.0, 200.0, 60.0]])


def moving() -> MotionState:
    state = MotionState.first_seen(to_measurement(BOXES), np.array([0.9, 0.4]), MODEL)
    state.velocity[:] = [[30.0, -5.0, 0.1, 0.0], [-80.0, 40.0, 0.0, -0.2]]
    return state


def test_boxes_survive_the_round_trip():
    np.testing.assert_allclose(to_xyxy(to_measurement(BOXES)), BOXES)
    np.testing.assert_allclose(size_of(to_measurement(BOXES)), np.sqrt([40 * 120, 190 * 50]))


@pytest.mark.parametrize("cuts", [(2.0,), (1.0, 1.0), (0.3, 0.7, 0.001, 0.999)])
def test_a_gap_may_be_cut_into_any_steps(cuts: tuple[float, ...]):
    whole, parts = moving(), moving()
    # the size is kept still: it scales the noise, and is read at the start of each step
    whole.velocity[:, 2:] = parts.velocity[:, 2:] = 0
    whole.advance(2.0, MODEL)
    for dt_s in cuts:
        parts.advance(dt_s, MODEL)
    for name in ("position", "velocity", "var_p", "cov_pv", "var_v"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)


def test_no_time_changes_nothing():
    state, before = moving(), moving()
    state.advance(0.0, MODEL)
    np.testing.assert_array_equal(state.position, before.position)
    np.testing.assert_array_equal(state.var_p, before.var_p)


def test_short_gaps_keep_the_velocity_and_long_ones_forget_it():
    near, far = moving(), moving()
    near.advance(0.01, MODEL)
    far.advance(1000.0, MODEL)
    start = moving()
    np.testing.assert_allclose(
        near.position[:, :2], start.position[:, :2] + 0.01 * start.velocity[:, :2], rtol=1e-3
    )
    np.testing.assert_allclose(
        far.position[:, :2], start.position[:, :2] + MODEL.memory_s * start.velocity[:, :2]
    )
    np.testing.assert_allclose(far.velocity, 0, atol=1e-9)


def test_the_covariance_stays_valid_over_many_irregular_steps():
    rng = np.random.default_rng(1)
    state = moving()
    rows = np.array([0, 1])
    for _ in range(500):
        state.advance(float(rng.exponential(0.3)), MODEL)
        state.correct(rows, state.position + rng.normal(0, 0.05, (2, 4)), rng.random(2), MODEL)
        assert (state.var_p > 0).all()
        assert (state.var_v > 0).all()
        assert (state.var_p * state.var_v - state.cov_pv**2 > 0).all()


def test_an_unsure_detection_moves_the_track_less():
    target = to_measurement(BOXES) + np.array([20.0, 0, 0, 0])
    moved = []
    for score in (0.95, 0.15):
        state = MotionState.first_seen(to_measurement(BOXES), np.array([0.9, 0.9]), MODEL)
        state.advance(0.1, MODEL)
        state.correct(np.array([0, 1]), target, np.full(2, score), MODEL)
        moved.append(state.position[:, 0] - to_measurement(BOXES)[:, 0])
    assert (moved[0] > moved[1]).all()
    assert (moved[1] > 0).all()
    assert (moved[0] < 20).all()


def test_a_walker_s_velocity_is_learnt():
    state = MotionState.first_seen(to_measurement(BOXES[:1]), np.array([0.9]), MODEL)
    for step in range(1, 20):
        state.advance(0.2, MODEL)
        seen = to_measurement(BOXES[:1] + np.array([12.0, 0, 12.0, 0]) * step)  # 60 px/s
        state.correct(np.array([0]), seen, np.array([0.9]), MODEL)
    assert state.velocity[0, 0] == pytest.approx(60, rel=0.1)
    assert abs(state.velocity[0, 1]) < 5
