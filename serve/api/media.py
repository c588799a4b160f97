"""Stored files over HTTP: byte ranges, validators, HEAD, from whatever object store holds them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from anyio import to_thread
from fastapi import Request, Response

from serve.api.problems import problem
from serve.api.protocols import Objects
from serve.api.stream_limit import ClosingStream
from storeguard.errors import NotFoundError
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
    """The span that a Range header requests.

    Args:
        header: its value.
        size: of the whole, in bytes.

    Returns:
        None where RFC 9110 lets a server send the whole: another unit,
        several ranges, or no valid range.

    Raises:
        LookupError: the span lies outside.
    """
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # "-500" is the last 500 bytes
        length = int(match[2])
        if length == 0 or size == 0:
            raise LookupError(header)
        return Span(max(0, size - length), size - 1)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= size:
        raise LookupError(header)
    return Span(first, last)


class LocalFiles:
    """`Objects` whose addresses are paths of this machine's files."""

    def open(self, key_or_uri: str) -> Reader:
        """The file, opened for reading. Raises NotFoundError."""
        try:
            return Path(key_or_uri).open("rb")
        except FileNotFoundError as error:  # deleted since it was found
            raise NotFoundError(f"{Path(key_or_uri).name}: there is no such file") from error

    def size(self, key_or_uri: str) -> int:
        """Its size in bytes. Raises NotFoundError."""
        try:
            return Path(key_or_uri).stat().st_size
        except FileNotFoundError as error:
            raise NotFoundError(f"{Path(key_or_uri).name}: there is no such file") from error


async def serve_object(
    request: Request, objects: Objects, uri: str, *, sha256: str | None = None
) -> Response:
    """Answer GET or HEAD with a stored file or a part of it.

    Args:
        request: for Range, If-Range and If-None-Match.
        objects: where it is.
        uri: of the file.
        sha256: its checksum, for the ETag; None where it is unknown, see `_etag`.

    Raises:
        NotFoundError: it is not there.
        StorageError: it cannot be read.
    """
    size = await to_thread.run_sync(objects.size, uri)
    etag = _etag(uri, size, sha256)
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    span, status = Span(0, size - 1), HTTPStatus.OK
    requested = request.headers.get("range")
    if requested is not None and _unchanged(request.headers.get("if-range"), etag):
        try:
            part = span_of(requested, size)
        except LookupError:
            return problem(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                f"Range: expected bytes within 0-{size - 1}, found {requested[:80]!r}",
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
    return ClosingStream(
        _chunks(reader, span), status_code=status, headers=headers, media_type=media_type
    )


def _etag(uri: str, size: int, sha256: str | None) -> str:
    """A validator that differs for every file that an event has had.

    The checksum is a strong one. Without it, URI and size make a weak one: a stored file is never
    changed under its URI, but an event's link may come to name another file of the same size.
    """
    if sha256 is not None:
        return f'"{sha256}"'
    return f'W/"{hashlib.sha256(uri.encode()).hexdigest()[:32]}-{size:x}"'


def _unchanged(if_range: str | None, etag: str) -> bool:
    """Whether the part that the client has is of this file; a date is too coarse to prove it."""
    return if_range is None or (if_range.strip() == etag and not etag.startswith("W/"))


async def _chunks(reader: Reader, span: Span) -> AsyncIterator[bytes]:
    try:
        await to_thread.run_sync(reader.seek, span.first)
        left = span.length
        while left:
            chunk = await to_thread.run_sync(reader.read, min(left, _CHUNK_BYTES))
            if not chunk:  # truncated meanwhile: the client gets too few bytes and retries
                return
            left -= len(chunk)
            yield chunk
    finally:
        reader.close()
