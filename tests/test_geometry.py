from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeguard.geometry import (
    Line,
    Point,
    Zone,
    Zones,
    foot_points,
    head_points,
    polygon_fault,
)

SQUARE = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
# A square with a notch in its lower side; the tip of the notch is in the middle.
NOTCHED = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.0, 1.0)]


# --------------------------------------------------------------------------- polygon_fault


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        (SQUARE, None),
        (SQUARE[::-1], None),  # the other way round
        (NOTCHED, None),  # concave
        ([(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 1.0)], None),  # a corner within a straight side
        ([], "at least 3 corners, has 0"),
        (SQUARE[:2], "at least 3 corners, has 2"),
        ([*SQUARE, SQUARE[0]], "repeats its first corner (0.2, 0.2) as its last"),
        ([SQUARE[0], SQUARE[1], SQUARE[1], SQUARE[2]], "twice in a row: corners 2, 3"),
        ([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)], "no area"),  # not exact in binary
        ([(0.1, 0.1), (0.9, 0.1), (0.5, 0.1), (0.2, 0.1)], "no area"),
        # a bow tie: sides 1 and 3 cross in the middle
        (
            [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)],
            "side 1 (0, 0)-(1, 1) crosses side 3 (1, 0)-(0, 1)",
        ),
        # the tip of the notch touches the side opposite
        ([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 1.0)], "touches"),
        # two triangles that meet in one corner
        ([(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.0, 1.0)], "touches"),
        # a spike without width
        ([(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 1.0)], "side 1 (0, 0)-(1, 0) runs over side 2"),
        # the last side runs back over the first
        ([(0.2, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 0.0)], "crosses itself: side 1"),
    ],
)
def test_polygon_fault_names_what_is_wrong(corners: list[Point], expected: str | None) -> None:
    fault = polygon_fault(corners)

    if expected is None:
        assert fault is None
    else:
        assert fault is not None
        assert expected in fault


def _meet(a: Point, b: Point, c: Point, d: Point) -> tuple[Fraction, ...] | str | None:
    """Where segments a-b and c-d meet, in exact arithmetic: a point, `many` points, or None."""
    ax, ay, bx, by, cx, cy, dx, dy = (Fraction(v) for p in (a, b, c, d) for v in p)
    rx, ry, sx, sy = bx - ax, by - ay, dx - cx, dy - cy
    det = rx * sy - ry * sx
    if det:
        t = ((cx - ax) * sy - (cy - ay) * sx) / det
        u = ((cx - ax) * ry - (cy - ay) * rx) / det
        return (ax + t * rx, ay + t * ry) if 0 <= t <= 1 and 0 <= u <= 1 else None
    if (cx - ax) * ry != (cy - ay) * rx:
        return None  # parallel
    span = rx * rx + ry * ry
    at = sorted(((px - ax) * rx + (py - ay) * ry) / span for px, py in ((cx, cy), (dx, dy)))
    low, high = max(at[0], Fraction(0)), min(at[1], Fraction(1))
    if low > high:
        return None
    return "many" if low < high else (ax + low * rx, ay + low * ry)


def _is_faulty(corners: list[Point]) -> bool:
    """Whether two sides share a point that is not the common corner of neighbours."""
    num = len(corners)
    sides = [(corners[i], corners[(i + 1) % num]) for i in range(num)]
    if any(a == b for a, b in sides):
        return True
    for i, j in combinations(range(num), 2):
        meeting = _meet(*sides[i], *sides[j])
        neighbours = j - i == 1 or (i == 0 and j == num - 1)
        if meeting == "many" or (meeting is not None and not neighbours):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5).map(lambda n: n / 8)] * 2), min_size=3, max_size=7))
def test_polygon_fault_agrees_with_exact_arithmetic(corners: list[Point]) -> None:
    assert (polygon_fault(corners) is not None) == _is_faulty(corners)


# --------------------------------------------------------------------------- hit ratio


