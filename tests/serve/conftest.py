"""A browser, a page in it, and what the page asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storeguard.config.store import ApiSettings
from tests.serve.browser import Browser, Tab, running_browser
from tests.serve.dashboard_house import (
    House,
    serving,
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    tab = Tab(browser, 1280, 900, dark=False)
    yield tab
    complaints = tab.complaints
    tab.close()
    assert complaints == []


@pytest.fixture
def house() -> Iterator[House]:
    with serving(House(ApiSettings())) as house:
        yield house
