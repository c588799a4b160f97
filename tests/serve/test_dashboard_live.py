"""The dashboard's live pictures in a real browser that is slower than the cameras."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from storeguard.camera.status import CameraState
from storeguard.config.store import CameraConfig
from tests.serve.dashboard_system import DashboardSystem, jpeg
from tests.waiting import wait_for

# A page that takes 0.3 s for each picture, and counts those that it has drawn.
SLOW = """
    window.drawn = 0;
    const decode = window.createImageBitmap.bind(window);
    window.createImageBitmap = async (blob) => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        return decode(blob);
    };
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (...rest) {
        window.drawn += 1;
        return draw.apply(this, rest);
    };
"""


def test_a_slow_page_skips_pictures_and_queues_none(system: DashboardSystem, page: Page) -> None:
    for name in ("table", "door", "stairs"):
        system.cameras.settings[name] = CameraConfig(id=name, source="/dev/video1")
        system.cameras.states[name] = CameraState.PLAYING
        system.cameras.pictures[name] = [jpeg("steelblue"), jpeg("seagreen")]
    page.add_init_script(SLOW)
    page.goto(system.url)
    expect(page.locator(".tile[data-live=yes]")).to_have_count(3)
    queued = []

    def many_drawn() -> bool:
        sent = system.cameras.num_sent
        drawn = page.evaluate("window.drawn")
        queued.append(sent - drawn)
        return bool(drawn >= 60)

    wait_for(many_drawn, every_s=0.1, found=lambda: queued)
    # Each of the three tiles has at most the picture that it is drawing. What was drawn between
    # the two readings makes the difference smaller.
    assert max(queued) <= 3


@pytest.mark.parametrize(
    ("late_s", "words", "marked"), [(0.0, r"^\d\.\d s$", False), (65.0, r"^1 min \d+ s$", True)]
)
def test_a_picture_shows_its_age(
    system: DashboardSystem, page: Page, late_s: float, words: str, marked: bool
) -> None:
    system.cameras.late = timedelta(seconds=late_s)
    page.goto(system.url)
    tile = page.locator(".tile", has_text="Playing")
    expect(tile).to_have_attribute("data-live", "yes")
    expect(tile.locator(".age")).to_have_text(re.compile(words))
    expect(tile.locator(".age.late")).to_have_count(int(marked))
    tile.click()
    expect(page.locator("#camera-view .age")).to_have_text(re.compile(words))