@pytest.mark.parametrize(
    ("corners", "box", "expected"),
    [
        (SQUARE, (0.3, 0.3, 0.5, 0.5), 1.0),  # all inside
        (SQUARE, (0.0, 0.0, 0.1, 0.1), 0.0),  # all outside
        (SQUARE, (0.0, 0.0, 1.0, 1.0), 0.36),  # the zone within the box
        (SQUARE, (0.1, 0.4, 0.3, 0.6), 0.5),  # half over the left side
        (SQUARE, (0.0, 0.2, 0.2, 0.8), 0.0),  # shares a side only
        (NOTCHED, (0.0, 0.0, 1.0, 1.0), 0.75),  # concave: the notch is a quarter
        (NOTCHED, (0.0, 0.5, 1.0, 1.0), 0.5),  # two separate pieces in one box
        (NOTCHED, (0.45, 0.9, 0.55, 1.0), 0.0),  # in the notch, within the outer corners
        (NOTCHED[::-1], (0.0, 0.0, 1.0, 1.0), 0.75),  # the other way round
        (SQUARE, (0.5, 0.5, 0.5, 0.7), 0.0),  # a box without width
        (SQUARE, (0.7, 0.7, 0.3, 0.3), 0.0),  # a box inside out
    ],
)
def test_hit_ratio_by_hand(
    corners: list[Point], box: tuple[float, float, float, float], expected: float
) -> None:
    assert Zone(corners).hit_ratio([box]) == pytest.approx([expected], abs=1e-12)


def _star(radii: list[float], turn: float) -> list[Point]:
    """A simple, mostly concave polygon around the middle of the picture."""
    angles = turn + np.arange(len(radii)) * 2 * np.pi / len(radii)
    x, y = 0.5 + np.array(radii) * np.cos(angles), 0.5 + np.array(radii) * np.sin(angles)
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


STARS = st.builds(_star, st.lists(st.floats(0.05, 0.5), min_size=3, max_size=9), st.floats(0, 6))
SPANS = st.tuples(st.floats(0, 0.9), st.floats(0.05, 1)).map(lambda s: (s[0], s[0] + s[1]))
BOXES = st.tuples(SPANS, SPANS).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def _raster_share(corners: list[Point], box: tuple[float, float, float, float]) -> float:
    """Share of a 160 x 160 raster over the box that is inside, side by side with even-odd."""
    steps = (np.arange(160) + 0.5) / 160
    x = (box[0] + (box[2] - box[0]) * steps)[None, :]
    y = (box[1] + (box[3] - box[1]) * steps)[:, None]
    inside = np.zeros((160, 160), bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return float(inside.mean())


@settings(max_examples=150, deadline=None)
@given(STARS, BOXES)
def test_hit_ratio_agrees_with_a_raster(
    corners: list[Point], box: tuple[float, float, float, float]
) -> None:
    (ratio,) = Zone(corners).hit_ratio([box])

    assert ratio == pytest.approx(_raster_share(corners, box), abs=0.02)


@settings(max_examples=150, deadline=None)
@given(STARS, BOXES, st.floats(0.1, 0.9))
def test_parts_of_a_box_add_up(
    corners: list[Point], box: tuple[float, float, float, float], cut: float
) -> None:
    x1, y1, x2, y2 = box
    x = x1 + cut * (x2 - x1)
    whole, left, right = Zone(corners).hit_ratio([box, (x1, y1, x, y2), (x, y1, x2, y2)])

    assert whole == pytest.approx(cut * left + (1 - cut) * right, abs=1e-9)


# --------------------------------------------------------------------------- points


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.5, 0.3), True),
        ((0.5, 0.8), False),  # in the notch
        ((0.1, 0.8), True),  # next to the notch
        ((1.2, 0.3), False),
        ((0.5, 0.5), True),  # the notch's tip: the border counts
        ((1.0, 0.5), True),  # right side
        ((0.0, 0.0), True),  # a corner
        ((0.25, 0.75), True),  # on the slanted side
    ],
)
def test_contains_by_hand(point: Point, expected: bool) -> None:
    assert Zone(NOTCHED).contains([point]).tolist() == [expected]


@settings(max_examples=100, deadline=None)
@given(STARS)
def test_contains_agrees_with_a_raster(corners: list[Point]) -> None:
    steps = (np.arange(40) + 0.5) / 40
    points = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)

    share = Zone(corners).contains(points).mean()

    assert share == pytest.approx(_raster_share(corners, (0, 0, 1, 1)), abs=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(STARS, min_size=1, max_size=4), st.lists(BOXES, min_size=1, max_size=4))
