"""The dashboard's files, at `/` and `/dashboard/`, with validators and a content policy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from storeguard.errors import NotFoundError

FOLDER: Final = Path(__file__).parents[1] / "dashboard"
_PAGE: Final = "index.html"
_ICON: Final = "favicon.svg"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Only our own files: nothing inline, nothing from other hosts, no framing. And no text becomes HTML
# or script (trusted types without a policy), whatever the name of a camera or zone contains.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    headers: dict[str, str]


def dashboard_router(folder: Path = FOLDER) -> APIRouter:
    """The routes of the dashboard, at the root.

    Args:
        folder: its files; read once, so that a running server never serves half an update.
    """
    router = APIRouter(include_in_schema=False)
    assets = {
        path.name: _asset(path) for path in sorted(folder.iterdir()) if path.suffix in _MEDIA_TYPES
    }

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(request, assets[_PAGE])

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    async def icon(request: Request) -> Response:
        return _answer(request, assets[_ICON])

    @router.api_route("/dashboard/{name}", methods=["GET", "HEAD"])
    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise NotFoundError(f"the dashboard has no file {name[:64]!r}")
        return _answer(request, assets[name])

    return router


def _asset(path: Path) -> _Asset:
    body = path.read_bytes()
    headers = {
        "Content-Type": _MEDIA_TYPES[path.suffix],
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        # Cached, but revalidated each time: page and modules must be of one version.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
    return _Asset(body, headers)


def _answer(request: Request, asset: _Asset) -> Response:
    known = request.headers.get("if-none-match", "")
    if asset.headers["ETag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=asset.headers)
    return Response(asset.body, headers=asset.headers)
