"""Small HTTP servers on loopback that behave like cameras and relays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Answers one GET request."""


@contextmanager
def http_server(answer: Answer) -> Iterator[str]:
    """A server whose every GET is answered by `answer`; yields its address without a last `/`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the reader has closed the connection
                return

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def begin(request: BaseHTTPRequestHandler, content_type: str, length: int | None = None) -> None:
    """Send the head of an answer; without `length` it lasts until the connection closes."""
    request.send_response(200)
    request.send_header("Content-Type", content_type)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()
