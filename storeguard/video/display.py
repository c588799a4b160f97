"""How a stored picture is shown: turned, mirrored, and with its pixels stretched to squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

SQUARE: Final = Fraction(1)
_MAX_PIXEL_ASPECT: Final = 4
"""Wider or taller pixels are taken for damage: no recorder squeezes a picture that much."""
_ONE: Final = 1 << 16  # display matrices hold 16.16 fixed point, their last column 2.30


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways in which a picture can lie in its file.

    The steps from the stored to the shown picture are applied in the order of the attributes.

    Attributes:
        transposed: rows and columns are exchanged.
        mirrored: left and right are exchanged.
        flipped: top and bottom are exchanged.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @classmethod
    def from_matrix(cls, matrix: Sequence[int]) -> Turn:
        """The turn of a display matrix; of an oblique one, the nearest.

        Args:
            matrix: a, b, u, c, d, v, x, y, w: shown x is a * x + c * y, shown y is b * x + d * y
                (ISO/IEC 14496-12, 8.3.2).
        """
        a, b, _, c, d = (int(value) for value in matrix[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, mirrored=c < 0, flipped=b < 0)
        return cls(mirrored=a < 0, flipped=d < 0)

    @classmethod
    def from_exif(cls, orientation: object) -> Turn:
        """The turn of an EXIF orientation, 1 to 8 (EXIF 2.32, tag 0x0112); others turn nothing."""
        return _EXIF.get(orientation, cls())

    @classmethod
    def from_rotation(cls, degrees: float) -> Turn:
        """The turn of a counter-clockwise rotation, to the nearest quarter."""
        return _ROTATED[round(degrees / 90) % 4]

    @classmethod
    def of(cls, picture: av.VideoFrame, declared: Turn | None = None) -> Turn | None:
        """The turn that a decoded picture carries as side data, else the one its stream declares.

        None if neither has one.
        """
        try:
            data: Any  # PyAV's stubs take the container for a mapping
            for data in picture.side_data:
                if data.type.name == "DISPLAYMATRIX":
                    return cls.from_matrix(np.frombuffer(bytes(data), np.int32).tolist())
        except ValueError:
            # PyAV 18 shows no side data at all if one is of a kind it does not know, such as EXIF.
            if declared is None and picture.rotation:
                return cls.from_rotation(picture.rotation)
        return declared

    def matrix(self) -> tuple[int, ...]:
        """The display matrix, for a container's header."""
        x = -_ONE if self.mirrored else _ONE
        y = -_ONE if self.flipped else _ONE
        a, b, c, d = (0, y, x, 0) if self.transposed else (x, 0, 0, y)
        return (a, b, 0, c, d, 0, 0, 0, 1 << 30)


_ROTATED: Final = (
    Turn(),
    Turn(transposed=True, flipped=True),
    Turn(mirrored=True, flipped=True),
    Turn(transposed=True, mirrored=True),
)
_EXIF: Final[dict[object, Turn]] = {
    2: Turn(mirrored=True),
    3: Turn(mirrored=True, flipped=True),
    4: Turn(flipped=True),
    5: Turn(transposed=True),
    6: Turn(transposed=True, mirrored=True),
    7: Turn(transposed=True, mirrored=True, flipped=True),
    8: Turn(transposed=True, flipped=True),
}


@dataclass(frozen=True, slots=True)
class Display:
    """From a picture as it is stored to the picture as it is shown.

    Attributes:
        turn: applied after the pixels have become squares.
        pixel_aspect: width of a stored pixel over its height (sample aspect ratio).
    """

    turn: Turn = Turn()
    pixel_aspect: Fraction = SQUARE

    def shown_wh(self, stored_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height in square pixels, upright. As in players, only the width is scaled."""
        return self.laid_wh((max(1, round(stored_wh[0] * self.pixel_aspect)), stored_wh[1]))

    def laid_wh(self, wh: tuple[int, int]) -> tuple[int, int]:
        """An upright size as it lies in the file, and the other way round."""
        return (wh[1], wh[0]) if self.turn.transposed else wh

    def upright(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A stored (height, width, 3) picture turned upright; a view of the same pixels."""
        shown = stored.swapaxes(0, 1) if self.turn.transposed else stored
        if self.turn.mirrored:
            shown = shown[:, ::-1]
        return shown[::-1] if self.turn.flipped else shown


def plausible_aspect(ratio: Fraction | None) -> Fraction | None:
    """A declared sample aspect ratio; None if it is not declared (0) or cannot be right."""
    if not ratio or not Fraction(1, _MAX_PIXEL_ASPECT) <= ratio <= _MAX_PIXEL_ASPECT:
        return None
    return Fraction(ratio)
