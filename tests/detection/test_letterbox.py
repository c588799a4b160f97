"""Where frames of any size are placed in a model's input, and the way back."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storeguard.config.models import Resize
from storeguard.detection.detections import Detections
from storeguard.detection.letterbox import PAD_VALUE, Fit, fit, place
from tests.detection.pictures import frame_of, plain_frame

sides = st.integers(1, 5000)
# However long the machine stands still meanwhile.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("source_wh", "input_wh", "more", "inner_wh", "offset_xy"),
    [
        # wide: bars above and below
        ((1920, 1080), (416, 416), {}, (416, 234), (0, 91)),
        ((1920, 1080), (416, 416), {"centred": False}, (416, 234), (0, 0)),
        # tall: bars left and right
        ((480, 640), (320, 320), {}, (240, 320), (40, 0)),
        # smaller than the input: enlarged
        ((100, 100), (320, 320), {}, (320, 320), (0, 0)),
        # a wide input
        ((500, 500), (960, 544), {}, (544, 544), (208, 0)),
        # all of the input, with other proportions
        ((1920, 1080), (416, 416), {"resize": Resize.STRETCH}, (416, 416), (0, 0)),
        # so thin that its height would round to nothing
        ((4000, 2), (320, 320), {}, (320, 1), (0, 159)),
    ],
)
def test_fit(
    source_wh: tuple[int, int],
    input_wh: tuple[int, int],
    more: dict[str, Any],
    inner_wh: tuple[int, int],
    offset_xy: tuple[int, int],
) -> None:
    where = fit(source_wh, input_wh, **more)

    assert (where.inner_wh, where.offset_xy) == (inner_wh, offset_xy)


@pytest.mark.parametrize("source_wh", [(0, 480), (640, 0)])
def test_a_frame_without_size_is_refused(source_wh: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        fit(source_wh, (320, 320))


@patiently
@given(sides, sides, st.sampled_from(Resize), st.booleans())
def test_the_picture_lies_inside_the_input_and_touches_two_of_its_sides(
    width: int, height: int, resize: Resize, centred: bool
) -> None:
    where = fit((width, height), (320, 256), resize=resize, centred=centred)

    (x, y), (w, h) = where.offset_xy, where.inner_wh
    assert x >= 0
    assert y >= 0
    assert x + w <= 320
    assert y + h <= 256
    assert w == 320 or h == 256


def test_boxes_are_cut_at_the_frame_and_those_in_the_padding_dropped() -> None:
    where = fit((640, 360), (320, 320))  # bars of 70 above and below
    seen = Detections.of(
        [
            (-10, 60, 50, 120),  # reaches over the left and upper edge
            (10, 5, 40, 60),  # in the upper bar alone
            (10, 255, 40, 315),  # in the lower one
            (300, 200, 500, 400),  # reaches over the right and lower edge
            (50, 100, 40, 120),  # no box at all
        ],
        [0.9, 0.8, 0.7, 0.6, 0.5],
    )

    found = where.to_source(seen)

    assert found.xyxy.tolist() == [[0, 0, 100, 100], [600, 260, 640, 360]]
    assert found.score.tolist() == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize(
    ("resize", "centred"),
    [(Resize.LETTERBOX, True), (Resize.LETTERBOX, False), (Resize.STRETCH, True)],
)
def test_every_pixel_of_the_canvas_is_written(resize: Resize, centred: bool) -> None:
    where = fit((64, 32), (32, 32), resize=resize, centred=centred)
    canvas = np.full((32, 32, 3), 255, np.uint8)

    place(plain_frame((64, 32), rgb=(10, 20, 30)), where, canvas)

    (x, y), (w, h) = where.offset_xy, where.inner_wh
    picture = np.zeros((32, 32), np.bool_)
    picture[y : y + h, x : x + w] = True
    np.testing.assert_allclose(canvas[picture].mean(axis=0), (10, 20, 30), atol=2)
    assert (canvas[~picture] == PAD_VALUE).all()


def test_what_is_seen_in_the_canvas_is_found_at_its_place_in_the_frame() -> None:
    # a white square on black: its edges in the canvas, mapped back, are its edges in the frame
    pixels = np.zeros((720, 1280, 3), np.uint8)
    pixels[200:440, 300:540] = 255
    where = fit((1280, 720), (320, 320))
    canvas = np.empty((320, 320, 3), np.uint8)

    place(frame_of(av.VideoFrame.from_ndarray(pixels, format="rgb24")), where, canvas)

    rows, columns = np.nonzero(canvas[..., 0] > 180)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    found = where.to_source(Detections.of([box], [1.0]))
    np.testing.assert_allclose(found.xyxy[0], (300, 200, 540, 440), atol=4)  # a pixel of the input


@patiently
@given(
    st.tuples(sides, sides),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.sampled_from(Resize),
    st.booleans(),
)
def test_to_source_undoes_the_placing(
    wh: tuple[int, int], box: list[float], resize: Resize, centred: bool
) -> None:
    where: Fit = fit(wh, (320, 320), resize=resize, centred=centred)
    x1, x2 = sorted(box[:2])
    y1, y2 = sorted(box[2:])
    inside = np.array((x1, y1, x2, y2), np.float32) * (*where.inner_wh, *where.inner_wh)
    inside += (*where.offset_xy, *where.offset_xy)

    found = where.to_source(Detections.of([inside], [1.0]))

    expected = np.array((x1, y1, x2, y2)) * (*wh, *wh)
    if len(found):
        np.testing.assert_allclose(found.xyxy[0], expected, atol=1e-3 * max(wh) + 1e-3)
    else:
        assert x2 - x1 < 1e-3 or y2 - y1 < 1e-3
