"""The clip classifier behind a group of cameras, and in `storeguard process`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storeguard.camera.group import CameraGroup, GroupLimits
from storeguard.camera.status import CameraStatus
from storeguard.classification.clips.classifier import ClassifierInfo
from storeguard.classification.clips.service import ClipAnswer, ClipBatch
from storeguard.config.models import ClassifierSettings, DetectorSettings, TrackerSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.config.zones import ZoneConfig
from storeguard.events.event import EventType, ModelRef
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.process import ProcessOptions, VideoProcessor
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Heartbeat, Verdict
from tests.camera.group_harness import INFO, Detector
from tests.camera.held_clock import NEVER_S, HeldClock, play_until
from tests.classification.clips.clip_models import save_suspicious
from tests.waiting import EVERYWHERE

BY = ClassifierInfo("fake", "1" * 64, "fake", "fp32", threshold=0.6)
RULES = [{"type": "intrusion"}, {"type": "shoplifting_suspected", "cls_every_s": 0.2}]


class Rules:
    """People seen by the cameras in `gated` have an open event; keeps the observations."""

    def __init__(self, *gated: str) -> None:
        self.gated = gated
        self.observations: list[Observation] = []

    async def observe(
        self, observations: Sequence[Observation], heartbeats: Sequence[Heartbeat]
    ) -> Sequence[Verdict]:
        del heartbeats
        self.observations += observations
        return [
            Verdict(
                one.camera_id,
                open_events=tuple(
                    OpenEvent(name, EventType.INTRUSION, "all", name)
                    for name in one.person_id
                    if one.camera_id in self.gated
                ),
            )
            for one in observations
        ]

    def scores(self, camera_id: str) -> list[ClipScore]:
        return [
            score
            for one in self.observations
            if one.camera_id == camera_id
            for score in one.clip_scores
        ]


@dataclass
class Classifier:
    """Scores every clip 0.75, once `answers` is set; with `fails` it fails instead."""

    fails: bool = False
    refuses: bool = False
    batches: list[ClipBatch] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()

    async def classify(self, batch: ClipBatch) -> ClipAnswer:
        self.batches.append(batch)
        self.under_way.append(batch.camera_id)
        self.most_at_once = max(self.most_at_once, self.under_way.count(batch.camera_id))
        try:
            await self.answers.wait()
            if self.fails:
                raise ConnectionError("the replica died")
            probability = None if self.refuses else 0.75
            return ClipAnswer(BY, tuple(probability for _ in batch.clips))
        finally:
            self.under_way.remove(batch.camera_id)


def camera(video: Path, name: str, **settings: Any) -> CameraConfig:
    zones = [{"id": "all", "polygon": EVERYWHERE, "rules": RULES}]
    return CameraConfig.model_validate(
        {
            "id": name,
            "source": str(video),
            "loop": True,
            "detect_fps": 10,
            "zones": zones,
            **settings,
        }
    )


async def watch(
    cameras: list[CameraConfig],
    classifier: Classifier | None,
    rules: Rules,
    until: Callable[[], object],
    *,
    call_timeout_s: float = NEVER_S,
) -> dict[str, CameraStatus]:
    """Run cameras until something holds."""
    clock = HeldClock()
    live = sum(camera.pace is not Pace.FAST for camera in cameras)
    group = CameraGroup(
        info=INFO,
        detect=Detector().detect,
        observe=rules.observe,
        tracker=TrackerSettings(),
        classify=None if classifier is None else classifier.classify,
        clock=clock,
        limits=GroupLimits(call_timeout_s=call_timeout_s),
    )
    group.start()
    await group.set_cameras(cameras)
    try:
        await play_until(until, group, clock, live=live)
        return {status.id: status for status in group.statuses()}
    finally:
        await group.stop()


def test_only_clips_of_people_with_an_open_event_are_classified(bikes: Path) -> None:
    async def scenario() -> None:
        rules, classifier = Rules("gated"), Classifier()
        statuses = await watch(
            [camera(bikes, "gated"), camera(bikes, "free")],
            classifier,
            rules,
            lambda: len(rules.scores("gated")) >= 3,
        )
        assert {batch.camera_id for batch in classifier.batches} == {"gated"}
        assert rules.scores("free") == []
        assert statuses["gated"].clips_judged >= 3
        assert statuses["free"].clips_judged == 0
        seen = {name for one in rules.observations for name in one.person_id}
        for score in rules.scores("gated"):
            assert score.person_id in seen
            assert (score.score, score.threshold) == (0.75, 0.6)
            assert score.model == ModelRef(name="fake", sha256="1" * 64)
        # each score is of the past, and sent once
        sent = [(one.person_id, one.captured_at) for one in rules.scores("gated")]
        assert len(set(sent)) == len(sent)
        for one in rules.observations:
            assert all(score.captured_at < one.captured_at for score in one.clip_scores)

    asyncio.run(scenario())


def test_a_camera_has_one_call_under_way(bikes: Path) -> None:
    async def scenario() -> None:
        rules, classifier = Rules("a", "b"), Classifier()
        classifier.answers.clear()

        def waited() -> bool:
            """Both hang in a call, while frames of both were processed until the next clip was due."""
            if len(classifier.under_way) < 2:
                return False
            for name in ("a", "b"):
                since = next(one for one in classifier.batches if one.camera_id == name)
                counts.setdefault((name, id(since)), len(rules.observations))
            return all(len(rules.observations) > count + 20 for count in counts.values())

        counts: dict[tuple[str, int], int] = {}
        await watch([camera(bikes, "a"), camera(bikes, "b")], classifier, rules, waited)
        assert classifier.most_at_once == 1
        assert sorted(batch.camera_id for batch in classifier.batches) == ["a", "b"]

    asyncio.run(scenario())


@pytest.mark.parametrize("harm", ["fails", "hangs", "refuses"])
def test_a_classifier_in_trouble_costs_no_frame(bikes: Path, harm: str) -> None:
    """A film at full pace, again and again: every frame goes through, whatever the classifier does."""

    async def scenario() -> None:
        rules, classifier = Rules("film"), Classifier()
        classifier.fails, classifier.refuses = harm == "fails", harm == "refuses"
        if harm == "hangs":
            classifier.answers.clear()
        film = camera(bikes, "film", pace="fast", detect_fps=240)

        def gone_through() -> bool:
            if len(rules.observations) >= 125 and len(classifier.batches) >= 2:
                classifier.fails = classifier.refuses = False
                classifier.answers.set()
            return len(rules.observations) >= 250 and bool(rules.scores("film"))

        statuses = await watch(
            [film],
            classifier,
            rules,
            gone_through,
            call_timeout_s=0.3 if harm == "hangs" else NEVER_S,
        )
        assert statuses["film"].dropped == {}
        assert statuses["film"].frames_processed >= 250
        assert [one.seq for one in rules.observations] == list(range(len(rules.observations)))
        steps = {b.captured_at - a.captured_at for a, b in pairwise(rules.observations)}
        assert steps == {timedelta(milliseconds=40)}
        assert len(classifier.batches) >= 2

    asyncio.run(scenario())


def test_scores_resume_once_the_classifier_is_back(bikes: Path) -> None:
    async def scenario() -> None:
        rules, classifier = Rules("street"), Classifier(fails=True)

        def healed() -> bool:
            if len(classifier.batches) >= 2:
                classifier.fails = False
            return bool(rules.scores("street"))

        statuses = await watch([camera(bikes, "street")], classifier, rules, healed)
        assert statuses["street"].clips_judged < len(classifier.batches)

    asyncio.run(scenario())


def test_without_a_classifier_cameras_run_without_scores(bikes: Path) -> None:
    async def scenario() -> None:
        rules = Rules("street")
        await watch([camera(bikes, "street")], None, rules, lambda: len(rules.observations) > 30)
        assert rules.scores("street") == []

    asyncio.run(scenario())


# ---------------------------------------------------------------------- storeguard process


def processed(video: Path, folder: Path, rules: list[dict[str, Any]]) -> tuple[Any, list[Any]]:
    """The metrics and the events of one run; the model scores every clip 0.95."""
    model = save_suspicious(folder / "suspicious.onnx")
    zone = ZoneConfig.model_validate({"id": "seat", "polygon": EVERYWHERE, "rules": rules})
    outputs = ProcessOutputs(events=folder / "events.jsonl", metrics=folder / "metrics.json")
    processor = VideoProcessor(DetectorSettings(), classifier=ClassifierSettings(model=str(model)))
    processor.process(video, ProcessOptions(zones=(zone,)), outputs)
    assert outputs.events is not None
    assert outputs.metrics is not None
    lines = outputs.events.read_text(encoding="utf-8").splitlines()
    metrics = json.loads(outputs.metrics.read_text(encoding="utf-8"))
    return metrics, [json.loads(line) for line in lines]


def test_one_file_with_a_model_that_always_suspects(cabin: Path, tmp_path: Path) -> None:
    rules = [{"type": "intrusion"}, {"type": "shoplifting_suspected", "cls_every_s": 0.1}]
    metrics, events = processed(cabin, tmp_path, rules)
    hashed = hashlib.sha256((tmp_path / "suspicious.onnx").read_bytes()).hexdigest()
    suspicions = [event for event in events if event["type"] == "shoplifting_suspected"]
    assert len({event["event_id"] for event in suspicions}) == 1
    assert (suspicions[0]["status"], suspicions[-1]["status"]) == ("open", "closed")
    assert suspicions[-1]["score"] == pytest.approx(0.9526, abs=1e-3)
    assert suspicions[-1]["model"] == {"name": "suspicious", "sha256": hashed}
    closed = next(one for one in events if one["type"] == "intrusion" and one["ended_at"])
    assert closed["attributes"]["shoplifting"]["decision"] == "suspected"
    assert closed["attributes"]["shoplifting"]["model"]["sha256"] == hashed
    assert metrics["cls_calls"] >= suspicions[-1]["attributes"]["clips"] > 3
    assert metrics["latency_ms"]["cls"]["p50"] > 0
    assert metrics["events"]["shoplifting_suspected"] == 1


def test_figures_that_were_not_measured_are_null(cabin: Path, tmp_path: Path) -> None:
    metrics, events = processed(cabin, tmp_path, [{"type": "intrusion"}])
    assert metrics["cls_calls"] is None
    assert metrics["latency_ms"]["cls"] is None
    assert "shoplifting" not in json.dumps(events)


def test_the_same_file_gives_the_same_answer(cabin: Path, tmp_path: Path) -> None:
    rules = [{"type": "intrusion"}, {"type": "shoplifting_suspected"}]
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    assert processed(cabin, first, rules)[1] == processed(cabin, second, rules)[1]
