"""Loading the models that settings name: the backend is opened, and handed to the model's class."""

from __future__ import annotations

import logging
from pathlib import Path

from storeguard.classification.attributes import classifier as attributes
from storeguard.classification.clips import classifier as clips
from storeguard.classification.clips.clip import SIDE_PX
from storeguard.config.models import AttributeSettings, ClassifierSettings, DetectorSettings
from storeguard.detection import detector as detection
from storeguard.engines.cache import EngineOptions
from storeguard.engines.choice import open_backend
from storeguard.inference.backend import Backend, available_cores

_log = logging.getLogger(__name__)

_DETECTOR_THREADS = 4  # measured with 2; more have to be set


def load_detector(settings: DetectorSettings) -> detection.Detector:
    """The person detector of these settings; one that finds nobody in the self-test is logged.

    Raises:
        ModelError, BackendUnavailableError: as from `storeguard.engines.choice.open_backend`.
        ModelLayoutError: its outputs fit no known layout.
    """
    backend = _opened(
        detection.model_path(settings.model),
        settings,
        threads=detector_threads(settings, cores=available_cores()),
        size_wh=detection.requested_wh(settings),
    )
    detector = detection.Detector(settings, backend)
    test = detector.info.self_test
    if test is not None and not test.found:
        _log.warning(
            "%s: %s; check detector.layout, pixels, channels and person_class",
            settings.model,
            test.describe(),
        )
    return detector


def load_clip_classifier(settings: ClassifierSettings) -> clips.ClipClassifier:
    """The clip classifier of these settings.

    Raises:
        ModelError, BackendUnavailableError: as from `storeguard.engines.choice.open_backend`.
    """
    path = clips.model_path(settings.model)
    backend = _opened(path, settings, threads=settings.threads, size_wh=(SIDE_PX, SIDE_PX))
    return clips.ClipClassifier(settings, backend)


def load_attribute_classifier(settings: AttributeSettings) -> attributes.AttributeClassifier:
    """The attribute classifier of these settings.

    Raises:
        ModelError, BackendUnavailableError: as from `storeguard.engines.choice.open_backend`.
    """
    path, side_px = attributes.model_path(settings.model), attributes.DEFAULT_SIDE_PX
    backend = _opened(path, settings, threads=settings.threads, size_wh=(side_px, side_px))
    return attributes.AttributeClassifier(settings, backend)


def detector_threads(settings: DetectorSettings, *, cores: int) -> int:
    """Threads inside one inference of the detector, on a machine with so many cores."""
    return settings.threads or max(int(settings.num_cpus), min(_DETECTOR_THREADS, cores))


def _opened(
    model: Path,
    settings: DetectorSettings | ClassifierSettings | AttributeSettings,
    *,
    threads: int,
    size_wh: tuple[int, int],
) -> Backend:
    options = EngineOptions(
        settings=settings.engines,
        precision=settings.precision,
        max_batch=settings.max_batch,
        size_wh=size_wh,
    )
    return open_backend(model, settings.backend, threads=threads, options=options)
