"""Zones and lines: geometry in fractions of the frame, x to the right and y down.

Everything here works on (n, 2) points or (n, 4) boxes at once. It imports no settings, because the
settings are checked with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Point = tuple[float, float]
Float64 = NDArray[np.float64]

_NOTHING = 1e-12
"""Cross products below this are rounding; a pixel of an 8K picture covers 30,000 times as much."""

_ON_BORDER = 1e-6
"""Points this close to a side are on it: float32 boxes are no finer."""


def head_points(xyxy: ArrayLike) -> Float64:
    """(n, 2) points: box centre x, and a fifth of the way down from its top."""
    box = np.asarray(xyxy, np.float64).reshape(-1, 4)
    return np.stack(
        ((box[:, 0] + box[:, 2]) / 2, box[:, 1] + 0.2 * (box[:, 3] - box[:, 1])), axis=1
    )


def foot_points(xyxy: ArrayLike) -> Float64:
    """(n, 2) points: the middle of the box's lower side."""
    box = np.asarray(xyxy, np.float64).reshape(-1, 4)
    return np.stack(((box[:, 0] + box[:, 2]) / 2, box[:, 3]), axis=1)


def polygon_area(corners: Sequence[Point]) -> float:
    """Share of the frame that a polygon without faults covers, 0..1."""
    x, y = np.asarray(corners, np.float64).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def polygon_fault(corners: Sequence[Point]) -> str | None:
    """What is wrong with a polygon, or None.

    Too few corners, a corner given twice in a row, no area, or sides that cross, touch or run
    over each other. The text continues a sentence after the word "polygon" and counts corners and
    sides from 1; side n goes from corner n to the next.
    """
    num = len(corners)
    if num < 3:
        return f"needs at least 3 corners, has {num}"
    for index, corner in enumerate(corners):
        if corner == corners[index - 1]:
            if index == 0:
                return f"repeats its first corner {_shown(corner)} as its last: leave that out"
            return f"gives the corner {_shown(corner)} twice in a row: corners {index}, {index + 1}"
    if all(abs(_turn(corners[0], corners[1], corner)) <= _NOTHING for corner in corners[2:]):
        return f"has no area: all {num} corners lie on one straight line"
    sides = [(corners[index], corners[(index + 1) % num]) for index in range(num)]
    for first, second in combinations(range(num), 2):
        clash = _clash(sides, first, second)
        if clash is not None:
            return (
                f"crosses itself: side {first + 1} {_shown(*sides[first])} {clash} "
                f"side {second + 1} {_shown(*sides[second])}"
            )
    return None


def _clash(sides: Sequence[tuple[Point, Point]], first: int, second: int) -> str | None:
    if second - first == 1:
        return _fold(sides[first], sides[second])
    if first == 0 and second == len(sides) - 1:
        return _fold(sides[second], sides[first])
    return _meeting(*sides[first], *sides[second])


def _fold(before: tuple[Point, Point], after: tuple[Point, Point]) -> str | None:
    """Neighbours share a corner; they clash only where the second runs back over the first."""
    (ax, ay), (bx, by) = before
    (cx, cy) = after[1]
    back = (bx - ax) * (cx - bx) + (by - ay) * (cy - by) < 0
    straight = abs(_turn(before[0], before[1], after[1])) <= _NOTHING
    return "runs over" if back and straight else None


def _meeting(a: Point, b: Point, c: Point, d: Point) -> str | None:
    turns = (_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b))
    if all(abs(turn) > _NOTHING for turn in turns):
        crosses = (turns[0] > 0) != (turns[1] > 0) and (turns[2] > 0) != (turns[3] > 0)
        return "crosses" if crosses else None
    for turn, point, side in zip(
        turns, (c, d, a, b), ((a, b), (a, b), (c, d), (c, d)), strict=True
    ):
        if abs(turn) <= _NOTHING and _between(point, *side):
            return "touches"
    return None


