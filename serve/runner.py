"""Runs a store from the command line: starts Ray and the application, and stops both."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.naming import NAMESPACE, actor_name
from serve.app import APP_NAME, build
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock
from storeguard.config.store import StoreConfig

_ANSWER_S = 30.0
_REACHABLE_S = 60.0
_STOP_S = 120.0  # with clips that cameras are still finishing


@dataclass(slots=True)
class RunningStore:
    """A store that is up.

    Attributes:
        url: the API's and dashboard's address.
        supervisor: the actor that runs the cameras.
    """

    url: str
    supervisor: ActorHandle[Any]
    _last: list[CameraStatus] = field(default_factory=list)

    def cameras(self) -> list[CameraStatus]:
        """The cameras' status; the last known one if the supervisor does not answer."""
        with contextlib.suppress(RayError):
            self._last = ray.get(self.supervisor.cameras.remote(), timeout=_ANSWER_S)
        return self._last


@contextlib.contextmanager
def running_store(
    config: StoreConfig,
    *,
    ray_address: str | None = None,
    say: Callable[[str], None],
    clock: Clock | None = None,
) -> Iterator[RunningStore]:
    """Start a store, and stop all that was started.

    Args:
        config: the store.
        ray_address: an existing cluster; None starts a local one for this run.
        say: called with a line for each step of starting and stopping.
        clock: the store's clock; None is the machine's.
    """
    started = time.monotonic()
    say("starting Ray" if ray_address is None else f"connecting to Ray at {ray_address}")
    init_ray(ray_address)
    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            http_options={"host": config.api.host, "port": config.api.port},
            proxy_location="HeadOnly",
            logging_config=_quiet_logging(),
        )
        say("loading the detector and connecting the cameras")
        serve.run(
            build(config, clock=clock),
            name=APP_NAME,
            route_prefix="/",
            logging_config=_quiet_logging(),
        )
        supervisor = ray.get_actor(actor_name(config.store, "supervisor"), namespace=NAMESPACE)
        with contextlib.suppress(RayError):  # only information: the store runs without it
            overrides: list[str] = ray.get(supervisor.overrides.remote(), timeout=_ANSWER_S)
            for override in overrides:
                say(override)
        host = f"[{config.api.host}]" if ":" in config.api.host else config.api.host
        url = f"http://{host}:{config.api.port}"
        # On a cluster, HTTP is on the head node, which this machine may not reach.
        reachable = ray_address is not None or _answers(url)
        up = "up" if reachable else "started, but its HTTP does not answer yet,"
        say(f"{up} after {time.monotonic() - started:.0f} s")
        yield RunningStore(url, supervisor)
    finally:
        say("stopping")
        stop_store(config.store)
        ray.shutdown()


def _answers(url: str) -> bool:
    """Wait until the API answers through Serve's proxy; False if it does not within 60 s."""
    until = time.monotonic() + _REACHABLE_S
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{url}/healthz", timeout=_ANSWER_S, trust_env=False)
            if "json" in answer.headers.get(
                "content-type", ""
            ):  # errors of the proxy itself are text
                return True
        time.sleep(0.1)
    return False


def stop_store(store_id: str) -> None:
    """Stop a store's cameras, rules and HTTP API; all accepted events are on disk."""
    with contextlib.suppress(ValueError, RayError):
        supervisor = ray.get_actor(actor_name(store_id, "supervisor"), namespace=NAMESPACE)
        ray.get(supervisor.stop.remote(), timeout=_STOP_S)
        serve.delete(APP_NAME)  # the cluster may serve other applications too
        ray.kill(supervisor)


def init_ray(address: str | None) -> None:
    """Connect to a cluster, or start a local one (None), whose workers import this code."""
    root = str(Path(__file__).resolve().parent.parent)
    # Workers import the same code, whether it is installed or run from a checkout.
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # Cameras and models run in Ray's workers, so these are as urgent as all else on the machine.
    system = {"worker_niceness": 0} if address is None else None
    ray.init(
        address=address or "local",
        _system_config=system,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        runtime_env={
            "env_vars": {
                "PYTHONPATH": os.pathsep.join(paths),
                "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.api.newest.proxy_middlewares",
            }
        },
    )


def _quiet_logging() -> dict[str, Any]:
    return {"log_level": "WARNING", "enable_access_log": False}


def free_port(host: str, preferred: int) -> int:
    """The preferred port if it can be bound, else any free one.

    Args:
        host: address to bind.
        preferred: 0 for any.
    """
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                bound: int = probe.getsockname()[1]
                return bound
    return preferred
