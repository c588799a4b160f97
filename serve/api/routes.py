"""The HTTP API as a plain FastAPI application. No Ray: what is behind it is passed in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

from serve.api import problems
from serve.api.cameras import cameras_router
from serve.api.converted import ConvertedClips
from serve.api.dashboard import dashboard_router
from serve.api.docs import docs_page
from serve.api.events import events_router
from serve.api.guard import Guard, session_router
from serve.api.health import health_router
from serve.api.pictures import pictures_router
from serve.api.protocols import CameraControl, EventSource, HealthCheck, Objects
from storeguard.config.store import ApiSettings

PREFIX: Final = "/api/v1"
DASHBOARD_PATHS: Final = frozenset({"/", "/dashboard/", "/favicon.ico"})


def create_api(
    *,
    events: EventSource,
    cameras: CameraControl,
    objects: Objects,
    converted: ConvertedClips,
    settings: ApiSettings,
    health: HealthCheck,
    routers: Sequence[APIRouter] = (),
    public: Collection[str] = DASHBOARD_PATHS,
) -> FastAPI:
    """Build the API.

    Args:
        events: where events are found.
        cameras: the running cameras.
        objects: where clips and snapshots are.
        converted: clips in a codec that was requested.
        settings: token, bind address and rate of the live view.
        health: reports the state of the other parts.
        routers: further routes under ``/api/v1``, such as analytics.
        public: paths besides ``/healthz`` that need no token: those of the dashboard, whose page
            has the login. A path ending in ``/`` stands for all below it, except ``/`` itself.
    """
    app = FastAPI(
        title="Storeguard",
        description="People, dwell, events and clips of a store's cameras.",
        version=_version(),
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(Guard, settings=settings, public={"/healthz", *public})
    for router in (
        events_router(events, objects, converted),
        cameras_router(cameras),
        pictures_router(cameras, live_fps=settings.live_fps),
        session_router(settings),
        *routers,
    ):
        app.include_router(router, prefix=PREFIX)
    app.include_router(
        health_router(events=events, cameras=cameras, health=health, settings=settings)
    )
    app.include_router(dashboard_router())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    return app


def _version() -> str:
    try:
        return version("storeguard")
    except PackageNotFoundError:
        return "0"
