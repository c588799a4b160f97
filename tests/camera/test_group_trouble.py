"""Cameras whose detector is in trouble, or some of whose frames are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from storeguard.recording.camera_recorder import RecordingPlace

from storeguard.camera.detector_calls import RenderedFrames, render
from storeguard.camera.status import CameraState
from storeguard.detection.letterbox import Fit, place
from storeguard.detection.service import Found, FrameBatch
from storeguard.errors import RecordingError
from storeguard.events.commands import RecordCommand
from storeguard.recording.spool import Spool
from storeguard.video.frame import Frame
from tests.camera.group_harness import REFUSED, Detector, Rules, by_id, film, running, street
from tests.camera.held_clock import NEVER_S, until


class Backwards(Detector):
    """Answers a call only after the next one, which holds later frames, was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = [asyncio.Event() for _ in range(20)]

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        call = len(self.batches)
        found = await super().detect(batch)
        if call >= len(self.answered):
            return found
        if call % 2 == 0:
            await self.answered[call + 1].wait()
        self.answered[call].set()
        return found


def test_calls_that_are_answered_backwards_leave_a_file_in_order(bikes: Path) -> None:
    async def scenario() -> None:
        detector, rules = Backwards(), Rules()
        async with running([film(bikes)], detector, rules) as group:
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            await until(lambda: len(rules.observations) == 250)
        times = [one.captured_at for one in rules.observations]
        assert times == sorted(times)
        assert detector.num_frames == 250  # held back, not detected again

    asyncio.run(scenario())


class Troubled(Detector):
    """One of three of its first calls goes wrong, in one of three ways."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        found = await super().detect(batch)
        call = len(self.batches)
        if call > 12 or call % 3:
            return found
        if self.trouble == "hangs":
            await asyncio.sleep(NEVER_S)
        if self.trouble == "fails":
            raise ConnectionError("the replica died")
        return [REFUSED if i % 3 == 1 else one for i, one in enumerate(found)]


@pytest.mark.parametrize("trouble", ["fails", "hangs", "refuses"])
def test_files_at_full_pace_wait_for_a_detector_in_trouble(bikes: Path, trouble: str) -> None:
    async def scenario() -> None:
        detector, rules = Troubled(trouble), Rules()
        live = street(bikes, detect_fps=5)

        timeout_s = 0.5 if trouble == "hangs" else NEVER_S
        async with running([film(bikes), live], detector, rules, call_timeout_s=timeout_s) as group:
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            statuses = by_id(group)
            await until(lambda: len(rules.of("film")) >= statuses["film"].frames_processed)
        assert statuses["film"].dropped == {}
        assert statuses["film"].frames_processed == len(rules.of("film")) == 250
        steps = {b.captured_at - a.captured_at for a, b in pairwise(rules.of("film"))}
        assert steps == {timedelta(milliseconds=40)}
        assert statuses["street"].state is CameraState.PLAYING

    asyncio.run(scenario())


class Picky(Detector):
    """Refuses each frame of one camera, or fails calls that hold one."""

    def __init__(self, trouble: str) -> None:
        super().__init__()
        self.trouble = trouble
        self.trouble_with: str | None = "film"

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        found = await super().detect(batch)
        await asyncio.sleep(0)
        if self.trouble_with not in batch.camera_id:
            return found
        if self.trouble == "refuses":
            return [
                REFUSED if name == self.trouble_with else one
                for name, one in zip(batch.camera_id, found, strict=True)
            ]
        if self.trouble == "answers short":
            return found[:-1]
        if self.trouble == "hangs" and set(batch.camera_id) == {self.trouble_with}:
            await asyncio.sleep(NEVER_S)
        raise ValueError("what a picture")


@pytest.mark.parametrize("trouble", ["refuses", "fails", "answers short", "hangs"])
def test_a_file_in_trouble_leaves_the_live_cameras_alone(bikes: Path, trouble: str) -> None:
    async def scenario() -> None:
        detector, rules = Picky(trouble), Rules()
        timeout_s = 0.5 if trouble == "hangs" else NEVER_S
        live = street(bikes, detect_fps=25)
        async with running([film(bikes), live], detector, rules, call_timeout_s=timeout_s) as group:
            await until(lambda: by_id(group)["street"].frames_processed >= 50)
            assert by_id(group)["film"].frames_processed == 0
            assert by_id(group)["film"].dropped == {}
            sent = sum(name == "film" for batch in detector.batches for name in batch)
            assert sent < 50 + 24  # the file holds back, while the live camera goes on
            detector.trouble_with = None
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            assert by_id(group)["film"].frames_processed == 250

    asyncio.run(scenario())


def test_a_frame_that_is_never_answered_is_given_up_in_the_end(bikes: Path) -> None:
    async def scenario() -> None:
        detector, rules = Detector(), Rules()
        detector.refuses = True
        async with running([film(bikes)], detector, rules, give_up_s=0.5) as group:
            await until(lambda: by_id(group)["film"].dropped.get("detector_full"))
            detector.refuses = False
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            status = by_id(group)["film"]
        assert sum(status.dropped.values()) + status.frames_processed == 250

    asyncio.run(scenario())


def cannot_scale(monkeypatch: pytest.MonkeyPatch, bad: Container[int]) -> None:
    """Frames of these numbers cannot be scaled."""

    def choosy(frame: Frame, where: Fit, canvas: Any) -> None:
        if frame.index in bad:
            raise ValueError("no such picture")
        place(frame, where, canvas)

    monkeypatch.setattr("storeguard.camera.detector_calls.place", choosy)


@pytest.mark.parametrize("bad", [(100, 101, 120), tuple(range(40, 90))], ids=["some", "calls"])
def test_frames_that_cannot_be_scaled_are_lost_alone(
    bikes: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[int, ...]
) -> None:
    cannot_scale(monkeypatch, bad)

    async def scenario() -> None:
        rules = Rules()
        async with running([film(bikes)], Detector(delay_s=0.02), rules) as group:
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            status = by_id(group)["film"]
            await until(lambda: len(rules.observations) >= status.frames_processed)
        assert status.frames_processed == 250 - len(bad)
        assert status.dropped == {"undecodable": len(bad)}
        times = [one.captured_at for one in rules.observations]
        assert times == sorted(times)

    asyncio.run(scenario())


def test_a_scene_cut_on_a_frame_that_cannot_be_scaled_falls_on_the_next(
    bikes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A looped film: its second round begins with lost frames while others are under way."""
    bad = range(250, 262)

    cannot_scale(monkeypatch, bad)

    async def scenario() -> None:
        rules = Rules()
        looped = street(bikes, pace="fast", detect_fps=240)
        async with running([looped], Detector(delay_s=0.05), rules) as group:
            await until(lambda: len(rules.observations) >= 300)
            assert by_id(group)["street"].dropped == {"undecodable": len(bad)}
        names = [one.person_id for one in rules.observations]
        assert len(set(names[2:250])) == 1
        assert set(names[250:252]).isdisjoint(names[2:250])

    asyncio.run(scenario())