def _turn(a: Point, b: Point, c: Point) -> float:
    """Cross product of a-b and a-c: positive where c lies to the right of a-b in the picture."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _between(point: Point, start: Point, end: Point) -> bool:
    """Whether a point on the line through start and end lies between them, ends included."""
    return all(
        min(start[axis], end[axis]) - _NOTHING
        <= point[axis]
        <= max(start[axis], end[axis]) + _NOTHING
        for axis in (0, 1)
    )


def _shown(*points: Point) -> str:
    return "-".join(f"({x:g}, {y:g})" for x, y in points)


class Zone:
    """A polygon with its sides computed once.

    Args:
        corners: three or more points, in either sense of rotation; concave is allowed. Check them
            with `polygon_fault` first: results for a polygon that crosses itself are undefined.
    """

    def __init__(self, corners: Sequence[Point]) -> None:
        self.corners: Float64 = np.asarray(corners, np.float64).reshape(-1, 2)
        self._alone = Zones((self,))

    def hit_ratio(self, xyxy: ArrayLike) -> Float64:
        """(n,) shares of (n, 4) boxes that lie in the zone. See `Zones.hit_ratio`."""
        return self._alone.hit_ratio(xyxy)[:, 0]

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """(n,) bool: which of (n, 2) points are in the zone. See `Zones.contains`."""
        return self._alone.contains(points)[:, 0]


class Zones:
    """Several zones, measured in one call: their sides are one array, zone after zone.

    On arrays this small NumPy's cost is per call, so ten zones cost little more than one.
    """

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._column = {zone: column for column, zone in enumerate(zones)}
        corners = [zone.corners for zone in zones]
        begins = np.concatenate([np.zeros((0, 2)), *corners])
        ends = np.concatenate([np.zeros((0, 2)), *(np.roll(each, -1, axis=0) for each in corners)])
        lengths = np.array([len(each) for each in corners], np.int64)
        self._first = np.cumsum(lengths) - lengths  # where each zone's sides begin
        # With all sides from left to right the clipping below has one case.
        forward = begins[:, 0] <= ends[:, 0]
        left = np.where(forward[:, None], begins, ends)
        right = np.where(forward[:, None], ends, begins)
        width = right[:, 0] - left[:, 0]
        # An upright side covers no range of x, so its slope never counts.
        upright = width <= _NOTHING
        rise = np.where(upright, 0.0, right[:, 1] - left[:, 1])
        self._slope = rise / np.where(upright, 1.0, width)
        self._level = left[:, 1] - self._slope * left[:, 0]
        self._left, self._right = left[:, 0].copy(), right[:, 0].copy()
        self._sign = np.where(forward, 1.0, -1.0)
        self._begin_x, self._begin_y = begins[:, 0].copy(), begins[:, 1].copy()
        along = ends - begins
        self._along_x, self._along_y = along[:, 0].copy(), along[:, 1].copy()
        self._falls = self._along_y > 0
        square = self._along_x**2 + self._along_y**2
        self._slack = _ON_BORDER * np.sqrt(square)
        self._until = square + self._slack

    def __len__(self) -> int:
        return len(self._column)

    def column(self, zone: Zone) -> int:
        """This zone's column in the results below; KeyError if it is not one of these zones."""
        return self._column[zone]

    def hit_ratio(self, xyxy: ArrayLike) -> Float64:
        """Share of each box that lies in each zone: area(box and zone) / area(box).

        Args:
            xyxy: (n, 4) corners.

        Returns:
            (n, zones) in 0..1; 0 for a box without area. Exact for concave polygons too: by
            Green's theorem the common area is the sum over the sides, signed by their sense, of
            the integral of y, clamped to the box, over the box's range of x.
        """
        box = np.asarray(xyxy, np.float64).reshape(-1, 4)
        if not len(self) or not len(box):
            return np.zeros((len(box), len(self)))
        x1, y1, x2, y2 = (box[:, index, None] for index in range(4))
        start = _clamped(self._left, x1, x2)  # (n, sides)
        stop = _clamped(self._right, x1, x2)
        base = self._level - y1
        mean = _mean_clamped(base + self._slope * start, base + self._slope * stop, y2 - y1)
        under = (stop - start) * mean * self._sign
        common = np.abs(np.add.reduceat(under, self._first, axis=1))
        sides = box[:, 2:] - box[:, :2]
        sound = (sides > 0).all(axis=1)
        area = np.where(sound, sides[:, 0] * sides[:, 1], np.inf)
        return _clamped(common / area[:, None], 0.0, 1.0)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Which points are in which zone, its border included.

        The border counts because people at the picture's edge have their feet exactly on it.

        Args:
            points: (n, 2).

        Returns:
            (n, zones) bool.
        """
        point = np.asarray(points, np.float64).reshape(-1, 2)
        if not len(self) or not len(point):
            return np.zeros((len(point), len(self)), np.bool_)
        to_x = point[:, 0, None] - self._begin_x  # (n, sides)
        to_y = point[:, 1, None] - self._begin_y
        cross = self._along_x * to_y - self._along_y * to_x
        # Even-odd: of the sides that a ray to the right meets, each with its upper end only.
        met = ((to_y >= 0) != (to_y >= self._along_y)) & ((cross < 0) == self._falls)
        along = to_x * self._along_x + to_y * self._along_y
        touched = (np.abs(cross) <= self._slack) & (along >= -self._slack) & (along <= self._until)
        inside: NDArray[np.bool_] = np.logical_xor.reduceat(met, self._first, axis=1)
        on_border: NDArray[np.bool_] = np.logical_or.reduceat(touched, self._first, axis=1)
        return inside | on_border


def _clamped(value: Float64, low: Float64 | float, high: Float64 | float) -> Float64:
    """`np.clip`, at half its cost on arrays this small."""
    clamped: Float64 = np.minimum(np.maximum(value, low), high)
    return clamped


def _mean_clamped(start: Float64, stop: Float64, height: Float64) -> Float64:
    """Mean over a straight run from `start` to `stop` of its value clamped to 0..height."""
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    # A level run divides by almost zero. It is all below, all above or all between; on a limit
    # itself every share gives the same mean.
    rise = np.maximum(high - low, 1e-200)
    below = _clamped(-low / rise, 0.0, 1.0)  # share of the run under 0
    above = _clamped((high - height) / rise, 0.0, 1.0)  # share of the run over height
    between = (_clamped(low, 0.0, height) + _clamped(high, 0.0, height)) / 2
    mean: Float64 = (1.0 - below - above) * between + above * height
    return mean


@dataclass(frozen=True, slots=True)
class Crossing:
    """A step over a line.

    Attributes:
        fraction: how far along the step the line was met, 0..1.
        rightward: True from the line's left-hand to its right-hand side.
    """

    fraction: float
    rightward: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line from one point to another, seen from the first towards the second.

    With x to the right and y down, left and right are those of the direction from the first point
    to the second: for a line from the bottom of the picture to its top, the right-hand side is the
    picture's right.
    """

    first: Point
    second: Point

    def side(self, points: ArrayLike) -> Float64:
        """Signed side of (n, 2) points: (n,), positive on the right, negative on the left, 0 on it.

        Its size is the distance from the line times the line's length.
        """
        point = np.asarray(points, np.float64).reshape(-1, 2)
        (ax, ay), (bx, by) = self.first, self.second
        sides: Float64 = (bx - ax) * (point[:, 1] - ay) - (by - ay) * (point[:, 0] - ax)
        return sides

    def offset(self, points: ArrayLike, xyxy: ArrayLike) -> Float64:
        """Signed distance of (n, 2) points from the line, in sizes of their (n, 4) boxes.

        Returns:
            (n,), signed as from `side`. A box's size is its extent across the line (width for an
            upright line, height for a level one), so the frame's proportions do not matter. 0 for
            a box without extent.
        """
        box = np.asarray(xyxy, np.float64).reshape(-1, 4)
        (ax, ay), (bx, by) = self.first, self.second
        extent = abs(by - ay) * (box[:, 2] - box[:, 0]) + abs(bx - ax) * (box[:, 3] - box[:, 1])
        sound = extent > _NOTHING
        return np.where(sound, self.side(points) / np.where(sound, extent, 1.0), 0.0)

    def crossing(self, before: Point, after: Point) -> Crossing | None:
        """Where the step from `before` to `after` crosses this line, between its two ends.

        A point on the line belongs to its right-hand side, so a walk that pauses on the line
        crosses it once. The ends belong to the line. A step along the line crosses nothing.
        """
        start = _turn(self.first, self.second, before)
        stop = _turn(self.first, self.second, after)
        if (start >= 0) == (stop >= 0):
            return None
        from_first = _turn(before, after, self.first)
        from_second = _turn(before, after, self.second)
        if (from_first > 0 and from_second > 0) or (from_first < 0 and from_second < 0):
            return None
        return Crossing(fraction=start / (start - stop), rightward=stop >= 0)