def test_zones_measured_together_give_the_results_of_each_alone(
    corners: list[list[Point]], boxes: list[tuple[float, float, float, float]]
) -> None:
    each = [Zone(one) for one in corners]
    together = Zones(each)

    for column, zone in enumerate(each):
        assert together.column(zone) == column
        assert together.hit_ratio(boxes)[:, column].tolist() == zone.hit_ratio(boxes).tolist()
        feet = foot_points(boxes)
        assert together.contains(feet)[:, column].tolist() == zone.contains(feet).tolist()


def test_no_zones_and_no_boxes_give_empty_results() -> None:
    none = Zones(())
    assert none.hit_ratio([(0, 0, 1, 1)]).shape == (1, 0)
    assert none.contains([(0, 0)]).shape == (1, 0)
    assert Zone(SQUARE).hit_ratio(np.zeros((0, 4))).shape == (0,)
    assert Zone(SQUARE).contains(np.zeros((0, 2))).shape == (0,)


def test_anchor_points() -> None:
    box = [(0.2, 0.4, 0.4, 0.9)]
    assert head_points(box).tolist() == [pytest.approx([0.3, 0.5])]
    assert foot_points(box).tolist() == [pytest.approx([0.3, 0.9])]


# --------------------------------------------------------------------------- lines

# From the bottom of the picture to its top: seen along it, the picture's right is on the right.
UPWARD = Line((0.5, 1.0), (0.5, 0.0))


@pytest.mark.parametrize(
    ("line", "point", "sign"),
    [
        (UPWARD, (0.9, 0.5), 1),  # right of a line that goes up
        (UPWARD, (0.1, 0.5), -1),
        (UPWARD, (0.5, 0.3), 0),
        (Line((0.0, 0.5), (1.0, 0.5)), (0.5, 0.9), 1),  # going to the right, the right is below
        (Line((1.0, 0.5), (0.0, 0.5)), (0.5, 0.9), -1),  # going to the left, the left is below
    ],
)
def test_side_of_a_line_as_seen_in_the_picture(line: Line, point: Point, sign: int) -> None:
    assert np.sign(line.side([point])).tolist() == [sign]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.4, 0.5), (0.6, 0.5), (0.5, True)),
        ((0.6, 0.5), (0.4, 0.5), (0.5, False)),
        ((0.4, 0.5), (0.8, 0.5), (0.25, True)),  # a quarter of the way
        ((0.1, 0.5), (0.4, 0.5), None),  # stays left
        ((0.4, 1.5), (0.6, 1.5), None),  # passes beyond the line's end
        ((0.25, 0.75), (0.75, 1.25), (0.5, True)),  # right through its first point
        ((0.4, 0.5), (0.5, 0.5), (1.0, True)),  # onto the line: crossed ...
        ((0.5, 0.5), (0.6, 0.5), None),  # ... and off it on the same side: not again
        ((0.5, 0.5), (0.4, 0.5), (0.0, False)),  # off it where it came from: back
        ((0.5, 0.2), (0.5, 0.8), None),  # along the line
        ((0.4, 0.5), (0.4, 0.5), None),  # standing
    ],
)
def test_crossing(before: Point, after: Point, expected: tuple[float, bool] | None) -> None:
    crossing = UPWARD.crossing(before, after)

    if expected is None:
        assert crossing is None
    else:
        assert crossing is not None
        assert (crossing.fraction, crossing.rightward) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize(
    ("line", "box", "expected"),
    [
        # upright: widths of the box; to the right of a line that goes up is positive
        (UPWARD, (0.5, 0.4, 0.7, 0.8), 0.5),
        (UPWARD, (0.3, 0.4, 0.5, 0.8), -0.5),
        # level: heights of the box; below a line from left to right is positive
        (Line((0.0, 0.6), (1.0, 0.6)), (0.5, 0.4, 0.7, 0.8), 0.5),
        # slanting: the same whatever the frame's proportions, hence also for a shorter line
        (Line((0.2, 0.6), (0.4, 0.8)), (0.4, 0.4, 0.6, 0.8), -0.1 / 0.6),
        (Line((0.2, 0.6), (0.3, 0.7)), (0.4, 0.4, 0.6, 0.8), -0.1 / 0.6),
        # no extent
        (UPWARD, (0.6, 0.4, 0.6, 0.8), 0.0),
    ],
)
def test_offset_of_the_foot_in_sizes_of_the_box(
    line: Line, box: tuple[float, float, float, float], expected: float
) -> None:
    assert line.offset(foot_points(box), box) == pytest.approx([expected])
