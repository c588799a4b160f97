"""Live streams on real sockets whose viewers read slowly or not at all."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

from starlette.types import Receive, Scope, Send

from serve.api.newest import LiveStreams, NewestOnly
from serve.api.stream_limit import ClosingStream
from tests.serve.server import serving_app
from tests.waiting import wait_for

PART_BYTES = 50_000
HELD_BYTES = 64 * 1024


class Numbers:
    """An app that streams numbered parts and never waits for its viewers, as a Serve replica does.

    Attributes:
        number: of the newest part.
        closed: how many of its streams have ended.
    """

    def __init__(self, media_type: str = "multipart/x-mixed-replace; boundary=frame") -> None:
        self.number = 0
        self.closed = 0
        self._media_type = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = ClosingStream(self._parts(), media_type=self._media_type)
        await response(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.number += 1
                yield b"#%09d#" % self.number + bytes(PART_BYTES)
                await asyncio.sleep(0.002)
        finally:
            self.closed += 1


@contextmanager
def viewer(port: int) -> Iterator[socket.socket]:
    """A connection on which a stream was requested; nothing of the response is read yet."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD_BYTES)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield connection


def test_viewers_that_stop_reading_hold_one_part_each() -> None:
    app, streams = Numbers(), LiveStreams()
    with (
        serving_app(NewestOnly(app, write_timeout_s=300, streams=streams)) as port,
        ExitStack() as viewers,
    ):
        for _ in range(2):
            viewers.enter_context(viewer(port))
        held = []

        def many_skipped() -> bool:
            held.append(streams.waiting_bytes)
            return streams.skipped > 1000

        wait_for(many_skipped, every_s=0.01, found=lambda: streams)
        assert streams.open == 2
        # What was sent and not read: buffers of the kernel and of the server, and no queue.
        assert streams.sent < 60
        assert 0 < max(held) <= 2 * (PART_BYTES + 11)
        viewers.close()
        wait_for(lambda: streams.open == 0 and app.closed == 2, found=lambda: streams)
    assert streams.waiting_bytes == 0


def test_a_viewer_that_reads_again_gets_the_newest_part() -> None:
    app, streams = Numbers(), LiveStreams()
    with (
        serving_app(NewestOnly(app, write_timeout_s=300, streams=streams)) as port,
        viewer(port) as connection,
    ):
        wait_for(lambda: streams.skipped > 500, every_s=0.01, found=lambda: streams)
        newest, received, numbers = app.number, b"", [0]
        while numbers[-1] < newest:
            received += connection.recv(1 << 16)
            numbers = [0, *(int(found) for found in re.findall(rb"#(\d{9})#", received))]
    # The few parts that were on their way already, and then the one that is newest now.
    assert len(numbers) < 30
    assert numbers == sorted(set(numbers))


def test_a_viewer_that_has_stopped_reading_is_disconnected() -> None:
    app, streams = Numbers(), LiveStreams()
    with (
        serving_app(NewestOnly(app, write_timeout_s=0.5, streams=streams)) as port,
        viewer(port) as connection,
    ):
        wait_for(lambda: app.closed == 1, every_s=0.02, found=lambda: streams)
        wait_for(lambda: streams.open == 0, found=lambda: streams)
        assert streams.stalled == 1
        assert ended(connection)


def test_other_responses_lose_nothing() -> None:
    app, streams = Numbers("text/event-stream"), LiveStreams()
    with (
        serving_app(NewestOnly(app, write_timeout_s=0.5, streams=streams)) as port,
        viewer(port) as connection,
    ):
        received = b""
        while received.count(b"#") < 100:
            received += connection.recv(1 << 16)
        numbers = [int(found) for found in re.findall(rb"#(\d{9})#", received)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert streams == LiveStreams()


def ended(connection: socket.socket) -> bool:
    """Whether the server ended the connection: all that was buffered is read, then nothing comes."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True
