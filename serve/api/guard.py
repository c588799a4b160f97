"""Who may use the API: bearer token or session cookie, own origin only, bodies of bounded size."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Collection
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.problems import problem
from storeguard.config.store import ApiSettings

COOKIE: Final = "storeguard_session"
MAX_BODY_BYTES: Final = 1 << 20
_SESSION_S: Final = 12 * 3600
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SESSION_PATH: Final = "/api/v1/session"
_TOO_LARGE: Final = f"body: expected at most {MAX_BODY_BYTES} bytes, found more"


def authenticated(settings: ApiSettings, headers: Headers) -> bool:
    """Whether the request carries the token, or a session cookie issued for it."""
    if settings.token is None:
        return True
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(credentials.strip(), settings.token):
        return True
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return False
    morsel = cookies.get(COOKIE)
    if morsel is None:
        return False
    expiry, _, _seal = morsel.value.partition(".")
    if not re.fullmatch(r"[0-9]{1,12}", expiry) or int(expiry) < time.time():
        return False
    return _same(morsel.value, _sealed(settings.token, expiry))


class Guard:
    """ASGI middleware: refuses requests that must not reach the API, before a body is read.

    Args:
        app: the guarded application.
        settings: token and bind address.
        public: paths that need no token; one ending in ``/`` stands for all below it.
    """

    def __init__(self, app: ASGIApp, *, settings: ApiSettings, public: Collection[str]) -> None:
        self._app = app
        self._settings = settings
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, _with_safe_headers(send))
            return
        await self._app(scope, _bounded(receive), _with_safe_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        name = _host_name(host)
        if self._settings.token is None and not (name == self._settings.host or _is_loopback(name)):
            # Without a token, a foreign page could reach the API under its own host name (DNS
            # rebinding); with one, it lacks the token.
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host: expected this machine (such as {self._settings.host}), found {host[:80]!r}",
            )
        if not _own_origin(headers, host, safe=scope["method"] in _SAFE):
            return problem(
                HTTPStatus.FORBIDDEN,
                f"Origin: expected the API's own origin, found {headers.get('origin', '')[:80]!r}",
            )
        if not self._is_public(scope["path"]) and not authenticated(self._settings, headers):
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "Authorization: expected 'Bearer <token>', or the session cookie that "
                f"POST {_SESSION_PATH} sets",
                headers={"WWW-Authenticate": 'Bearer realm="storeguard"'},
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return problem(HTTPStatus.BAD_REQUEST, f"Content-Length: no number: {length[:80]!r}")
        if len(length) > 15 or int(length) > MAX_BODY_BYTES:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
        return None

    def _is_public(self, path: str) -> bool:
        if path == _SESSION_PATH or path in self._public:
            return True
        return any(
            place != "/" and place.endswith("/") and path.startswith(place)
            for place in self._public
        )


class Login(BaseModel):
    """The bearer token, in exchange for a cookie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str = Field(max_length=4096)


def session_router(settings: ApiSettings) -> APIRouter:
    """Log in and out, for `<img>`, `<video>` and `EventSource`, which cannot send a token."""
    router = APIRouter(tags=["session"])

    @router.post("/session", status_code=HTTPStatus.NO_CONTENT)
    async def log_in(login: Login, request: Request) -> Response:
        """Exchange the bearer token for a session cookie (HttpOnly, same site, 12 hours)."""
        if settings.token is not None and not _same(login.token, settings.token):
            return problem(HTTPStatus.UNAUTHORIZED, "token: this is not the API's token")
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        if settings.token is not None:
            expiry = str(int(time.time()) + _SESSION_S)
            response.set_cookie(
                COOKIE,
                _sealed(settings.token, expiry),
                max_age=_SESSION_S,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
        return response

    @router.delete("/session", status_code=HTTPStatus.NO_CONTENT)
    async def log_out() -> Response:
        """Delete the session cookie."""
        response = Response(status_code=HTTPStatus.NO_CONTENT)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router


def _bounded(receive: Receive) -> Receive:
    left = MAX_BODY_BYTES

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
        return message

    return bounded


def _with_safe_headers(send: Send) -> Send:
    async def safe(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("X-Frame-Options", "SAMEORIGIN")
            headers.setdefault("Referrer-Policy", "same-origin")
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return safe


def _own_origin(headers: Headers, host: str, *, safe: bool) -> bool:
    if headers.get("sec-fetch-site") == "cross-site" and not (
        safe and headers.get("sec-fetch-mode") == "navigate"  # a link to us was followed
    ):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host


def _is_loopback(name: str) -> bool:
    """Whether a host name is this machine; one such as 127.0.0.1.example.com is not."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _sealed(token: str, expiry: str) -> str:
    seal = hmac.new(token.encode(), f"storeguard-session.{expiry}".encode(), hashlib.sha256)
    return f"{expiry}.{seal.hexdigest()}"


def _same(received: str, expected: str) -> bool:
    """Compare in constant time, for any characters."""
    return hmac.compare_digest(
        received.encode(errors="surrogateescape"), expected.encode(errors="surrogateescape")
    )
