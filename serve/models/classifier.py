"""The clip classifier as a Ray Serve deployment: placement and health, no more."""

from __future__ import annotations

from ray import serve

from serve.models.deployments import NO_ACCESS_LOG, model_application
from storeguard.classification.clips.service import ClassifierService, ClipAnswer, ClipBatch
from storeguard.config.models import ClassifierSettings
from storeguard.engines.loading import load_clip_classifier
from storeguard.inference.batcher import BatcherStats


class _Classifier:
    def __init__(self, settings: ClassifierSettings) -> None:
        self._service = ClassifierService(load_clip_classifier(settings), settings)

    async def classify(self, batch: ClipBatch) -> ClipAnswer:
        return await self._service.classify(batch)

    async def stats(self) -> BatcherStats:
        return self._service.stats()

    async def check_health(self) -> None:
        await self._service.check()


# Not written as a decorator: a decorated class is pickled by value, with copies of its globals.
Classifier = serve.deployment(
    name="Classifier",
    max_ongoing_requests=64,
    health_check_period_s=20,
    health_check_timeout_s=60,
    graceful_shutdown_timeout_s=5,
    logging_config=NO_ACCESS_LOG,
)(_Classifier)


def classifier_application(
    settings: ClassifierSettings, resources: dict[str, float]
) -> serve.Application:
    """The clip classifier bound to its settings and placed where its resources are."""
    return model_application(Classifier, settings, resources)
