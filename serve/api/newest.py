"""Live streams that skip: a viewer that reads slowly gets the newest part, never a backlog."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PACED_HEADER: Final = "x-storeguard-paced"
"""Request header that reports to the app that its stream passes through `NewestOnly`."""

_STREAM_TYPE: Final = b"multipart/x-mixed-replace"
_WRITE_TIMEOUT_S: Final = 10.0
_SEND_BUFFER_BYTES: Final = 128 * 1024


@dataclass(slots=True)
class LiveStreams:
    """Counters of the live streams of a process.

    Attributes:
        open: streams that are open now.
        waiting_bytes: bytes of the parts that wait for their viewers now, at most one part each.
        sent: parts that were sent.
        skipped: parts that newer ones replaced.
        stalled: streams that were closed because their viewers had stopped reading.
    """

    open: int = 0
    waiting_bytes: int = 0
    sent: int = 0
    skipped: int = 0
    stalled: int = 0


class NewestOnly:
    """ASGI middleware that keeps at most one part waiting for each viewer of a live stream.

    It belongs where the viewer's socket is: in Ray Serve that is the proxy, to which the app's
    replica sends however slowly the viewer reads. Each body message is taken for one part. Only
    responses of type multipart/x-mixed-replace are affected.

    Args:
        app: what responds.
        write_timeout_s: a viewer that has not read one part for so long is disconnected.
        streams: counters; None starts new ones.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        write_timeout_s: float = _WRITE_TIMEOUT_S,
        streams: LiveStreams | None = None,
    ) -> None:
        self._app = app
        self._write_timeout_s = write_timeout_s
        self.streams = streams or LiveStreams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as the app does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [*scope["headers"], (PACED_HEADER.encode(), b"1")]
        viewer = _Viewer(receive, send, self._write_timeout_s, self.streams)
        try:
            await self._app({**scope, "headers": headers}, viewer.receive, viewer.send)
        except ConnectionError:
            if not viewer.stalled.is_set():
                raise
        finally:
            await viewer.end()


class _Viewer:
    """One response. Until it turns out to be a live stream, messages are passed on unchanged."""

    def __init__(
        self, receive: Receive, send: Send, write_timeout_s: float, streams: LiveStreams
    ) -> None:
        self.stalled = asyncio.Event()
        self._receive = receive
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._streams = streams
        self._waiting: Message | None = None
        self._due = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """What the client sends; a disconnect once it has stalled."""
        received = asyncio.ensure_future(self._receive())
        stalled = asyncio.ensure_future(self.stalled.wait())
        try:
            await asyncio.wait({received, stalled}, return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            received.cancel()
            stalled.cancel()

    async def send(self, message: Message) -> None:
        """Send a message; a live stream's part replaces the part that still waits.

        Raises:
            ConnectionError: the viewer has stalled.
        """
        if self._writing is None:
            await self._send(message)
            if message["type"] == "http.response.start" and _is_live(message):
                self._streams.open += 1
                _limit_buffer(self._send)
                self._writing = asyncio.create_task(self._write())
            return
        if self._writing.done():
            raise ConnectionAbortedError("the viewer has stopped reading")
        if self._waiting is not None and message.get("body"):
            self._streams.skipped += 1
        self._wait_with(message)
        self._due.set()
        if not message.get("more_body", False):
            await asyncio.wait({self._writing})
        await asyncio.sleep(0)

    async def end(self) -> None:
        """Stop writing. What still waits is dropped."""
        if self._writing is None:
            return
        self._writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writing
        self._wait_with(None)
        self._streams.open -= 1

    def _wait_with(self, message: Message | None) -> None:
        for waiting, sign in ((self._waiting, -1), (message, 1)):
            self._streams.waiting_bytes += sign * len((waiting or {}).get("body", b""))
        self._waiting = message

    async def _write(self) -> None:
        more = True
        while more:
            await self._due.wait()
            self._due.clear()
            message, more = self._waiting, bool((self._waiting or {}).get("more_body", False))
            if message is None:
                continue
            self._wait_with(None)
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await self._send(message)
            except TimeoutError:
                self._streams.stalled += 1
                self.stalled.set()
                transport = _transport(self._send)
                if transport is not None:
                    transport.abort()  # a close would wait for the viewer to read what is buffered
                return
            self._streams.sent += bool(message.get("body"))


def proxy_middlewares() -> list[Middleware]:
    """Middleware of Ray Serve's proxies: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names this."""
    return [Middleware(NewestOnly)]


def _is_live(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(_STREAM_TYPE)
        for name, value in start["headers"]
    )


def _limit_buffer(send: Send) -> None:
    """Bound what the kernel buffers for the viewer, which would be megabytes of old pictures."""
    transport = _transport(send)
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


def _transport(send: Send) -> Any:
    """The connection that uvicorn's `send` writes to; None where another server hides it."""
    return getattr(getattr(send, "__self__", None), "transport", None)
