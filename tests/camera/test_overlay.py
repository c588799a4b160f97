"""What is drawn over a frame, and that the frame itself stays clean."""

from __future__ import annotations

import numpy as np
import pytest

from storeguard.camera.overlay import Annotations, PersonMark, draw
from storeguard.config.zones import ZoneConfig

GREY = 100
FLOOR = ZoneConfig(id="floor", polygon=((0.2, 0.4), (0.8, 0.4), (0.8, 0.9), (0.2, 0.9)))
DOOR = ZoneConfig(id="door", line=((0.1, 0.2), (0.1, 0.9)))


def frame(wh: tuple[int, int] = (320, 240)) -> np.ndarray:
    return np.full((wh[1], wh[0], 3), GREY, np.uint8)


def changed(drawn: np.ndarray) -> np.ndarray:
    """(height, width) bool: where something was drawn."""
    return (drawn != GREY).any(axis=2)


def red(pixel: np.ndarray) -> int:
    """How much redder than green a pixel is: alerts are red, people green, zones blue."""
    return int(pixel[0]) - int(pixel[1])


def test_models_never_see_these_pixels() -> None:
    clean = frame()
    clean.setflags(write=False)

    drawn = draw(clean, Annotations(zones=(FLOOR,), people=(PersonMark("#1", (0, 0, 1, 1)),)))

    assert (clean == GREY).all()
    assert (drawn.shape, drawn.dtype) == (clean.shape, np.uint8)
    drawn[0, 0] = 1  # a copy that belongs to the caller
    assert not np.shares_memory(drawn, clean)


def test_nothing_to_draw_changes_nothing() -> None:
    assert (draw(frame(), Annotations()) == frame()).all()


def test_a_zone_is_tinted_inside_and_nowhere_else() -> None:
    where = changed(draw(frame(), Annotations(zones=(FLOOR,))))

    assert where[120:200, 80:240].all()  # well inside
    assert not where[230:, :].any()
    assert not where[:, :50].any()


def test_a_line_is_drawn_along_its_points() -> None:
    where = changed(draw(frame(), Annotations(zones=(DOOR,))))

    assert where[80:200, 32].all()
    assert not where[:, 200:].any()


def test_an_alert_turns_zone_and_person_red() -> None:
    person = PersonMark("#1", (0.4, 0.5, 0.6, 0.8), dwell_s=4.2)
    calm = draw(frame(), Annotations(zones=(FLOOR,), people=(person,)))
    alert = draw(
        frame(),
        Annotations(
            zones=(FLOOR,),
            people=(PersonMark("#1", person.xyxy, dwell_s=4.2, alert=True),),
            alert_zones=frozenset({"floor"}),
        ),
    )

    inside_zone, on_box = (130, 90), (150, 128)
    for at in (inside_zone, on_box):
        assert red(calm[at]) < 0 < red(alert[at])


def test_a_box_lies_on_its_edges_and_its_inside_stays_visible() -> None:
    where = changed(draw(frame(), Annotations(people=(PersonMark("#1", (0.25, 0.5, 0.5, 0.9)),))))

    left, right, top, bottom = 80, 159, 120, 215
    assert where[top:bottom, left].all()
    assert where[top:bottom, right].all()
    assert where[bottom, left:right].all()
    assert not where[140:200, 90:150].any()


def test_the_dwell_is_written_after_the_label() -> None:
    def pixels(dwell_s: float | None) -> int:
        mark = PersonMark("#1", (0.25, 0.5, 0.5, 0.9), dwell_s=dwell_s)
        return int(changed(draw(frame(), Annotations(people=(mark,)))).sum())

    assert pixels(None) < pixels(3.0) < pixels(1234.5)


def test_banner_and_footer_take_the_lower_edge() -> None:
    where = changed(
        draw(frame(), Annotations(banner=("LOITERING counter", "INTRUSION"), footer="table"))
    )

    assert where[-45:].all()
    assert not where[:120].any()


@pytest.mark.parametrize("wh", [(16, 16), (1, 1), (7, 300), (1921, 1081)])
def test_pictures_of_any_size_are_drawn_on(wh: tuple[int, int]) -> None:
    annotations = Annotations(
        zones=(FLOOR, DOOR),
        people=(PersonMark("#1", (0, 0, 1, 1), 3.0), PersonMark("#2", (1, 1, 1, 1))),
        banner=("A", "B", "C", "D"),
        footer="a line that is much longer than the picture is wide " * 3,
    )

    assert draw(frame(wh), annotations).shape == (wh[1], wh[0], 3)
