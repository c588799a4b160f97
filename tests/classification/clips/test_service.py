"""The clip classifier behind its batcher, with a real (small) model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storeguard.classification.clips.classifier import ClipClassifier
from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX
from storeguard.classification.clips.service import ClassifierService, ClipBatch
from storeguard.config.models import ClassifierSettings
from storeguard.engines.loading import load_clip_classifier
from storeguard.errors import ModelError
from tests.classification.clips.clip_models import save_clip_model
from tests.inference.gated_backend import PATIENCE_S, GatedBackend, until


def batch(camera_id: str, *reds: int) -> ClipBatch:
    clips = np.zeros((len(reds), CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8)
    clips[..., 0] = np.array(reds).reshape(-1, 1, 1, 1)
    return ClipBatch(camera_id, clips)


def red_of(probability: float | None) -> int | None:
    """The red that the model saw."""
    if probability is None:
        return None
    logit = np.log(probability / (1 - probability))
    return round((logit * 0.229 + 0.485) * 255)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip_model(tmp_path_factory.mktemp("models") / "red.onnx")


@pytest.fixture
def settings(model: Path) -> ClassifierSettings:
    return ClassifierSettings(model=str(model), max_batch=4, max_wait_ms=1, max_queue=3)


@pytest.fixture
def backend(settings: ClassifierSettings) -> Iterator[GatedBackend]:
    opened = GatedBackend(settings.model)
    yield opened
    opened.gate.set()


async def busy(service: ClassifierService, backend: GatedBackend) -> asyncio.Task[Any]:
    """A call whose batch is running and held up."""
    backend.gate.clear()
    task = asyncio.create_task(service.classify(batch("z", 9)))
    await until(lambda: service.stats().submitted and not service.stats().waiting)
    return task


def test_clips_of_several_cameras_are_classified_together(
    settings: ClassifierSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = ClassifierService(ClipClassifier(settings, backend), settings)
        first = await busy(service, backend)
        one = asyncio.create_task(service.classify(batch("a", 10, 20)))
        other = asyncio.create_task(service.classify(batch("b", 30)))
        await until(lambda: service.stats().waiting == 3)
        backend.gate.set()
        answers = await asyncio.gather(first, one, other)
        await service.close(PATIENCE_S)

        reds = [[red_of(one) for one in answer.probability] for answer in answers]
        assert reds == [[9], [10, 20], [30]]
        assert {answer.by for answer in answers} == {service.info}
        assert service.info.name == "red"
        assert service.stats().batches == 2  # one alone, the three others together
        assert service.stats().answered == 4

    asyncio.run(main())


def test_refused_clips_are_marked_and_the_rest_are_answered(
    settings: ClassifierSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = ClassifierService(ClipClassifier(settings, backend), settings)
        first = await busy(service, backend)
        late = asyncio.create_task(service.classify(batch("a", 10, 20, 30, 40, 50)))
        await until(lambda: service.stats().refused == 2)
        backend.gate.set()
        answer = await late
        await first
        await service.close(PATIENCE_S)
        # the oldest are refused
        assert [red_of(one) for one in answer.probability] == [None, None, 30, 40, 50]

    asyncio.run(main())


def test_close_answers_those_who_wait(settings: ClassifierSettings, backend: GatedBackend) -> None:
    async def main() -> None:
        service = ClassifierService(ClipClassifier(settings, backend), settings)
        first = await busy(service, backend)
        late = asyncio.create_task(service.classify(batch("a", 10, 20)))
        await until(lambda: service.stats().waiting == 2)
        closing = asyncio.create_task(service.close(PATIENCE_S))
        assert (await late).probability == (None, None)
        backend.gate.set()
        await closing
        assert [red_of(one) for one in (await first).probability] == [9]
        assert (await service.classify(batch("a", 1))).probability == (None,)

    asyncio.run(main())


def test_a_model_that_fails_fails_the_call_and_not_the_service(
    settings: ClassifierSettings, tmp_path: Path
) -> None:
    async def main() -> None:
        odd = save_clip_model(tmp_path / "odd.onnx", gain=1.56e38)
        changed = settings.model_copy(update={"model": str(odd)})
        service = ClassifierService(load_clip_classifier(changed), changed)
        for _ in range(2):
            with pytest.raises(ModelError, match="one finite logit"):
                await service.classify(batch("a", 255))
        await service.close(PATIENCE_S)
        assert service.stats().failed == 2

    asyncio.run(main())


def test_the_health_check_infers_and_has_a_deadline(
    settings: ClassifierSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = ClassifierService(ClipClassifier(settings, backend), settings)
        await service.check(deadline_s=PATIENCE_S)
        assert service.stats().submitted == 0
        backend.gate.clear()
        with pytest.raises(TimeoutError):
            await service.check(deadline_s=0.05)
        backend.gate.set()
        await service.check(deadline_s=PATIENCE_S)  # it recovers with the model
        await service.close(PATIENCE_S)

    asyncio.run(main())


@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((1, 8, SIDE_PX, SIDE_PX, 3), np.uint8),
        np.zeros((1, CLIP_FRAMES, 3, SIDE_PX, SIDE_PX), np.uint8),
        np.zeros((1, CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.float32),
        np.zeros((CLIP_FRAMES, SIDE_PX, SIDE_PX, 3), np.uint8),
    ],
    ids=["too short", "channels first", "floats", "no batch"],
)
def test_clips_of_another_shape_are_refused(odd: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"camera 'a': expected clips \(n, 16, 224, 224, 3\)"):
        ClipBatch("a", odd)
