"""The wiring: detector, supervisor and HTTP API, as one Ray Serve application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.models import Models
from actors.naming import NAMESPACE, actor_name
from actors.supervisor import Supervisor
from serve.api.analytics import analytics_router
from serve.api.converted import ConvertedClips
from serve.api.marks import marks_router
from serve.api.routes import create_api
from serve.models.attribute import attribute_application
from serve.models.classifier import classifier_application
from serve.models.detector import detector_application
from serve.supervised import SupervisedAnalytics, SupervisedCameras, SystemHealth
from serve.supervisor_lease import SupervisorLease
from storeguard.clock import Clock
from storeguard.config.loading import resolve_paths
from storeguard.config.store import ApiSettings, StoreConfig
from storeguard.events.store import EventReader
from storeguard.storage.objects import object_store

APP_NAME = "storeguard"
RUN_HEADER = "x-storeguard-run"
"""Header of every response: which run of a store it is from."""


class NamedRun:
    """ASGI middleware: names the run in every response.

    Args:
        app: the application.
        run_id: which run of a store this is.
    """

    def __init__(self, app: ASGIApp, run_id: str) -> None:
        self._app = app
        self._run_id = run_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[RUN_HEADER] = self._run_id
            await send(message)

        await self._app(scope, receive, named)


class _Api:
    """The HTTP API's replica: finds or starts the supervisor and keeps its lease."""

    def __init__(
        self,
        config: StoreConfig,
        detector: DeploymentHandle[Any],
        classifier: DeploymentHandle[Any] | None = None,
        attributes: Mapping[str, DeploymentHandle[Any]] | None = None,
        *,
        clock: Clock | None = None,
        run_id: str | None = None,
    ) -> None:
        self._config = config
        self._run_id = run_id
        self._models = Models(detector, classifier, attributes or {})
        self._supervisor = supervisor_of(config, self._models, clock=clock)
        self._lease = SupervisorLease(self._supervisor)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        await self._supervisor.start.remote()
        store_url = await self._supervisor.store_url.remote()
        cameras = SupervisedCameras(self._supervisor)
        reader = EventReader(store_url)
        objects = object_store(self._config)
        app = create_api(
            events=reader,
            cameras=cameras,
            objects=objects,
            converted=ConvertedClips(self._config.data_dir / "converted-clips", objects),
            settings=self._config.api,
            health=SystemHealth(self._supervisor, self._models),
            routers=[
                marks_router(cameras),
                analytics_router(
                    SupervisedAnalytics(self._supervisor),
                    attributes=[attribute.name for attribute in self._config.attributes],
                ),
            ],
        )
        app.router.lifespan_context = self._while_serving(reader)
        if self._run_id is not None:
            app.add_middleware(NamedRun, run_id=self._run_id)
        return app

    def _while_serving(
        self, reader: EventReader
    ) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            renewing = asyncio.create_task(self._lease.keep())
            try:
                yield
            finally:
                renewing.cancel()
                await reader.close()

        return lifespan

    async def check_health(self) -> None:
        """Fail once the supervisor is dead: Serve then starts a new replica, and that a new one."""
        self._lease.check()


Api = serve.deployment(
    name="Api",
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0},
    graceful_shutdown_timeout_s=5,
)(serve.ingress()(_Api))


def supervisor_of(config: StoreConfig, models: Models, *, clock: Clock | None = None) -> Any:
    """The store's supervisor, started on this node if it is not running yet."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(Supervisor)
        .options(
            name=actor_name(config.store, "supervisor"),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=64,
            num_cpus=0,
            scheduling_strategy=here,
        )
        .remote(config, models, clock=clock)
    )


def set_serve_defaults(api: ApiSettings) -> None:
    """Make `api.host` and `api.port` what `serve run` binds, which has no options for them.

    It applies to a Serve that this process starts. One that runs already keeps its own.
    """
    HTTPOptions.model_fields["host"].default = api.host
    HTTPOptions.model_fields["port"].default = api.port
    HTTPOptions.model_rebuild(force=True)


def build(
    config: StoreConfig, *, clock: Clock | None = None, run_id: str | None = None
) -> serve.Application:
    """The application: the API and behind it the detector and the other models of the store.

    Args:
        config: the store.
        clock: the clock of cameras, rules and recorders; None is the machine's.
        run_id: names this run in the header `RUN_HEADER` of responses; None names none.
    """
    resolved = resolve_paths(config)
    detector = detector_application(resolved.detector, resolved.placement.detector_resources)
    classifier = (
        classifier_application(resolved.classifier, resolved.placement.classifier_resources)
        if resolved.classifies
        else None
    )
    attributes = {
        attribute.name: attribute_application(attribute, resolved.placement.attribute_resources)
        for attribute in resolved.attributes
    }
    return Api.bind(resolved, detector, classifier, attributes, clock=clock, run_id=run_id)
