"""What the models' deployments have in common."""

from __future__ import annotations

from typing import Any, Final

from ray import serve

from storeguard.config.models import AttributeSettings, ClassifierSettings, DetectorSettings

NO_ACCESS_LOG: Final = {"enable_access_log": False}
"""One line a call would be several a second and camera."""


Served = DetectorSettings | ClassifierSettings | AttributeSettings


def place(
    deployment: serve.Deployment, settings: Served, resources: dict[str, float], **options: Any
) -> serve.Application:
    """A deployment bound to its settings, its only argument, where its resources are.

    Args:
        deployment: the class as Serve runs it.
        settings: what it serves, and how many replicas with what processors.
        resources: custom Ray resources of a replica.
        options: others, as Serve names them.
    """
    return deployment.options(
        num_replicas=settings.replicas,
        ray_actor_options={
            "num_cpus": settings.num_cpus,
            "num_gpus": settings.num_gpus,
            "resources": resources,
        },
        **options,
    ).bind(settings)
