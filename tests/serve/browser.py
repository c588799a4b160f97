"""A real chromium and its pages, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.real_parts import required_program

_PATIENCE_MS = 120_000
_START_MS = 180_000


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless chromium. This thread cannot run another asyncio loop until it is closed."""
    program = required_program("chromium", "chromium-browser")
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            headless=True,
            timeout=_START_MS,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_page(
    browser: Browser,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    timezone: str | None = None,
) -> Iterator[Page]:
    """A page with cookies and storage of its own; at the end its console must hold no error.

    Args:
        browser: the browser that shows it.
        width, height: of the window in pixels; a narrow one is a phone's.
        dark: whether the reader prefers dark colours.
        timezone: IANA name of the reader's time zone; None takes the machine's.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        is_mobile=width < 600,
        color_scheme="dark" if dark else "light",
        timezone_id=timezone,
    )
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        # An answer such as 404 or 503 is an error to the console and no fault of the page.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert errors == []
