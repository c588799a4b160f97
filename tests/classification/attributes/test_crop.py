"""Crops of people, on pictures whose pixels encode their position."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from storeguard.classification.attributes.crop import (
    FILL_RGB,
    MAX_SIDE_PX,
    PAD,
    person_crop,
    shrunk,
    to_pictures,
)
from storeguard.config.models import Resize


def chart(width: int, height: int) -> NDArray[np.uint8]:
    """Red grows to the right, green downwards; both by one a pixel."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width, dtype=np.uint8)
    picture[..., 1] = np.arange(height, dtype=np.uint8)[:, None]
    return picture


def box(*corners: float) -> NDArray[np.float32]:
    return np.array(corners, np.float32)


def test_a_crop_is_the_box_with_a_little_around() -> None:
    crop = person_crop(chart(200, 200), box(50, 50, 100, 150))
    pad_x, pad_y = PAD * 50, PAD * 100
    assert crop.shape == (100 + 2 * round(pad_y), 50 + 2 * round(pad_x), 3)
    assert crop[0, 0].tolist() == [50 - round(pad_x), 50 - round(pad_y), 0]


@pytest.mark.parametrize(
    ("corners", "shape"),
    [
        ((-50, -50, 20, 20), (26, 26)),
        ((180, 190, 400, 400), (27, 38)),
        ((0, 0, 200, 200), (200, 200)),
    ],
)
def test_what_lies_outside_the_picture_is_left_out(
    corners: tuple[float, ...], shape: tuple[int, int]
) -> None:
    assert person_crop(chart(200, 200), box(*corners)).shape[:2] == shape


@pytest.mark.parametrize("corners", [(300, 10, 400, 50), (10, -90, 50, -20), (50, 50, 50, 50)])
def test_a_box_outside_the_picture_is_refused(corners: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected a box inside 200x200"):
        person_crop(chart(200, 200), box(*corners))


def test_large_crops_are_scaled_down_and_small_ones_are_not() -> None:
    assert shrunk(chart(100, 1000)).shape == (MAX_SIDE_PX, round(MAX_SIDE_PX / 10), 3)
    small = chart(40, 90)
    assert np.array_equal(shrunk(small), small)
    assert shrunk(np.zeros((5000, 3, 3), np.uint8)).shape == (MAX_SIDE_PX, 1, 3)


def test_letterboxed_a_crop_keeps_its_proportions() -> None:
    red = np.zeros((50, 20, 3), np.uint8)
    red[..., 0] = 255
    (picture,) = to_pictures([red], (100, 100), resize=Resize.LETTERBOX)
    assert (picture[:, 30:70] == (255, 0, 0)).all()
    assert (picture[:, :30] == FILL_RGB).all()
    assert (picture[:, 70:] == FILL_RGB).all()


def test_stretched_it_fills_the_picture() -> None:
    crops = [chart(20, 50), chart(50, 20)]
    pictures = to_pictures(crops, (64, 48), resize=Resize.STRETCH)
    assert pictures.shape == (2, 48, 64, 3)
    for crop, picture in zip(crops, pictures, strict=True):
        # from the first pixel to the last, smoothed within the pixels around
        assert picture[0, 0, :2].max() <= 2
        assert abs(int(picture[-1, -1, 0]) - crop.shape[1]) <= 2
        assert abs(int(picture[-1, -1, 1]) - crop.shape[0]) <= 2
