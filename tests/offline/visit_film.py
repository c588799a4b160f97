"""A film of one visit, and copies of it as other cameras, recorders and phones would keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storeguard.config.store import CameraConfig
from storeguard.video.display import Turn
from storeguard.video.reader import read_frames
from tests.video.remuxing import encoded, remuxed

FPS = 10
WH = (640, 272)
Rgb = NDArray[np.uint8]
Copy = Callable[[list[Rgb], Path], Path]
"""Writes a copy of the film into a folder; returns the file."""


def visit_pictures(bikes: Path) -> list[Rgb]:
    """One person comes from the left, stands in the middle for 4 s and leaves to the right; 9 s."""
    frame = next(islice(read_frames(CameraConfig(id="street", source=str(bikes))), 120, None))
    person = frame.rgb()[:, 376:500]
    way = [*np.linspace(-124, 258, 25), *[258.0] * 40, *np.linspace(258, 640, 25)]
    pictures = []
    for left in np.rint(way).astype(int):
        picture = np.full((WH[1], WH[0], 3), 110, np.uint8)
        begin, end = max(0, left), min(WH[0], left + 124)
        picture[:, begin:end] = person[:, begin - left : end - left]
        pictures.append(picture)
    return pictures


def resized(pictures: list[Rgb], wh: tuple[int, int]) -> list[Rgb]:
    """The pictures scaled to another size."""
    return [np.asarray(Image.fromarray(one).resize(wh)) for one in pictures]


def _contained(suffix: str) -> Copy:
    return lambda pictures, folder: encoded(pictures, folder / f"film.{suffix}", fps=FPS)


def _turned(turn: Turn, *, suffix: str = "mp4", squeezed: bool = False) -> Copy:
    """Stored as a phone keeps it: lying, with a display matrix; perhaps of narrow pixels too."""

    def copy(pictures: list[Rgb], folder: Path) -> Path:
        lying = []
        for picture in pictures:
            one = picture[::-1] if turn.flipped else picture
            one = one[:, ::-1] if turn.mirrored else one
            lying.append(np.ascontiguousarray(one.swapaxes(0, 1) if turn.transposed else one))
        if squeezed:
            height, width = lying[0].shape[:2]
            lying = resized(lying, (width // 2, height))
        aspect = Fraction(2) if squeezed else None
        film = encoded(lying, folder / "lying.mp4", fps=FPS, pixel_aspect=aspect)
        return remuxed(film, folder / f"turned.{suffix}", turn=turn)

    return copy


def _anamorphic(width: int, *, suffix: str = "mp4", by_container: bool = False) -> Copy:
    """Stored narrower or wider, with the pixels' aspect declared."""

    def copy(pictures: list[Rgb], folder: Path) -> Path:
        aspect = Fraction(WH[0], width)
        film = encoded(
            resized(pictures, (width, WH[1])),
            folder / f"squeezed.{suffix}",
            fps=FPS,
            pixel_aspect=None if by_container else aspect,
        )
        if not by_container:
            return film
        return remuxed(film, folder / f"declared.{suffix}", pixel_aspect=aspect)

    return copy


def _scaled(wh: tuple[int, int]) -> Copy:
    return lambda pictures, folder: encoded(resized(pictures, wh), folder / "film.mp4", fps=FPS)


def _switching(at: int, wh: tuple[int, int], aspect: Fraction = Fraction(1)) -> Copy:
    """The camera changes its resolution in mid-stream, while the person stands there."""

    def copy(pictures: list[Rgb], folder: Path) -> Path:
        path = folder / "both.ts"
        first = encoded(pictures[:at], folder / "first.ts", fps=FPS)
        second = encoded(
            resized(pictures[at:], wh), folder / "second.ts", fps=FPS, pixel_aspect=aspect
        )
        path.write_bytes(first.read_bytes() + second.read_bytes())
        return path

    return copy


def _gapped(suffix: str) -> Copy:
    """Two seconds of it were never recorded."""

    def copy(pictures: list[Rgb], folder: Path) -> Path:
        kept = [index for index in range(len(pictures)) if not 35 <= index < 55]
        chosen = [pictures[index] for index in kept]
        return encoded(chosen, folder / f"gapped.{suffix}", fps=FPS, times=kept)

    return copy


COPIES: Mapping[str, Copy] = {
    **{suffix: _contained(suffix) for suffix in ("mp4", "mkv", "ts", "mov", "avi", "flv")},
    "rotated 90": _turned(Turn(transposed=True, mirrored=True)),
    "rotated 180": _turned(Turn(mirrored=True, flipped=True)),
    "rotated 270": _turned(Turn(transposed=True, flipped=True)),
    "rotated in mkv": _turned(Turn(transposed=True, flipped=True), suffix="mkv"),
    "mirrored": _turned(Turn(mirrored=True)),
    "rotated and mirrored": _turned(Turn(transposed=True)),
    "rotated and anamorphic": _turned(Turn(transposed=True, mirrored=True), squeezed=True),
    "anamorphic 2:1": _anamorphic(320),
    "anamorphic 2:1 in ts": _anamorphic(320, suffix="ts"),
    "anamorphic 2:1 by its container": _anamorphic(320, by_container=True),
    "anamorphic 1:2": _anamorphic(1280),
    "half the size": _scaled((320, 136)),
    "twice the size": _scaled((1280, 544)),
    "smaller in mid-stream": _switching(45, (320, 136)),
    "anamorphic in mid-stream": _switching(45, (320, 272), Fraction(2)),
    "gapped mp4": _gapped("mp4"),
    "gapped mkv": _gapped("mkv"),
    "gapped ts": _gapped("ts"),
}
