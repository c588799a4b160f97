"""Attribute predictions: which are due, what classifiers receive, and what is kept of answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storeguard.camera.group import CameraGroup, GroupLimits
from storeguard.camera.person_attributes import PersonAttributes
from storeguard.classification.attributes.classifier import AttributeInfo
from storeguard.classification.attributes.crop import person_crop
from storeguard.classification.attributes.service import AttributeService, CropAnswer, CropBatch
from storeguard.config.models import AttributeSettings, DetectorSettings, TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.config.zones import ZoneConfig
from storeguard.detection.service import Found, FrameBatch
from storeguard.engines.loading import load_attribute_classifier
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.process import ProcessOptions, VideoProcessor
from storeguard.rules.observation import Observation
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames
from tests.camera.group_harness import INFO, Detector, Rules, film, street
from tests.camera.held_clock import NEVER_S, PATIENCE_S, until
from tests.classification.attributes.models import save_colour_model
from tests.waiting import EVERYWHERE

BY = AttributeInfo("basket", ("none", "basket"), "m", "1" * 64, "onnxruntime-cpu", "fp32")


def settings(**more: Any) -> AttributeSettings:
    return AttributeSettings.model_validate({"name": "basket", "model": "m.onnx", **more})


@pytest.fixture(scope="module")
def frame(bikes: Path) -> Frame:
    return next(read_frames(CameraConfig(id="street", source=str(bikes), pace="fast")))


def seen(frame: Frame, *people: str, tall: float = 0.5) -> Observation:
    boxes = [[0.1 * n, 0.2, 0.1 * n + 0.1, 0.2 + tall] for n in range(len(people))]
    return Observation(
        camera_id="street",
        epoch="e",
        seq=0,
        captured_at=frame.captured_at,
        person_id=people,
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        score=np.ones(len(people), np.float32),
    )


def at(frame: Frame, time_s: float, *, scene_cut: bool = False) -> Frame:
    return replace(frame, time_s=time_s, scene_cut=scene_cut)


def due(people: PersonAttributes, busy: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    return {request.attribute: request.person_ids for request in people.due(busy)}


def test_each_person_is_due_every_so_often(frame: Frame) -> None:
    both = [settings(), settings(name="hat", every_s=3)]
    people = PersonAttributes("street", both, forget_s=3)
    assert due(people) == {}
    people.seen(at(frame, 10.0), seen(frame, "ann", "bob"))
    assert due(people) == {"basket": ("ann", "bob"), "hat": ("ann", "bob")}
    assert due(people) == {}  # each is returned once
    people.seen(at(frame, 10.9), seen(frame, "ann", "cas"))
    assert due(people) == {"basket": ("cas",), "hat": ("cas",)}
    people.seen(at(frame, 11.0), seen(frame, "ann", "bob", "cas"))
    assert due(people) == {"basket": ("ann", "bob")}
    people.seen(at(frame, 13.0), seen(frame, "ann"))
    assert due(people, busy=["basket"]) == {"hat": ("ann",)}
    assert due(people) == {"basket": ("ann",)}  # it is still due


def test_other_cameras_and_people_too_small_are_not_due(frame: Frame) -> None:
    far = PersonAttributes("street", [settings(cameras=["door"])], forget_s=3)
    far.seen(at(frame, 0.0), seen(frame, "ann"))
    assert due(far) == {}
    people = PersonAttributes("street", [settings(min_height_px=100)], forget_s=3)
    people.seen(at(frame, 0.0), seen(frame, "ann", tall=99 / frame.wh[1]))
    assert due(people) == {}
    people.seen(at(frame, 0.1), seen(frame, "ann", tall=101 / frame.wh[1]))
    assert due(people) == {"basket": ("ann",)}


def test_a_box_outside_the_picture_is_not_due(frame: Frame) -> None:
    people = PersonAttributes("street", [settings()], forget_s=3)
    observation = seen(frame, "ann", "bob")
    observation.xyxy[0, [0, 2]] = 1.0  # cut at the picture's edge, no pixel is left
    people.seen(at(frame, 0.0), observation)
    (request,) = people.due()
    assert request.person_ids == ("bob",)
    assert len(request.cut()) == 1


def test_crops_show_the_people_of_the_request(frame: Frame) -> None:
    people = PersonAttributes("street", [settings()], forget_s=3)
    people.seen(at(frame, 0.0), seen(frame, "ann"))
    people.due()
    observation = seen(frame, "ann", "bob")
    people.seen(at(frame, 0.5), observation)
    (request,) = people.due()
    assert request.person_ids == ("bob",)
    width, height = frame.wh
    box = observation.xyxy[1] * np.array([width, height] * 2, np.float32)
    (crop,) = request.cut()
    assert np.array_equal(crop, person_crop(frame.rgb(), box))


def test_predictions_are_kept_until_a_person_is_forgotten(frame: Frame) -> None:
    people = PersonAttributes("street", [settings(min_votes=2, every_s=0.1)], forget_s=40)
    for n in range(3):
        people.seen(at(frame, float(n)), seen(frame, "ann", "bob"))
        (request,) = people.due()
        # one crop was refused, because too many were waiting
        people.answered(request, CropAnswer(BY, (("basket", 0.9), None)))
    known = people.known()
    assert {name: labels[0].label for name, labels in known.items()} == {"ann": "basket"}
    assert people.num_predictions == 3
    people.seen(at(frame, 41.0), seen(frame, "bob"))
    assert list(people.known()) == ["ann"]
    people.seen(at(frame, 43.0), seen(frame, "bob"))
    assert people.known() == {}
    people.answered(request, CropAnswer(BY, (("basket", 0.9), ("none", 0.9))))  # too late
    assert people.known() == {}


def test_all_people_are_forgotten_at_a_scene_cut(frame: Frame) -> None:
    people = PersonAttributes("street", [settings(min_votes=1)], forget_s=3)
    people.seen(at(frame, 100.0), seen(frame, "ann"))
    (request,) = people.due()
    people.answered(request, CropAnswer(BY, (("basket", 0.9),)))
    assert list(people.known()) == ["ann"]
    people.seen(at(frame, 0.0, scene_cut=True), seen(frame, "ann2"))
    assert people.known() == {}
    assert due(people) == {"basket": ("ann2",)}


# --------------------------------------------------------------------------- in a group


@dataclass
class Labeller:
    """Labels everyone `basket`; hangs while `answers` is not set."""

    fails: bool = False
    batches: list[CropBatch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()

    @property
    def num_crops(self) -> int:
        return sum(len(batch.crops) for batch in self.batches)

    async def label(self, attribute: str, batch: CropBatch) -> CropAnswer:
        assert attribute == "basket"
        self.batches.append(batch)
        await self.answers.wait()
        if self.fails:
            raise ConnectionError("the replica died")
        return CropAnswer(BY, tuple(("basket", 0.9) for _ in batch.crops))


class HeldDetector(Detector):
    """Holds the film back, so that it does not end before its people are predicted."""

    def __init__(self, labeller: Labeller) -> None:
        super().__init__()
        self._labeller = labeller

    async def detect(self, batch: FrameBatch) -> Sequence[Found]:
        needed = self.num_frames // 50  # calls under way hold 24 frames at most
        await until(lambda: len(self._labeller.batches) >= needed)
        return await super().detect(batch)


@pytest.mark.parametrize("harm", [None, "fails", "hangs"])
def test_attributes_are_predicted_while_frames_go_on(bikes: Path, harm: str | None) -> None:
    """A film at full pace: every frame is processed, whatever the classifier does."""

    async def scenario() -> None:
        rules, labeller = Rules(), Labeller(fails=harm == "fails")
        detector = HeldDetector(labeller) if harm is None else Detector()
        if harm == "hangs":
            labeller.answers.clear()
        group = CameraGroup(
            info=INFO,
            detect=detector.detect,
            observe=rules.observe,
            tracker=TrackerSettings(),
            attributes=[settings(every_s=0.2, min_votes=2)],
            label=labeller.label,
            limits=GroupLimits(call_timeout_s=0.3 if harm == "hangs" else NEVER_S),
        )
        group.start()
        camera = film(bikes) if harm is None else street(bikes, pace="fast", detect_fps=240)
        await group.set_cameras([camera])
        try:
            # a call that hangs is abandoned, and the next one made
            await until(lambda: len(rules.observations) >= 250 and len(labeller.batches) >= 2)
            (status,), num_crops = group.statuses(), labeller.num_crops
        finally:
            await group.stop()
        assert [one.seq for one in rules.observations[:250]] == list(range(250))
        steps = {b.captured_at - a.captured_at for a, b in pairwise(rules.observations[:250])}
        assert steps == {timedelta(milliseconds=40)}
        assert status.dropped == {}
        labelled = [one for one in rules.observations if one.attributes]
        if harm is not None:
            assert labelled == []
            assert status.looks_taken == 0
            return
        assert status.looks_taken == num_crops
        for one in labelled:
            assert {labels[0].label for labels in one.attributes.values()} == {"basket"}
        assert labelled[0].seq > 0
        people = {name for one in rules.observations for name in one.person_id}
        assert {name for one in labelled for name in one.attributes} <= people

    asyncio.run(scenario())


# --------------------------------------------------------------------------- real models


def test_the_service_labels_many_cameras_crops(tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "colours.onnx")

    async def scenario() -> None:
        settings = AttributeSettings.model_validate({"name": "colour", "model": str(model)})
        service = AttributeService(load_attribute_classifier(settings), settings)
        await service.check(deadline_s=PATIENCE_S)
        red, blue = np.zeros((9, 5, 3), np.uint8), np.zeros((30, 30, 3), np.uint8)
        red[..., 0], blue[..., 2] = 255, 255
        answers = await asyncio.gather(
            service.label(CropBatch("a", (red, blue))), service.label(CropBatch("b", (blue,)))
        )
        found = [[label[0] for label in answer.labels if label] for answer in answers]
        assert found == [["red", "blue"], ["blue"]]
        assert answers[0].by == service.info
        assert service.stats().answered == 3
        await service.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "crop",
    [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.float32), np.zeros((0, 3, 3), np.uint8)],
)
def test_an_array_that_is_no_crop_is_refused(crop: Any) -> None:
    with pytest.raises(ValueError, match="camera 'a': expected crops"):
        CropBatch("a", (crop,))


def test_process_puts_attributes_on_events(bikes: Path, tmp_path: Path) -> None:
    model = save_colour_model(tmp_path / "colours.onnx", shape=("n", 3, 64, 32))
    zone = ZoneConfig.model_validate(
        {"id": "all", "polygon": EVERYWHERE, "rules": [{"type": "intrusion", "cooldown_s": 0}]}
    )
    colour = {"name": "colour", "model": str(model), "every_s": 0.2, "min_score": 0.0}
    processor = VideoProcessor(
        DetectorSettings(), attributes=[AttributeSettings.model_validate(colour)]
    )
    events, again = tmp_path / "events.jsonl", tmp_path / "again.jsonl"
    for out in (events, again):
        processor.process(bikes, ProcessOptions(zones=(zone,)), ProcessOutputs(events=out))
    assert events.read_bytes() == again.read_bytes()
    assert '"colour":{"label":"' in events.read_text()
