"""An attribute's classifier as a Ray Serve deployment: placement and health, no more."""

from __future__ import annotations

from ray import serve

from serve.models.deployments import NO_ACCESS_LOG, model_application
from storeguard.classification.attributes.service import AttributeService, CropAnswer, CropBatch
from storeguard.config.models import AttributeSettings
from storeguard.engines.loading import load_attribute_classifier
from storeguard.inference.batcher import BatcherStats


class _Attribute:
    def __init__(self, settings: AttributeSettings) -> None:
        self._service = AttributeService(load_attribute_classifier(settings), settings)

    async def label(self, batch: CropBatch) -> CropAnswer:
        return await self._service.label(batch)

    async def stats(self) -> BatcherStats:
        return self._service.stats()

    async def check_health(self) -> None:
        await self._service.check()


# Not written as a decorator: a decorated class is pickled by value, with copies of its globals.
Attribute = serve.deployment(
    name="Attribute",
    max_ongoing_requests=64,
    health_check_period_s=20,
    health_check_timeout_s=60,
    graceful_shutdown_timeout_s=5,
    logging_config=NO_ACCESS_LOG,
)(_Attribute)


def attribute_application(
    settings: AttributeSettings, resources: dict[str, float]
) -> serve.Application:
    """An attribute's classifier as a separate deployment, placed where its resources are."""
    return model_application(Attribute, settings, resources, name=f"Attribute-{settings.name}")
