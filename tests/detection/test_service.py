"""The detector behind its batcher, with real (small) models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storeguard.config.models import DetectorSettings
from storeguard.detection.detector import Detector
from storeguard.detection.service import DetectorService, Found, FrameBatch
from tests.detection.small_models import save_mirror
from tests.inference.gated_backend import PATIENCE_S, GatedBackend, until

SIDE = 64


def images(*greys: int) -> np.ndarray:
    return np.stack([np.full((SIDE, SIDE, 3), grey, np.uint8) for grey in greys])


def grey_of(found: Found) -> int:
    """The grey level that the mirror model saw."""
    assert found.detections is not None
    return round(float(found.detections.xyxy[0, [0, 2]].mean()))


@pytest.fixture
def settings(tmp_path: Path) -> DetectorSettings:
    model = save_mirror(tmp_path / "mirror.onnx", metadata={"pixels": "bytes"})
    return DetectorSettings(
        model=str(model), input_size=SIDE, max_batch=4, max_wait_ms=1, max_queue=3
    )


@pytest.fixture
def backend(settings: DetectorSettings) -> Iterator[GatedBackend]:
    opened = GatedBackend(settings.model)
    yield opened
    opened.gate.set()


def test_each_frame_gets_its_own_answer_in_order(
    settings: DetectorSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        wide = settings.model_copy(update={"max_queue": 64})
        service = DetectorService(Detector(wide, backend), wide)
        cameras = tuple("abcabcabc")
        one = service.detect(FrameBatch(cameras, images(*range(10, 19))))
        other = service.detect(FrameBatch(("a", "d"), images(50, 51)))
        first, second = await asyncio.gather(one, other)
        await service.close(PATIENCE_S)

        assert [grey_of(found) for found in first] == list(range(10, 19))
        assert [grey_of(found) for found in second] == [50, 51]
        assert all(1 <= found.batch_size <= 4 for found in first)
        assert all(found.timing is not None and found.timing.infer_ms > 0 for found in first)
        assert service.stats().answered == 11

    asyncio.run(main())


def test_refused_frames_are_marked_and_the_rest_are_answered(
    settings: DetectorSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = DetectorService(Detector(settings, backend), settings)
        backend.gate.clear()
        busy = asyncio.create_task(service.detect(FrameBatch(("z",), images(9))))
        await until(lambda: service.stats().submitted and not service.stats().waiting)
        late = asyncio.create_task(service.detect(FrameBatch(("a",) * 5, images(1, 2, 3, 4, 5))))
        await until(lambda: service.stats().refused)
        backend.gate.set()
        found = await late
        await busy
        await service.close(PATIENCE_S)

        refused = [one for one in found if one.detections is None]
        assert [one.detections is None for one in found] == [True, True, False, False, False]
        assert all((one.timing, one.batch_size) == (None, 0) for one in refused)
        assert [grey_of(one) for one in found[2:]] == [3, 4, 5]

    asyncio.run(main())


def test_the_health_check_infers_and_takes_no_place_in_the_queue(
    settings: DetectorSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = DetectorService(Detector(settings, backend), settings)
        await service.check(deadline_s=PATIENCE_S)
        assert service.stats().submitted == 0

        # a full queue is no fault: the check waits for the running batch only
        backend.gate.clear()
        busy = asyncio.create_task(service.detect(FrameBatch(("z",), images(9))))
        await until(lambda: service.stats().submitted and not service.stats().waiting)
        work = asyncio.create_task(service.detect(FrameBatch(("a",) * 9, images(*range(9)))))
        await until(lambda: service.stats().refused)
        assert service.stats().waiting == 3
        check = asyncio.create_task(service.check(deadline_s=PATIENCE_S))
        await asyncio.sleep(0.01)
        backend.gate.set()
        await check
        await asyncio.gather(busy, work)
        await service.close(PATIENCE_S)

    asyncio.run(main())


def test_the_health_check_fails_when_the_model_hangs(
    settings: DetectorSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = DetectorService(Detector(settings, backend), settings)
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
        np.zeros((1, 32, SIDE, 3), np.uint8),
        np.zeros((1, 3, SIDE, SIDE), np.uint8),
        np.zeros((1, SIDE, SIDE, 3), np.float32),
    ],
    ids=["another size", "channels first", "floats"],
)
def test_pictures_of_another_shape_are_refused_before_they_spoil_a_batch(
    odd: np.ndarray, settings: DetectorSettings, backend: GatedBackend
) -> None:
    async def main() -> None:
        service = DetectorService(Detector(settings, backend), settings)
        bad = service.detect(FrameBatch(("bad",), odd))
        good = service.detect(FrameBatch(("good",), images(77)))
        outcome, found = await asyncio.gather(bad, good, return_exceptions=True)
        await service.close(PATIENCE_S)

        assert isinstance(outcome, ValueError)
        assert "cameras bad: expected images (n, 64, 64, 3) uint8" in str(outcome)
        assert grey_of(found[0]) == 77

    asyncio.run(main())


def test_close_answers_those_who_wait(settings: DetectorSettings, backend: GatedBackend) -> None:
    async def main() -> None:
        service = DetectorService(Detector(settings, backend), settings)
        backend.gate.clear()
        busy = asyncio.create_task(service.detect(FrameBatch(("z",), images(9))))
        await until(lambda: service.stats().submitted and not service.stats().waiting)
        late = asyncio.create_task(service.detect(FrameBatch(("a", "b"), images(1, 2))))
        await asyncio.sleep(0.001)
        closing = asyncio.create_task(service.close(PATIENCE_S))

        assert [one.detections for one in await late] == [None, None]
        backend.gate.set()
        await closing
        assert grey_of((await busy)[0]) == 9

    asyncio.run(main())


def test_a_batch_checks_its_own_shape() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, height, width, 3\)"):
        FrameBatch(("a", "b"), images(1))
