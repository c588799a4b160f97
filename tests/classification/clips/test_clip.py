"""Which moments, which part of the picture, and what the model is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from storeguard.classification.clips.clip import (
    CLIP_FPS,
    CLIP_FRAMES,
    FILL_RGB,
    PAD,
    SIDE_PX,
    Jitter,
    boxes_at,
    clip_times,
    cut_out,
    nearest_frames,
    person_clip,
    to_input,
    windows_of,
)


def standing(at: tuple[float, float, float, float], count: int = CLIP_FRAMES) -> Any:
    return np.tile(np.array(at, np.float32), (count, 1))


def plain(wh: tuple[int, int], rgb: tuple[int, int, int]) -> Any:
    picture = np.empty((wh[1], wh[0], 3), np.uint8)
    picture[:] = rgb
    return picture


# ---------------------------------------------------------------------- moments


def test_a_clip_is_sixteen_moments_an_eighth_of_a_second_apart() -> None:
    times = clip_times(10.0)
    assert times.shape == (16,)
    assert times[0] == 10.0 - 15 / 8
    assert times[-1] == 10.0
    assert np.diff(times) == pytest.approx(0.125)


def grid(start_s: float, stop_s: float, fps: float) -> Any:
    return np.arange(round(start_s * fps), round(stop_s * fps) + 1) / fps


@pytest.mark.parametrize(
    ("frame_s", "expected"),
    [
        (grid(0, 4, 8), list(range(1, 17))),  # the very moments
        (grid(0, 4, 24), list(range(3, 49, 3))),  # every third of a faster camera
        (grid(0, 4, 4), None),  # to be set below: each serves twice
        (grid(1, 4, 8), None),  # begins too late
        (grid(0, 1.5, 8), None),  # ended too early
        (np.delete(grid(0, 4, 8), [7, 8, 9]), None),  # a gap of half a second
        (np.zeros(0), None),  # nothing
        (np.array([1.0]), None),  # a single frame
    ],
    ids=["same rate", "faster", "slower", "late", "early", "gap", "none", "one"],
)
def test_moments_are_taken_from_the_nearest_frames(
    frame_s: Any, expected: list[int] | None, request: pytest.FixtureRequest
) -> None:
    found = nearest_frames(frame_s, clip_times(2.0))
    if request.node.callspec.id == "slower":
        assert found is not None
        assert np.abs(frame_s[found] - clip_times(2.0)).max() <= 0.125
        assert sorted(found) == found
        assert set(found) == set(range(min(found), 9))  # none is passed over
    else:
        assert found == expected


def test_a_dropped_frame_is_stood_in_for_by_its_neighbour() -> None:
    frames = np.delete(grid(0, 4, 8), 9)
    found = nearest_frames(frames, clip_times(2.0))
    assert found is not None
    assert len(found) == 16
    assert len(set(found)) == 15
    assert np.abs(frames[found] - clip_times(2.0)).max() == pytest.approx(1 / CLIP_FPS)


def test_boxes_lie_on_straight_lines_between_those_seen() -> None:
    seen = np.array([[0, 0, 10, 20], [10, 0, 20, 40]], np.float32)
    boxes = boxes_at(np.array([1.0, 2.0]), seen, np.array([0.0, 1.0, 1.5, 2.0, 9.0]))
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [
        [0, 0, 10, 20],  # before: the first
        [0, 0, 10, 20],
        [5, 0, 15, 30],
        [10, 0, 20, 40],
        [10, 0, 20, 40],  # after: the last
    ]


# ---------------------------------------------------------------------- windows


def test_windows_follow_the_person_with_one_side() -> None:
    boxes = standing((100, 50, 140, 150))
    boxes[:, [0, 2]] += np.arange(CLIP_FRAMES, dtype=np.float32)[:, None] * 6
    boxes[5, 3] = 400  # the detector trembles once
    windows = windows_of(boxes)
    assert windows.shape == (CLIP_FRAMES, 3)
    assert set(windows[:, 2]) == {100 * PAD}
    assert windows[1:-1, 0] == pytest.approx(120 + 6 * np.arange(1, 15))
    assert windows[0, 0] == pytest.approx(122)  # (120 + 120 + 126) / 3
    # the trembling moves three windows by a third, none by the whole
    assert np.abs(windows[:, 1] - 100).max() == pytest.approx(125 / 3)


@pytest.mark.parametrize(
    ("box", "side"),
    [((0, 0, 40, 100), 100 * PAD), ((0, 0, 80, 20), 80 * PAD), ((5, 5, 5, 5), 2.0)],
    ids=["tall", "wide", "nothing"],
)
def test_the_side_is_the_longer_one_padded(
    box: tuple[float, float, float, float], side: float
) -> None:
    assert windows_of(standing(box))[:, 2] == pytest.approx(side)


def test_jitter_moves_all_windows_alike() -> None:
    boxes = standing((100, 50, 140, 150))
    still = windows_of(boxes)
    moved = windows_of(boxes, Jitter(zoom=1.2, shift=(0.1, -0.05)))
    side = 100 * PAD * 1.2
    assert moved[:, 2] == pytest.approx(side)
    assert moved[:, 0] - still[:, 0] == pytest.approx(0.1 * side)
    assert moved[:, 1] - still[:, 1] == pytest.approx(-0.05 * side)


def test_a_flip_mirrors_the_pictures() -> None:
    picture = plain((100, 100), (10, 20, 30))
    picture[:, 50:] = (200, 20, 30)
    args = ([picture] * CLIP_FRAMES, standing((20, 20, 80, 80)))
    clip, flipped = person_clip(*args), person_clip(*args, Jitter(flip=True))
    assert clip[0, 0, 0, 0] == 10
    assert flipped[0, 0, 0, 0] == 200
    assert np.array_equal(flipped, clip[:, :, ::-1])


# ---------------------------------------------------------------------- cutting out


def test_what_is_cut_out_keeps_its_pixels() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    part = cut_out(picture, np.array([30.0, 20.0, 16.0]), side_px=16)
    assert np.array_equal(part, picture[12:28, 22:38])


@pytest.mark.parametrize(
    ("window", "inside"),
    [
        ((0, 40, 40), np.s_[:, 20:]),  # half out on the left
        ((80, 40, 40), np.s_[:, :20]),  # on the right
        ((40, 0, 40), np.s_[20:, :]),  # above
        ((40, 80, 40), np.s_[:20, :]),  # below
        ((0, 0, 40), np.s_[20:, 20:]),  # a corner
        ((40, 40, 160), np.s_[10:30, 10:30]),  # larger than the picture
        ((300, 40, 40), None),  # wholly out
        ((-20, 40, 40), None),  # touching
    ],
    ids=["left", "right", "above", "below", "corner", "larger", "out", "touching"],
)
def test_what_lies_outside_is_filled(window: tuple[float, float, float], inside: Any) -> None:
    expected = plain((40, 40), FILL_RGB)
    if inside is not None:
        expected[inside] = (250, 0, 0)
    part = cut_out(plain((80, 80), (250, 0, 0)), np.array(window, float), side_px=40)
    assert np.array_equal(part, expected)


def test_a_clip_follows_a_person_who_walks() -> None:
    """A red square on green moves; in the clip it stands still."""
    pictures = []
    boxes = standing((10, 40, 30, 60))
    boxes[:, [0, 2]] += np.arange(CLIP_FRAMES, dtype=np.float32)[:, None] * 10
    for x1, y1, x2, y2 in boxes.astype(int):
        picture = plain((240, 100), (0, 200, 0))
        picture[y1:y2, x1:x2] = (200, 0, 0)
        pictures.append(picture)
    clip = person_clip(pictures, boxes)
    assert clip.shape == (CLIP_FRAMES, SIDE_PX, SIDE_PX, 3)
    assert clip.dtype == np.uint8
    assert (clip[1:-1, 40:180, 40:180] == (200, 0, 0)).all()
    assert (clip[1:-1, :10] == (0, 200, 0)).all()
    assert np.abs(np.diff(clip[1:-1].astype(int), axis=0)).max() <= 1


@pytest.mark.parametrize(("num_pictures", "num_boxes"), [(15, 16), (16, 15), (0, 0)])
def test_a_clip_of_another_length_is_refused(num_pictures: int, num_boxes: int) -> None:
    with pytest.raises(ValueError, match=rf"expected 16 .* got {num_pictures} and \({num_boxes},"):
        person_clip([plain((8, 8), (0, 0, 0))] * num_pictures, standing((0, 0, 4, 4), num_boxes))


# ---------------------------------------------------------------------- the model's input


def test_the_input_is_normalised_as_imagenet_is_and_channels_come_first() -> None:
    clip = np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
    clip[3, 7, 9] = (255, 128, 51)
    given = to_input([clip, clip])
    assert given.shape == (2, 16, 3, 224, 224)
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    # (1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0.2 - 0.406) / 0.225
    assert given[1, 3, :, 7, 9] == pytest.approx([2.248908, 0.205182, -0.915556], abs=1e-5)
    # -0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225
    assert given[0, 0, :, 0, 0] == pytest.approx([-2.117904, -2.035714, -1.804444], abs=1e-5)


def test_what_is_filled_in_is_about_zero() -> None:
    clip = np.empty((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
    clip[:] = FILL_RGB
    assert np.abs(to_input([clip])).max() < 0.01
