"""Runs a store from the command line: starts Ray and the application, and stops both."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
import ray
from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.naming import NAMESPACE, actor_name
from serve.app import APP_NAME, RUN_HEADER, build
from storeguard.camera.status import CameraStatus
from storeguard.clock import Clock
from storeguard.config.store import ApiSettings, StoreConfig
from storeguard.errors import ConfigError, StoreError

_ANSWER_S = 30.0
_REACHABLE_S = 60.0
_LOOK_S = 0.2
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

    Raises:
        ConfigError: `api.port` is in use on this machine.
        StoreError: another program answers at the store's address.
    """
    started = time.monotonic()
    if ray_address is None:
        require_free_port(config.api)
    run_id = uuid.uuid4().hex
    say("starting Ray" if ray_address is None else f"connecting to Ray at {ray_address}")
    with _own_sigterm():
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
            build(config, clock=clock, run_id=run_id),
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
        reachable = ray_address is not None or _answers(url, run_id)
        up = "up" if reachable else "started, but its HTTP does not answer yet,"
        say(f"{up} after {time.monotonic() - started:.0f} s")
        yield RunningStore(url, supervisor)
    finally:
        say("stopping")
        if not _stop_unless_ray_is_dead(config.store):
            say("Ray was ended from outside; what was unfinished is completed at the next start")
            _end_without_ray()
        ray.shutdown()


def _answers(url: str, run_id: str) -> bool:
    """Wait until the API answers through Serve's proxy; False if it does not within 60 s.

    Raises:
        StoreError: something else answers, such as another store.
    """
    until = time.monotonic() + _REACHABLE_S
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{url}/healthz", timeout=_ANSWER_S, trust_env=False)
            # Errors of Serve's proxy itself are text.
            if "json" in answer.headers.get("content-type", ""):
                if answer.headers.get(RUN_HEADER) != run_id:
                    raise StoreError(f"{url}: expected this store, found another one that answers")
                return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this program's handler of SIGTERM where Ray installs one that aborts the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _stop_unless_ray_is_dead(store_id: str) -> bool:
    """Stop the store; False as soon as a local Ray's own processes have died."""
    stopping = threading.Thread(target=stop_store, args=(store_id,), daemon=True)
    stopping.start()
    while stopping.is_alive():
        stopping.join(_LOOK_S)
        if _local_node().dead_processes():
            return False
    return True


def _end_without_ray() -> NoReturn:
    """End this process: without its other processes, Ray's shutdown waits a minute and aborts."""
    with contextlib.suppress(Exception):
        _local_node().kill_all_processes(check_alive=False, allow_graceful=False)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + signal.SIGTERM)


def _local_node() -> Any:
    return ray._private.worker._global_node  # noqa: SLF001 - there is no public way


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


def require_free_port(api: ApiSettings) -> None:
    """Check that the HTTP server's port can be bound.

    Serve's proxies share a port, so that two stores on one would each get half of the requests.

    Raises:
        ConfigError: it is in use, or the address is not one of this machine.
    """
    try:
        _bind(api.host, api.port)
    except OSError as error:
        raise ConfigError(
            f"api.port: {api.host} port {api.port} cannot be used: {error.strerror}; stop the "
            "program that uses it, or set another port"
        ) from None


def free_port(host: str, preferred: int) -> int:
    """The preferred port if it can be bound, else any free one.

    Args:
        host: address to bind.
        preferred: 0 for any.
    """
    for port in (preferred, 0):
        with contextlib.suppress(OSError):
            return _bind(host, port)
    return preferred


def _bind(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        bound: int = probe.getsockname()[1]
        return bound
