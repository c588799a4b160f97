"""Cameras of one group against a detector that is fast, slow, refusing or dying."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from storeguard.camera.detector_calls import Detected, LossCause
from storeguard.camera.feeds import LatestFrame
from storeguard.camera.live_picture import LivePicture, PictureQuery
from storeguard.camera.pipeline import CameraPipeline
from storeguard.camera.status import CameraState, CameraStatus
from storeguard.clock import SystemClock
from storeguard.config.models import TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.detections import Detections
from storeguard.errors import NotFoundError
from storeguard.video.reader import read_frames
from tests.camera.group_harness import INFO, TIMING, Detector, Rules, by_id, film, running, street
from tests.camera.held_clock import HeldClock, play_until, until


def test_a_slow_detector_drops_frames_and_keeps_them_fresh(bikes: Path) -> None:
    """The seed system had this the wrong way round: it dropped when ahead, never when behind."""

    async def scenario() -> None:
        detector, rules = Detector(), Rules()
        detector.answers.clear()
        async with running([street(bikes, detect_fps=25)], detector, rules) as group:
            for call in (1, 2, 3):
                await until(lambda call=call: len(detector.batches) == call)
                sampled = by_id(group)["street"].frames_sampled
                # reading goes on at its own pace
                await until(lambda n=sampled: by_id(group)["street"].frames_sampled >= n + 25)
                assert len(detector.batches) == call  # one frame in the detector, one waiting
                detector.answer()
            await until(lambda: len(rules.observations) == 3)
            status = by_id(group)["street"]
        assert status.dropped["superseded"] > 10
        assert status.state is CameraState.PLAYING
        assert status.frames_in > 60
        # Each was the newest when the call before it was answered. A queue would give the next one.
        for before, after in pairwise(rules.observations):
            assert after.captured_at - before.captured_at > timedelta(seconds=0.9)

    asyncio.run(scenario())


def test_a_fast_detector_drops_nothing(bikes: Path) -> None:
    async def scenario() -> None:
        clock, rules = HeldClock(), Rules()
        async with running([street(bikes, detect_fps=5)], Detector(), rules, clock=clock) as group:
            await play_until(lambda: len(rules.observations) >= 15, group, clock)
            status = by_id(group)["street"]
        assert status.dropped == {}
        assert status.frames_processed >= 10
        assert [one.seq for one in rules.observations] == list(range(len(rules.observations)))
        steps = {b.captured_at - a.captured_at for a, b in pairwise(rules.observations)}
        assert steps == {timedelta(seconds=0.2)}

    asyncio.run(scenario())


def test_frames_of_several_cameras_travel_in_one_call(bikes: Path) -> None:
    async def scenario() -> None:
        detector, rules = Detector(), Rules()
        detector.answers.clear()
        cameras = [street(bikes, f"camera-{i}", detect_fps=10) for i in range(4)]

        def all_wait(call: int) -> bool:
            """Each camera has a frame that waits, besides the one in the detector."""
            if len(detector.batches) != call:
                return False
            for one in group.statuses():
                taken = one.frames_processed + detector.batches[-1].count(one.id)
                if one.frames_sampled - one.dropped.get("superseded", 0) <= taken:
                    return False
            return True

        async with running(cameras, detector, rules, max_calls=1) as group:
            for call in range(1, 7):
                await until(lambda call=call: all_wait(call))
                detector.answer()
            num_answered = sum(map(len, detector.batches[:6]))  # of the seventh, none is
            await until(lambda: len(rules.observations) == num_answered)
            shares = [status.frames_processed for status in group.statuses()]
        # each camera that has a frame when a call begins is in it
        names = sorted(camera.id for camera in cameras)
        assert [sorted(batch) for batch in detector.batches[1:6]] == [names] * 5
        assert all(len(set(batch)) == len(batch) for batch in detector.batches)
        assert min(shares) > 0.7 * max(shares)
        for name in names:  # in order, whichever calls they travelled in
            times = [one.captured_at for one in rules.observations if one.camera_id == name]
            assert times == sorted(times)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("harm", "cause"),
    [("fails", "detector_error"), ("refuses", "detector_full"), ("hangs", "detector_timeout")],
)
def test_lost_frames_are_counted_by_cause(bikes: Path, harm: str, cause: str) -> None:
    async def scenario() -> None:
        detector, rules = Detector(), Rules()
        detector.fails = 2 if harm == "fails" else 0
        detector.refuses = harm == "refuses"
        if harm == "hangs":
            detector.answers.clear()
        camera = street(bikes, detect_fps=5)
        async with running([camera], detector, rules, call_timeout_s=0.5) as group:
            await until(lambda: by_id(group)["street"].dropped.get(cause))
            assert by_id(group)["street"].state is CameraState.PLAYING
            if harm == "fails":
                await until(lambda: rules.observations)  # it went on behind the failures

    asyncio.run(scenario())


def test_one_bad_camera_leaves_the_others_alone(bikes: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"this is no video" * 100)
        cameras = [
            street(bikes, detect_fps=5),
            CameraConfig(id="broken", source=str(broken)),
            CameraConfig(id="missing", source=str(tmp_path / "none.mp4")),
        ]
        clock = HeldClock()

        def all_in_their_states() -> bool:
            statuses = by_id(group)
            failed = [statuses[name].state is CameraState.FAILED for name in ("broken", "missing")]
            return all(failed) and statuses["street"].frames_processed >= 10

        async with running(cameras, Detector(), Rules(), clock=clock) as group:
            await play_until(all_in_their_states, group, clock)
            statuses = by_id(group)
        assert statuses["street"].dropped == {}
        assert "broken.mp4" in (statuses["broken"].last_error or "")

    asyncio.run(scenario())


def test_people_keep_their_ids_when_zones_change(bikes: Path) -> None:
    async def scenario() -> tuple[Rules, int]:
        clock, rules = HeldClock(), Rules()
        camera = street(bikes, detect_fps=10)
        async with running([camera], Detector(), rules, clock=clock) as group:
            await play_until(lambda: len(rules.observations) >= 15, group, clock)
            await group.set_cameras([camera.model_copy(update={"detect_fps": 5.0})])
            before = len(rules.observations)
            await play_until(lambda: len(rules.observations) >= before + 7, group, clock)
        return rules, before

    rules, before = asyncio.run(scenario())
    assert 0 < before < len(rules.observations)
    assert len({one.epoch for one in rules.observations}) == 1
    assert len({name for one in rules.observations for name in one.person_id}) == 1


def test_files_at_full_pace_lose_nothing(bikes: Path) -> None:
    """Back-pressure instead of drops: all 250 frames arrive however slow the detector."""

    async def scenario() -> tuple[Rules, CameraStatus]:
        rules = Rules()
        async with running([film(bikes)], Detector(delay_s=0.005), rules) as group:
            await until(lambda: by_id(group)["film"].state is CameraState.ENDED)
            status = by_id(group)["film"]
            await until(lambda: len(rules.observations) >= status.frames_processed)
        return rules, status

    rules, status = asyncio.run(scenario())
    assert status.frames_processed == 250
    assert status.dropped == {}
    assert len(rules.observations) == 250
    assert rules.observations[0].captured_at == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_new_round_of_a_file_begins_with_new_people(bikes: Path) -> None:
    """Just where it wraps around, however many of its frames are under way."""

    async def scenario() -> None:
        detector, rules = Detector(delay_s=0.02), Rules()
        detector.answers.clear()
        camera = street(bikes, pace="fast", detect_fps=240)
        async with running([camera], detector, rules, max_calls=3) as group:
            # a few frames wait behind the three calls
            await until(
                lambda: (
                    len(detector.batches) == 3
                    and by_id(group)["street"].frames_sampled > detector.num_frames + 1
                )
            )
            detector.answers.set()
            await until(lambda: len(rules.observations) >= 600)
        rounds = [rules.observations[start : start + 250] for start in (0, 250)]
        first, second = ({one.person_id for one in seen} for seen in rounds)
        assert len(first) == len(second) == 1
        assert first != second
        assert max(map(len, detector.batches)) > 1  # several frames of one file in a call

    asyncio.run(scenario())


@pytest.mark.parametrize("cause", ["superseded", "detector_error"])
def test_people_are_not_followed_over_a_cut_whose_frame_was_lost(bikes: Path, cause: str) -> None:
    feed = LatestFrame(wake=lambda _: None)
    pipeline = CameraPipeline(
        street(bikes, detect_fps=25), TrackerSettings(), feed=feed, epoch="e", clock=SystemClock()
    )
    person = Detections.of([[16, 16, 48, 48]], [0.9])
    frames = list(itertools.islice(read_frames(film(bikes)), 5))
    frames[2] = replace(frames[2], scene_cut=True)
    seen = []
    for number, frame in enumerate(frames):
        pipeline.offer(frame)
        if number == 2 and cause == "superseded":
            continue  # the next frame takes its place
        (taken,) = feed.take(1)
        result = Detected(taken, INFO.fit(taken.wh), person, TIMING, queue_ms=0.0)
        feed.answer([result])
        if number == 2:
            pipeline.lose(taken, LossCause(cause))
            continue
        observation = pipeline.process(result)
        assert observation is not None
        seen.append(observation.person_id)
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_pictures_are_painted_on_copies(bikes: Path) -> None:
    async def scenario() -> tuple[LivePicture | None, LivePicture | None]:
        async with running([street(bikes)], Detector(), Rules()) as group:
            await until(lambda: by_id(group)["street"].frames_processed)
            painted = await group.picture("street", PictureQuery())
            clean = await group.picture("street", PictureQuery(overlay=False))
            with pytest.raises(NotFoundError, match="nowhere"):
                await group.picture("nowhere", PictureQuery())
        return painted, clean

    painted, clean = asyncio.run(scenario())
    assert painted is not None
    assert clean is not None
    assert painted.jpeg[:2] == clean.jpeg[:2] == b"\xff\xd8"
    assert painted != clean


def test_credentials_never_show() -> None:
    async def scenario() -> CameraStatus:
        camera = CameraConfig(id="door", source="rtsp://admin:hunter2@127.0.0.1:9/stream")
        async with running([camera], Detector(), Rules()) as group:
            await until(lambda: by_id(group)["door"].last_error)
            return by_id(group)["door"]

    status = asyncio.run(scenario())
    assert "hunter2" not in status.model_dump_json()
    assert status.source == "rtsp://***@127.0.0.1:9/stream"