def test_a_scene_cut_that_cannot_be_scaled_waits_for_those_before_it(
    bikes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, and the call with the last frames of the first round fails at first."""

    cannot_scale(monkeypatch, range(250, 262))

    class FailsLate(Detector):
        failures, answered = 3, 0

        async def detect(self, batch: FrameBatch) -> Sequence[Found]:
            found = await super().detect(batch)
            if self.answered > 225 and self.failures:
                self.failures -= 1
                raise ConnectionError("the replica died")
            self.answered += len(found)
            return found

    async def scenario() -> None:
        rules, detector = Rules(), FailsLate(delay_s=0.01)
        looped = street(bikes, pace="fast", detect_fps=240)
        async with running([looped], detector, rules):
            await until(lambda: len(rules.observations) >= 300)
        assert detector.failures == 0
        names = [one.person_id for one in rules.observations]
        assert len(set(names[2:250])) == 1
        assert set(names[250:252]).isdisjoint(names[2:250])

    asyncio.run(scenario())


def test_a_call_that_fails_before_the_detector_is_tried_again(
    bikes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(range(12))

    def short_of_memory(*arguments: Any) -> RenderedFrames:
        if next(turns, 0) % 3 == 1:
            raise MemoryError
        return render(*arguments)

    monkeypatch.setattr("storeguard.camera.detector_calls.render", short_of_memory)

    async def scenario() -> None:
        async with running([film(bikes)], Detector(), Rules()) as group:
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            assert by_id(group)["film"].dropped == {}
            assert by_id(group)["film"].frames_processed == 250

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_a_file_that_waits_for_the_detector_can_be_removed(bikes: Path, trouble: str) -> None:
    async def scenario() -> None:
        detector, rules = Detector(), Rules()
        detector.fails = 10**9 if trouble == "fails" else 0
        if trouble == "hangs":
            detector.answers.clear()
        async with running([film(bikes)], detector, rules, call_timeout_s=0.3) as group:
            await until(lambda: len(detector.batches) >= 3)
            await group.set_cameras([street(bikes)])
            detector.fails = 0
            detector.answers.set()
            await until(lambda: rules.observations)
            assert {one.camera_id for one in rules.observations} == {"street"}

    asyncio.run(scenario())


def test_a_recorder_that_cannot_be_had_yet_comes_later(
    bikes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storeguard.recording.camera_recorder._TAKE_OVER_S", 0.1)

    async def scenario() -> None:
        place = RecordingPlace("shop", tmp_path, 0)
        other = Spool(tmp_path / "street", prefix="shop/street")
        with contextlib.ExitStack() as writing:
            assert writing.enter_context(other.writing())
            async with running([street(bikes)], Detector(), Rules(), recording=place) as group:
                await until(lambda: by_id(group)["street"].frames_processed)  # watched all the same
                assert "another recorder" in (by_id(group)["street"].recording_error or "")
                with pytest.raises(RecordingError, match="another recorder"):
                    await group.record("street", RecordCommand(command="start-recording"))
                writing.close()
                await until(lambda: by_id(group)["street"].recording_error is None)
                while not by_id(group)["street"].recording:
                    with contextlib.suppress(RecordingError):  # before its first keyframe
                        await group.record("street", RecordCommand(command="start-recording"))
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())
