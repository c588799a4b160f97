"""Errors as RFC 9457 problem details: one shape for everything that is not a success."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from storeguard.config.addresses import redact
from storeguard.errors import (
    ConfigError,
    NotFoundError,
    OverloadedError,
    QueryError,
    RecordingError,
    StorageError,
    StoreError,
)

_log = logging.getLogger(__name__)

_SHOWN: Final = 80
_RETRY_AFTER_S: Final = 2
_STATUS: Final[Mapping[type[Exception], HTTPStatus]] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    QueryError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConfigError: HTTPStatus.UNPROCESSABLE_ENTITY,
    RecordingError: HTTPStatus.CONFLICT,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
    OverloadedError: HTTPStatus.SERVICE_UNAVAILABLE,
    ConnectionError: HTTPStatus.SERVICE_UNAVAILABLE,
    TimeoutError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class ConflictError(Exception):
    """The request is valid but conflicts with the present state."""


def problem(
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> JSONResponse:
    """A problem+json response.

    Args:
        status: HTTP status.
        detail: names what was wrong: expected and found.
        headers: further headers.
        errors: one entry a fault, for validation.
    """
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": redact(detail),
    }
    if errors:
        document["errors"] = errors
    more = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", str(_RETRY_AFTER_S))
    return JSONResponse(
        document, status_code=status, headers=more, media_type="application/problem+json"
    )


def install(app: FastAPI) -> None:
    """Respond to every error of the app with a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(Exception, _unexpected)
    for kind in _STATUS:
        app.add_exception_handler(kind, _ours)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    errors = [_fault(fault) for fault in error.errors()]
    detail = "; ".join(
        f"{fault['parameter']}: {fault['expected']} (found {fault['found']})"
        for fault in errors[:5]
    )
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors[:50])


def _fault(fault: Mapping[str, Any]) -> dict[str, str]:
    place, *path = fault["loc"]
    parameter = ".".join(str(part)[:_SHOWN] for part in path) or str(place)
    found = repr(fault.get("input"))
    if fault["type"] == "missing":
        found = "nothing"
    if len(found) > _SHOWN:
        found = f"{found[:_SHOWN]}..."
    message = str(fault["msg"]).removeprefix("Value error, ")
    return {"parameter": parameter, "in": str(place), "expected": message, "found": redact(found)}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is nothing at {request.url.path[:_SHOWN]!r}; /docs lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here; expected {allowed}"
    return problem(error.status_code, detail, headers=error.headers)


async def _conflict(_request: Request, error: Exception) -> JSONResponse:
    return problem(HTTPStatus.CONFLICT, str(error))


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return problem(status, str(error) or type(error).__name__)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "an internal error, described in the server's log"
    )
