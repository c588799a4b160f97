"""Detector calls: one result for each frame, in order, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storeguard.camera.detector_calls import Detected, DetectorCalls, Undetected, render
from storeguard.detection.letterbox import Fit, place
from storeguard.detection.service import Found, FrameBatch
from storeguard.video.frame import Frame
from tests.camera.group_harness import INFO, REFUSED, Detector
from tests.camera.held_clock import NEVER_S
from tests.camera.made_frames import made_frame


class Harmed(Detector):
    """Fails in one way."""

    def __init__(self, harm: str | None) -> None:
        super().__init__()
        self.harm = harm

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        found = list(await super().detect(batch))
        match self.harm:
            case "fails":
                raise ConnectionError("the replica died")
            case "hangs":
                await asyncio.sleep(NEVER_S)
            case "answers short":
                return found[:-1]
            case "refuses the first":
                return [REFUSED, *found[1:]]
        return found


def outcomes(detector: Detector, *, timeout_s: float = NEVER_S) -> list[str]:
    """Of five frames in one call: "detected", or why not."""

    async def scenario() -> list[str]:
        frames = [made_frame(index) for index in range(5)]
        with ThreadPoolExecutor(1) as pool:
            calls = DetectorCalls(INFO, detector.detect, pool=pool, timeout_s=timeout_s)
            results = await calls.results(frames)
        assert [result.frame for result in results] == frames
        return [one.cause.value if isinstance(one, Undetected) else "detected" for one in results]

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (None, ["detected"] * 5),
        ("fails", ["detector_error"] * 5),
        ("hangs", ["detector_timeout"] * 5),
        ("answers short", ["detector_error"] * 5),
        ("refuses the first", ["detector_full"] + ["detected"] * 4),
    ],
)
def test_each_frame_has_a_result(harm: str | None, expected: list[str]) -> None:
    timeout_s = 0.01 if harm == "hangs" else NEVER_S
    assert outcomes(Harmed(harm), timeout_s=timeout_s) == expected


@pytest.mark.parametrize("harm", [None, "fails"])
@pytest.mark.parametrize("bad", [{2}, {0, 4}, {0, 1, 2, 3, 4}])
def test_frames_that_cannot_be_scaled_do_not_travel(
    monkeypatch: pytest.MonkeyPatch, bad: set[int], harm: str | None
) -> None:
    def choosy(frame: Frame, where: Fit, canvas: Any) -> None:
        if frame.index in bad:
            raise ValueError("no such picture")
        place(frame, where, canvas)

    monkeypatch.setattr("storeguard.camera.detector_calls.place", choosy)
    detector = Harmed(harm)
    answered = "detector_error" if harm else "detected"
    assert outcomes(detector) == ["undecodable" if n in bad else answered for n in range(5)]
    assert detector.num_frames == 5 - len(bad)


def test_a_call_without_memory_for_its_pictures_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("storeguard.camera.detector_calls.render", short_of_memory)
    assert outcomes(Detector()) == ["detector_error"] * 5


def test_detections_come_with_the_way_back_to_the_frame() -> None:
    (fit,) = render([made_frame(0)], INFO).fits
    assert fit == INFO.fit((16, 16))

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            calls = DetectorCalls(INFO, Detector().detect, pool=pool, timeout_s=NEVER_S)
            (result,) = await calls.results([made_frame(0)])
        assert isinstance(result, Detected)
        assert result.fit == fit
        assert result.fit.to_source(result.detections).xyxy.tolist() == [[4, 4, 12, 12]]

    asyncio.run(scenario())
