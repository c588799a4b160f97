"""A headless browser and its pages, by the DevTools protocol."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


def soon(condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
    until = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.05)
    return outcome


class NavigatedError(AssertionError):
    """The browser refused a command, mostly because the page it was for is gone."""


class Tab:
    """A page in the browser, by the DevTools protocol, with cookies and storage of its own."""

    def __init__(self, browser: Browser, width: int, height: int, *, dark: bool) -> None:
        self._browser = browser
        self._context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call(
            "Target.createTarget",
            url="about:blank",
            browserContextId=self._context,
            width=width,
            height=height,
        )["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, session=self._session, **parameters)

    def open(self, url: str) -> None:
        self.run("window.leaving = true")
        self.call("Page.navigate", url=url)
        self.wait("window.leaving === undefined && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 120.0) -> Any:
        """The first true value of an expression."""
        # The page asks itself: many calls from outside can keep it from ever loading.
        patience = (
            "(async () => { for (let i = 0; i < 40; i += 1) {"
            f"const value = ({script}); if (value) return value;"
            "await new Promise(resolve => setTimeout(resolve, 50)); } })()"
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if value := self.run(patience):
                    return value
            except NavigatedError:
                time.sleep(0.1)
        raise AssertionError(f"never: {script}\n{self.text('body')}\n{self.complaints}")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_text(self, selector: str, words: str) -> None:
        place, wanted = json.dumps(selector), json.dumps(words)
        self.wait(f"document.querySelector({place})?.innerText?.includes({wanted})")

    def click(self, selector: str) -> None:
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "Tab": 9}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def choose(self, name: str, value: str) -> None:
        """Set a filter as a person would."""
        self.run(
            f"(() => {{ const field = document.querySelector('#filters [name={name}]');"
            f"field.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            "field.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    @property
    def complaints(self) -> list[str]:
        """What the console said: exceptions, and whatever the content policy stopped."""
        return [text for session, text in self._browser.complaints if session == self._session]

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)


class Browser:
    """A headless chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[tuple[str, str]] = []

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> Any:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=180))
            if answer.get("id") == number:
                if "error" in answer:
                    raise NavigatedError(method, answer["error"])
                return answer["result"]
            self._listen(answer)

    def _listen(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details["text"]
            case "Log.entryAdded" if parameters["entry"]["source"] in {"security", "violation"}:
                text = parameters["entry"]["text"]
            case _:
                return
        self.complaints.append((message.get("sessionId", ""), text))


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """A started chromium that keeps its data in `folder`; skips where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    if binary is None:
        pytest.skip("chromium is not installed: the dashboard cannot be looked at")
    log = folder / "chromium.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--mute-audio",
                "--disable-background-timer-throttling",
                "--disable-backgrounding-occluded-windows",
                "--disable-renderer-backgrounding",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
    try:
        found = soon(
            lambda: re.search(r"DevTools listening on (ws://\S+)\s", log.read_text()),
            "chromium did not start",
            180,
        )
        with connect(
            found[1], max_size=None, compression=None, ping_interval=None, open_timeout=120
        ) as socket:
            browser = Browser(socket)
            try:
                yield browser
            finally:
                with suppress(ConnectionClosed):  # it may be gone before it has answered
                    browser.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):  # it has had its time to leave nothing behind
            process.wait(60)
    finally:
        process.kill()
        process.wait()
