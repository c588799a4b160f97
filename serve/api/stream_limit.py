"""Streams that end with their clients, and a bound on how many clients there are at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from storeguard.errors import OverloadedError


class ClosingStream(StreamingResponse):
    """A response that closes its body's generator at the end, also if the client left before.

    Otherwise the generator's `finally` would run whenever its memory is collected.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()


class StreamLimit:
    """Bounds how many clients a kind of stream has at once; the next one is refused.

    Args:
        limit: most clients.
        doing: what they do, for the refusal: "watch" gives "32 clients watch already".
    """

    def __init__(self, limit: int, doing: str) -> None:
        self._limit = limit
        self._doing = doing
        self._clients = 0

    def check(self) -> None:
        """Raise OverloadedError when there is no room for another client."""
        if self._clients >= self._limit:
            raise OverloadedError(f"{self._clients} clients {self._doing} already; try again later")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one client for as long as its stream lasts."""
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1
