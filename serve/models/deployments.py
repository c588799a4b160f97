"""Settings that all models' deployments share."""

from __future__ import annotations

from typing import Any, Final

from ray import serve

from storeguard.config.models import AttributeSettings, ClassifierSettings, DetectorSettings

NO_ACCESS_LOG: Final = {"enable_access_log": False}
"""A line for each call would be several a second for each camera."""

Served = DetectorSettings | ClassifierSettings | AttributeSettings


def model_application(
    deployment: serve.Deployment, settings: Served, resources: dict[str, float], **options: Any
) -> serve.Application:
    """A deployment bound to its settings, its only argument, where its resources are.

    Args:
        deployment: the class that Serve runs.
        settings: the model, the number of replicas and their processors.
        resources: custom Ray resources of a replica.
        options: further options of `Deployment.options`.
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
