"""A browser, a page in it, and the system that the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from storeguard.config.store import ApiSettings
from tests.serve.browser import opened_page, running_browser
from tests.serve.dashboard_system import DashboardSystem, serving


# One a module: the tests of other modules run asyncio loops in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened_page(browser) as page:
        yield page


@pytest.fixture
def system(tmp_path: Path) -> Iterator[DashboardSystem]:
    with serving(DashboardSystem(ApiSettings(), folder=tmp_path)) as system:
        yield system
