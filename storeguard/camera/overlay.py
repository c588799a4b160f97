"""Zones, boxes, dwell and events drawn over a copy of a frame. Models never see these pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from storeguard.config.store import CameraConfig
from storeguard.config.zones import ZoneConfig
from storeguard.events.event import rfc3339
from storeguard.rules.observation import Observation
from storeguard.rules.verdict import Verdict
from storeguard.video.frame import Rgb

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
class Annotations:
    """Everything to draw over one frame.

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


def draw(rgb: Rgb, annotations: Annotations) -> Rgb:
    """The frame with annotations drawn over it.

    Args:
        rgb: (height, width, 3) uint8; left as it is.
        annotations: what to draw.

    Returns:
        A new (height, width, 3) uint8 array.
    """
    picture = Image.fromarray(rgb).convert("RGBA")
    tint = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    canvas = _Canvas(ImageDraw.Draw(tint), picture.size, max(11, round(picture.height / 30)))
    for zone in annotations.zones:
        _draw_zone(canvas, zone, alert=zone.id in annotations.alert_zones)
    for person in annotations.people:
        _draw_person(canvas, person)
    # At the bottom: people's labels are at their heads.
    bottom = _draw_footer(canvas, annotations.footer) if annotations.footer else picture.height
    if annotations.banner:
        _draw_banner(canvas, annotations.banner, bottom)
    return np.asarray(Image.alpha_composite(picture, tint).convert("RGB")).copy()


def annotations_of(
    camera: CameraConfig, observation: Observation, verdict: Verdict, *, fps: float | None
) -> Annotations:
    """The annotations for one frame and the verdict of the rules on it."""
    longest: dict[str, float] = {}
    for dwell in verdict.dwell:
        longest[dwell.person_id] = max(dwell.dwell_s, longest.get(dwell.person_id, 0.0))
    alerting = {event.person_id for event in verdict.open_events}
    people = tuple(
        PersonMark(
            label=" ".join(
                (
                    short_label(person_id),
                    *(a.label for a in observation.attributes.get(person_id, ())),
                )
            ),
            xyxy=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            dwell_s=longest.get(person_id),
            alert=person_id in alerting,
        )
        for person_id, box in zip(observation.person_id, observation.xyxy, strict=True)
    )
    banner = tuple(
        "  ".join(
            part
            for part in (
                event.type.upper().replace("_", " "),
                event.zone_id,
                short_label(event.person_id) if event.person_id else None,
                f"{longest[event.person_id]:.1f} s" if event.person_id in longest else None,
            )
            if part
        )
        for event in verdict.open_events
    )
    rate = "" if fps is None else f"   {fps:.1f} fps"
    return Annotations(
        zones=camera.zones,
        people=people,
        alert_zones=frozenset(e.zone_id for e in verdict.open_events if e.zone_id),
        banner=banner[:4],
        footer=f"{camera.id}   {rfc3339(observation.captured_at)}{rate}",
    )


def short_label(person_id: str) -> str:
    """``#12`` for the person id ``table-19a0b1c2d3e-12``."""
    return f"#{person_id.rsplit('-', 1)[-1]}"


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
