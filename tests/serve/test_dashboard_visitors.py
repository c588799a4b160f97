"""The dashboard's count of visitors, in a real browser, from a real track log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from serve.api.analytics import analytics_router
from storeguard.analytics.track_log import TrackLog
from storeguard.analytics.visitors import VisitorBucket, VisitorQuery, count_visitors
from storeguard.clock import SystemClock
from storeguard.config.store import ApiSettings
from storeguard.errors import StorageError
from tests.analytics.sightings import labelled, seen
from tests.serve.browser import opened_page
from tests.serve.dashboard_system import DashboardSystem, serving

VIEW = "#visitors-view"


class Log:
    """A track log that may be unreadable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fails = False
        self.queries: list[VisitorQuery] = []

    async def visitors(self, query: VisitorQuery) -> list[VisitorBucket]:
        self.queries.append(query)
        if self.fails:
            raise StorageError("the track log cannot be read")
        return count_visitors(self.folder, query)


class Shop(DashboardSystem):
    def __init__(self, log: Log, attributes: list[str]) -> None:
        analytics = analytics_router(log, attributes=attributes)
        super().__init__(ApiSettings(), folder=log.folder / "converted", routers=[analytics])
        self.log = log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two people today with a basket, one yesterday without, one five days ago without a label."""
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


def choose(page: Page, number: int, value: str) -> None:
    """Choose in the view's n-th list, as soon as it has this option."""
    page.locator(f"{VIEW} select").nth(number).select_option(value)


def rows(page: Page) -> list[list[str]]:
    """The table's rows whose count is not 0."""
    cells = "[...row.cells].map(cell => cell.textContent)"
    table: list[list[str]] = page.evaluate(
        f"[...document.querySelectorAll('{VIEW} tbody tr')].map(row => {cells})"
    )
    return [row for row in table if row[1] != "0"]


def heights(page: Page) -> list[list[Any]]:
    """Which parts the bars have, and how high they are in parts of the highest bar."""
    found: list[list[Any]] = page.evaluate(
        f"[...document.querySelectorAll('{VIEW} .part')].map(part => "
        "[part.dataset.tone, part.getBoundingClientRect().height])"
    )
    most = max(height for _, height in found)
    return [[tone, round(height / most, 1)] for tone, height in found]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened_page(browser, timezone="UTC") as page:
        yield page


def test_visitors_by_label(page: Page, shop: Shop) -> None:
    page.goto(shop.url)
    page.locator("#visitors-open").first.click()
    expect(page.locator(f"{VIEW} .total")).to_contain_text("2 visitors")
    assert [row[1:] for row in rows(page)] == [["2", "2", "0"]]
    choose(page, 0, "week")
    expect(page.locator(f"{VIEW} .total")).to_contain_text("4 visitors")
    assert "basket 2 50 %" in page.locator(f"{VIEW} .legend").inner_text().replace("\n", " ")
    # the labels in order of how common they are; the days in order
    assert [row[1:] for row in rows(page)] == [
        ["1", "0", "0", "1"],
        ["1", "0", "1", "0"],
        ["2", "2", "0", "0"],
    ]
    assert heights(page) == [["unknown", 0.5], ["1", 0.5], ["0", 1.0]]
    choose(page, 1, "door")
    expect(page.locator(f"{VIEW} .total")).to_contain_text("1 visitor")
    choose(page, 1, "")
    choose(page, 2, "")
    expect(page.locator(f"{VIEW} .total")).to_contain_text("4 visitors")
    expect(page.locator(f"{VIEW} thead th")).to_have_count(2)
    assert [row[1:] for row in rows(page)] == [["1"], ["1"], ["2"]]
    assert page.locator(f"{VIEW} .legend").is_hidden()
    choose(page, 2, "hat")
    expect(page.locator(f"{VIEW} thead th")).to_have_count(3)
    assert [row[1:] for row in rows(page)] == [["1", "1"], ["1", "1"], ["2", "2"]]


def test_days_begin_at_the_readers_midnight(browser: Browser, shop: Shop) -> None:
    with opened_page(browser, timezone="Pacific/Auckland") as page:
        page.goto(shop.url)
        page.locator("#visitors-open").first.click()
        expect(page.locator(f"{VIEW} .total")).not_to_contain_text("Counting")
        choose(page, 0, "month")
        expect(page.locator(f"{VIEW} tbody tr")).to_have_count(30)
        query = shop.log.queries[-1]
        midnight = page.evaluate(
            "(() => { const day = new Date(); day.setHours(0, 0, 0, 0);"
            "day.setDate(day.getDate() - 29); return day.toISOString(); })()"
        )
        assert query.start == datetime.fromisoformat(midnight)


def test_an_unreadable_log_is_reported(page: Page, shop: Shop) -> None:
    shop.log.fails = True
    page.goto(shop.url)
    page.locator("#visitors-open").first.click()
    expect(page.locator(f"{VIEW} .fault")).to_contain_text("The visitors cannot be counted")
    shop.log.fails = False
    choose(page, 0, "week")
    expect(page.locator(f"{VIEW} .total")).to_contain_text("4 visitors")
    assert page.locator(f"{VIEW} .fault").is_hidden()
    shop.log.fails = True
    choose(page, 0, "month")  # figures of another query are removed
    expect(page.locator(f"{VIEW} .fault")).to_contain_text("The visitors cannot be counted")
    assert page.locator(f"{VIEW} .total").inner_text() == ""
    assert rows(page) == []
    page.keyboard.press("Escape")
    expect(page.locator(VIEW)).not_to_have_attribute("open", "")


def test_a_store_without_attributes(page: Page, log: Log) -> None:
    with serving(Shop(log, [])) as shop:
        page.goto(shop.url)
        page.locator("#visitors-open").first.click()
        expect(page.locator(f"{VIEW} .total")).to_contain_text("2 visitors")
        assert page.locator(f"{VIEW} label").nth(2).is_hidden()
        choose(page, 0, "yesterday")
        expect(page.locator(f"{VIEW} .total")).to_contain_text("1 visitor")
        assert [row[1:] for row in rows(page)] == [["1"]]
