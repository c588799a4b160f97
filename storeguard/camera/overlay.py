"""Zones, boxes, dwell and events drawn over a copy of a frame. Models never see these pixels."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from storeguard.config.zones import ZoneConfig

Rgb = NDArray[np.uint8]
_Colour = tuple[int, int, int]

_ZONE: _Colour = (64, 196, 255)
_ALERT: _Colour = (255, 82, 82)
_PERSON: _Colour = (105, 240, 174)
_INK: _Colour = (16, 20, 24)
_PAPER: _Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class PersonMark:
    """One person to draw.

    Attributes:
        label: the short id shown above the box.
        xyxy: corners as fractions 0..1 of the frame.
        dwell_s: longest dwell in any zone, seconds; None outside all zones.
        alert: an event about this person is open.
    """

    label: str
    xyxy: tuple[float, float, float, float]
    dwell_s: float | None = None
    alert: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything to draw on one frame.

    Attributes:
        alert_zones: ids of zones with an open event, drawn in the alert colour.
        banner: lines across the bottom, e.g. open events; empty for none.
        footer: one line below them, e.g. camera, time and frames per second.
    """

    zones: tuple[ZoneConfig, ...] = ()
    people: tuple[PersonMark, ...] = ()
    alert_zones: frozenset[str] = frozenset()
    banner: tuple[str, ...] = ()
    footer: str = ""


def draw(rgb: Rgb, scene: Scene) -> Rgb:
    """The frame with the scene drawn over it.

    Args:
        rgb: (height, width, 3) uint8; left as it is.
        scene: what to draw.

    Returns:
        A fresh (height, width, 3) uint8 array.
    """
    picture = Image.fromarray(rgb).convert("RGBA")
    tint = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    canvas = _Canvas(ImageDraw.Draw(tint), picture.size, max(11, round(picture.height / 30)))
    for zone in scene.zones:
        _draw_zone(canvas, zone, alert=zone.id in scene.alert_zones)
    for person in scene.people:
        _draw_person(canvas, person)
    # At the bottom: people's labels are at their heads.
    bottom = _draw_footer(canvas, scene.footer) if scene.footer else picture.height
    if scene.banner:
        _draw_banner(canvas, scene.banner, bottom)
    return np.asarray(Image.alpha_composite(picture, tint).convert("RGB")).copy()


def encode_jpeg(rgb: Rgb, *, quality: int = 80) -> bytes:
    """A (height, width, 3) uint8 RGB picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Canvas:
    brush: ImageDraw.ImageDraw
    wh: tuple[int, int]
    text_px: int

    @property
    def line_px(self) -> int:
        return max(2, self.text_px // 7)

    def pixels(self, points: Iterable[tuple[float, ...]]) -> list[tuple[float, float]]:
        width, height = self.wh
        return [(x * (width - 1), y * (height - 1)) for x, y in points]


def _draw_zone(canvas: _Canvas, zone: ZoneConfig, *, alert: bool) -> None:
    colour = _ALERT if alert else _ZONE
    points = canvas.pixels(zone.polygon or zone.line or ())
    if zone.polygon:
        canvas.brush.polygon(
            points, fill=(*colour, 38), outline=(*colour, 255), width=canvas.line_px
        )
    else:
        canvas.brush.line(points, fill=(*colour, 255), width=canvas.line_px + 1)
    _draw_tag(canvas, min(points, key=lambda point: (point[1], point[0])), zone.id, colour)


def _draw_person(canvas: _Canvas, person: PersonMark) -> None:
    colour = _ALERT if person.alert else _PERSON
    (x1, y1), (x2, y2) = canvas.pixels((person.xyxy[:2], person.xyxy[2:]))
    canvas.brush.rectangle((x1, y1, x2, y2), outline=(*colour, 255), width=canvas.line_px)
    dwell = "" if person.dwell_s is None else f"  {person.dwell_s:.1f} s"
    _draw_tag(canvas, (x1, y1 - canvas.text_px - 5), f"{person.label}{dwell}", colour)


def _draw_tag(canvas: _Canvas, at: tuple[float, float], text: str, colour: _Colour) -> None:
    font = _font(canvas.text_px)
    width, height = canvas.brush.textlength(text, font=font) + 8, canvas.text_px + 5
    x = max(0.0, min(at[0], canvas.wh[0] - width))
    y = max(0.0, min(at[1], canvas.wh[1] - height))
    canvas.brush.rectangle((x, y, x + width, y + height), fill=(*colour, 230))
    canvas.brush.text((x + 4, y + 1), text, font=font, fill=(*_INK, 255))


def _draw_banner(canvas: _Canvas, lines: tuple[str, ...], bottom: float) -> None:
    step = canvas.text_px + 6
    top = bottom - step * len(lines) - 4
    canvas.brush.rectangle((0, top, canvas.wh[0], bottom), fill=(*_ALERT, 215))
    for i, line in enumerate(lines):
        at = (8, top + 3 + i * step)
        canvas.brush.text(at, line, font=_font(canvas.text_px), fill=(*_PAPER, 255))


def _draw_footer(canvas: _Canvas, line: str) -> float:
    """Returns the footer's upper edge."""
    width, height = canvas.wh
    top = height - canvas.text_px - 8
    canvas.brush.rectangle((0, top, width, height), fill=(*_INK, 170))
    canvas.brush.text((6, top + 3), line, font=_font(canvas.text_px), fill=(*_PAPER, 255))
    return top


@lru_cache(maxsize=8)
def _font(text_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=text_px)
