"""The dashboard's count of visitors, in a real browser, from a real track log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serve.api.analytics import analytics_router
from serve.api.routes import create_api
from storeguard.analytics.track_log import TrackLog
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery, count_visitors
from storeguard.clock import SystemClock
from storeguard.config.store import ApiSettings
from storeguard.errors import StorageError
from tests.analytics.sightings import labelled, seen
from tests.serve.browser import Tab
from tests.serve.dashboard_house import House, serving

VIEW = "#visitors-view"


class Log:
    """A track log that may be unreadable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fails = False
        self.asked: list[VisitorQuery] = []

    async def visitors(self, wanted: VisitorQuery) -> list[VisitorBucket]:
        self.asked.append(wanted)
        if self.fails:
            raise StorageError("the track log cannot be read")
        return count_visitors(self.folder, wanted)


class Shop(House):
    def __init__(self, log: Log, attributes: list[str]) -> None:
        super().__init__(ApiSettings())
        self.log = log
        self.app = create_api(
            events=self.events,
            cameras=self.cameras,
            objects=self.objects,
            settings=ApiSettings(),
            health=self._health,
            routers=[analytics_router(log, attributes=attributes)],
        )


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two people today with a basket, one yesterday without, one five days ago of whom nothing is told."""
    tracks = TrackLog(tmp_path, clock=SystemClock())
    now = datetime.now(UTC)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0)
    day = timedelta(days=1)
    tracks.take(
        [
            labelled(seen(noon, "a", "b"), a="basket", b="basket"),
            labelled(seen(noon - day, "c", camera="door"), c="none"),
            seen(noon - 5 * day, "d"),
        ]
    )
    tracks.close()
    return Log(tmp_path)


@pytest.fixture
def shop(log: Log) -> Iterator[Shop]:
    with serving(Shop(log, ["basket", "hat"])) as shop:
        yield shop  # type: ignore[misc]


def choose(tab: Tab, number: int, value: str) -> None:
    """Choose in the view's n-th list as a person would, once it is offered there."""
    options = f"[...document.querySelectorAll('{VIEW} select')[{number}].options]"
    tab.wait(f"{options}.some(option => option.value === '{value}')")
    tab.run(
        f"(() => {{ const list = document.querySelectorAll('{VIEW} select')[{number}];"
        f"list.value = '{value}'; list.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    )


def rows(tab: Tab) -> list[list[str]]:
    """The table's rows that count anybody."""
    cells = "[...row.cells].map(cell => cell.textContent)"
    table: list[list[str]] = tab.run(
        f"[...document.querySelectorAll('{VIEW} tbody tr')].map(row => {cells})"
    )
    return [row for row in table if row[1] != "0"]


def heights(tab: Tab) -> list[list[Any]]:
    """Which parts the bars have, and how high they are in parts of the highest bar."""
    found: list[list[Any]] = tab.run(
        f"[...document.querySelectorAll('{VIEW} .part')].map(part => "
        "[part.dataset.tone, part.getBoundingClientRect().height])"
    )
    most = max(height for _, height in found)
    return [[tone, round(height / most, 1)] for tone, height in found]


@pytest.fixture(autouse=True)
def _utc(tab: Tab) -> None:
    tab.call("Emulation.setTimezoneOverride", timezoneId="UTC")


def test_visitors_by_what_is_told_of_them(tab: Tab, shop: Shop) -> None:
    tab.open(shop.url)
    tab.click("#visitors-open")
    tab.wait_text(f"{VIEW} .total", "2 visitors")
    assert [row[1:] for row in rows(tab)] == [["2", "2", "0"]]
    choose(tab, 0, "week")
    tab.wait_text(f"{VIEW} .total", "4 visitors")
    assert "basket 2 50 %" in tab.text(f"{VIEW} .legend").replace("\n", " ")
    # the labels in order of how common they are; the days in order
    assert [row[1:] for row in rows(tab)] == [
        ["1", "0", "0", "1"],
        ["1", "0", "1", "0"],
        ["2", "2", "0", "0"],
    ]
    assert heights(tab) == [["unknown", 0.5], ["1", 0.5], ["0", 1.0]]
    choose(tab, 1, "door")
    tab.wait_text(f"{VIEW} .total", "1 visitor")
    choose(tab, 1, "")
    choose(tab, 2, "")
    tab.wait_text(f"{VIEW} .total", "4 visitors")
    tab.wait(f"document.querySelectorAll('{VIEW} thead th').length === 2")
    assert [row[1:] for row in rows(tab)] == [["1"], ["1"], ["2"]]
    assert tab.run(f"document.querySelector('{VIEW} .legend').hidden") is True
    choose(tab, 2, "hat")
    tab.wait(f"document.querySelectorAll('{VIEW} thead th').length === 3")
    assert [row[1:] for row in rows(tab)] == [["1", "1"], ["1", "1"], ["2", "2"]]


def test_the_days_are_the_readers(tab: Tab, shop: Shop) -> None:
    tab.call("Emulation.setTimezoneOverride", timezoneId="Pacific/Auckland")
    tab.open(shop.url)
    tab.click("#visitors-open")
    tab.wait(f"!document.querySelector('{VIEW} .total').innerText.startsWith('Counting')")
    choose(tab, 0, "month")
    tab.wait(f"document.querySelectorAll('{VIEW} tbody tr').length === 30")
    asked = shop.log.asked[-1]
    midnight = tab.run(
        "(() => { const day = new Date(); day.setHours(0, 0, 0, 0);"
        "day.setDate(day.getDate() - 29); return day.toISOString(); })()"
    )
    assert asked.start == datetime.fromisoformat(midnight)


def test_a_log_that_cannot_be_read_is_labelled(tab: Tab, shop: Shop) -> None:
    shop.log.fails = True
    tab.open(shop.url)
    tab.click("#visitors-open")
    tab.wait_text(f"{VIEW} .fault", "The visitors cannot be counted")
    shop.log.fails = False
    choose(tab, 0, "week")
    tab.wait_text(f"{VIEW} .total", "4 visitors")
    assert tab.run(f"document.querySelector('{VIEW} .fault').hidden") is True
    shop.log.fails = True
    choose(tab, 0, "month")  # figures of another question are not left standing
    tab.wait_text(f"{VIEW} .fault", "The visitors cannot be counted")
    assert tab.text(f"{VIEW} .total") == ""
    assert rows(tab) == []
    tab.press("Escape")
    tab.wait(f"!document.querySelector('{VIEW}').open")


def test_nothing_to_tell_people_apart_by(tab: Tab, log: Log) -> None:
    with serving(Shop(log, [])) as shop:
        tab.open(shop.url)
        tab.click("#visitors-open")
        tab.wait_text(f"{VIEW} .total", "2 visitors")
        assert tab.run(f"document.querySelectorAll('{VIEW} label')[2].hidden") is True
        choose(tab, 0, "yesterday")
        tab.wait_text(f"{VIEW} .total", "1 visitor")
        assert [row[1:] for row in rows(tab)] == [["1"]]
