"""Stored files over HTTP: byte ranges, validators, HEAD, from whatever object store holds them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from anyio import to_thread
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from serve.api.parts import Objects
from serve.api.problems import problem
from storeguard.errors import OverloadedError
from storeguard.storage.objects import Reader

_CHUNK_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*")
_MEDIA_TYPES: Final = {
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `first` to `last`, both included, as HTTP counts them."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def span_of(header: str, size: int) -> Span | None:
    """The span a Range header asks for.

    Args:
        header: its value.
        size: of the whole, in bytes.

    Returns:
        None where RFC 9110 lets a server send the whole: another unit, several ranges, nonsense.

    Raises:
        LookupError: the span lies outside.
    """
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        wanted = int(match[2])
        if wanted == 0 or size == 0:
            raise LookupError(header)
        return Span(max(0, size - wanted), size - 1)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= size:
        raise LookupError(header)
    return Span(first, last)


class Seats:
    """Bounds how many clients a kind of stream has at once; the next one is refused.

    Args:
        limit: most clients.
        what: what they do, for the refusal.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._used = 0

    def require_free(self) -> None:
        """Raise OverloadedError when all seats are taken."""
        if self._used >= self._limit:
            raise OverloadedError(f"{self._used} clients {self._what} already; try again later")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take a seat for as long as the stream lasts."""
        self._used += 1
        try:
            yield
        finally:
            self._used -= 1


async def serve_object(
    request: Request, objects: Objects, uri: str, *, sha256: str | None = None
) -> Response:
    """Answer GET or HEAD with a stored file or a part of it.

    Args:
        request: for Range, If-Range and If-None-Match.
        objects: where it is.
        uri: of the file.
        sha256: its checksum, for the ETag; without one the ETag comes from URI and size.

    Raises:
        NotFoundError: it is not there.
        StorageError: it cannot be read.
    """
    size = await to_thread.run_sync(objects.size, uri)
    etag = f'"{sha256}"' if sha256 else f'W/"{size:x}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    span, status = Span(0, size - 1), HTTPStatus.OK
    wanted = request.headers.get("range")
    if wanted is not None and _still(request.headers.get("if-range"), etag):
        try:
            part = span_of(wanted, size)
        except LookupError:
            return problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                f"Range: expected bytes within 0-{size - 1}, found {wanted[:80]!r}",
                headers={"Content-Range": f"bytes */{size}", **headers},
            )
        if part is not None:
            span, status = part, HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
    headers["Content-Length"] = str(span.length)
    media_type = _MEDIA_TYPES.get(uri[uri.rfind(".") :].lower(), "application/octet-stream")
    if request.method == "HEAD" or span.length == 0:
        return Response(status_code=status, headers=headers, media_type=media_type)
    reader = await to_thread.run_sync(objects.open, uri)
    return StreamingResponse(
        _chunks(reader, span), status_code=status, headers=headers, media_type=media_type
    )


def _still(if_range: str | None, etag: str) -> bool:
    """Whether the client's part belongs to the file as it is; dates are never precise enough."""
    return if_range is None or (if_range.strip() == etag and not etag.startswith("W/"))


async def _chunks(reader: Reader, span: Span) -> AsyncIterator[bytes]:
    try:
        await to_thread.run_sync(reader.seek, span.first)
        left = span.length
        while left:
            chunk = await to_thread.run_sync(reader.read, min(left, _CHUNK_BYTES))
            if not chunk:  # cut off meanwhile: the client sees too few bytes and asks again
                return
            left -= len(chunk)
            yield chunk
    finally:
        reader.close()
