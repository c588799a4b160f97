"""The detector as a Ray Serve deployment: placement and health around `DetectorService`."""

from __future__ import annotations

from ray import serve

from serve.models.deployments import NO_ACCESS_LOG, model_application
from storeguard.config.models import DetectorSettings
from storeguard.detection.detector import DetectorInfo
from storeguard.detection.service import DetectorService, Found, FrameBatch
from storeguard.engines.loading import load_detector
from storeguard.inference.batcher import BatcherStats


class _Detector:
    def __init__(self, settings: DetectorSettings) -> None:
        self._service = DetectorService(load_detector(settings), settings)

    async def info(self) -> DetectorInfo:
        return self._service.info

    async def detect(self, batch: FrameBatch) -> tuple[Found, ...]:
        return await self._service.detect(batch)

    async def stats(self) -> BatcherStats:
        return self._service.stats()

    async def check_health(self) -> None:
        await self._service.check()


# Not written as a decorator: a decorated class is pickled by value, with copies of its globals.
Detector = serve.deployment(
    name="Detector",
    # A replica takes as many calls as its batcher can use; the batcher bounds and refuses.
    max_ongoing_requests=256,
    health_check_period_s=10,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=5,
    logging_config=NO_ACCESS_LOG,
)(_Detector)


def detector_application(
    settings: DetectorSettings, resources: dict[str, float]
) -> serve.Application:
    """The detector bound to its settings and placed where its resources are."""
    return model_application(Detector, settings, resources)
