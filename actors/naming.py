"""How a store's actors are named, found and started."""

from __future__ import annotations

from typing import Any, Final

import ray
from ray.actor import ActorHandle

NAMESPACE: Final = "storeguard"
"""The Ray namespace of all stores' actors."""


def actor_name(store_id: str, role: str) -> str:
    """The name an actor is found by in the namespace `storeguard`."""
    return f"storeguard:{store_id}:{role}"


def spawn(
    kind: type,
    name: str,
    *args: Any,
    options: dict[str, Any],
    max_concurrency: int = 64,
    **kwargs: Any,
) -> ActorHandle[Any]:
    """The actor of a name: the one there is, or a new one that is restarted whenever it dies.

    Args:
        kind: its class.
        name: by which it is found.
        args, kwargs: for its constructor.
        options: resources and placement, as Ray names them.
        max_concurrency: calls it works on at once.
    """
    actor: Any = (
        ray.remote(kind)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=max_concurrency,
            **options,
        )
        .remote(*args, **kwargs)
    )
    handle: ActorHandle[Any] = actor
    return handle
