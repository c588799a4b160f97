"""Models as their exporters write them: the known boxes come out, or the reason why not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from storeguard.config.models import DetectorSettings, LayoutName
from storeguard.detection.detections import Detections
from storeguard.detection.layouts.grid import num_places
from storeguard.detection.self_test import self_test_picture
from storeguard.engines.loading import load_detector
from storeguard.errors import ModelError, ModelLayoutError
from tests.detection.pictures import people_in, plain_frame
from tests.detection.small_exports import (
    deepstream,
    deepstream_apart,
    detr_in_one,
    efficient_nms,
    end2end,
    mmdet,
    nanodet,
    picodet,
    picodet_heads,
    pose,
    ppyoloe,
    rotated,
    rtmdet_heads,
    segment,
    yolov5,
    yolov6,
    yolov8_transposed,
    yolox_decoded,
)
from tests.detection.small_models import Box, detectnet_v2, detr, save_constant, ssd, yolov8, yolox

INPUT_WH = (320, 320)
PERSON = (40.0, 50.0, 120.0, 230.0)
OTHER = (180.0, 40.0, 290.0, 150.0)
RTMDET = Path(__file__).parents[3] / "shared" / "data" / "weights" / "rtmdet_nano_person.onnx"

COCO = {"names": str({index: "person" if index == 0 else f"thing {index}" for index in range(80)})}


@dataclass(frozen=True)
class Case:
    """An export, and the layout that it is to be recognised as."""

    outputs: Callable[..., dict[str, np.ndarray[Any, Any]]]
    layout: LayoutName
    num_classes: int = 80
    person: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


CASES = {
    "YOLOX": Case(yolox, LayoutName.YOLOX),
    "YOLOX, decoded": Case(yolox_decoded, LayoutName.YOLOX_DECODED),
    "YOLOX, decoded, one named class": Case(
        yolox_decoded, LayoutName.YOLOX_DECODED, 1, metadata={"names": "['person']"}
    ),
    "YOLOv5, YOLOv7": Case(yolov5, LayoutName.YOLOV5),
    "YOLOv5, one class": Case(yolov5, LayoutName.YOLOV5, 1),
    "YOLOv5, names": Case(yolov5, LayoutName.YOLOV5, metadata=COCO),
    "YOLOv6": Case(yolov6, LayoutName.YOLOV5),
    "YOLOv8, 11, 12": Case(yolov8, LayoutName.YOLOV8, metadata={"task": "detect", **COCO}),
    "YOLOv8, transposed": Case(yolov8_transposed, LayoutName.YOLOV8),
    "YOLOv8, transposed, one class": Case(yolov8_transposed, LayoutName.YOLOV8, 1),
    "YOLOv8, transposed, two named classes": Case(
        yolov8_transposed, LayoutName.YOLOV8, 2, metadata={"names": '{"0": "person", "1": "bag"}'}
    ),
    "pose": Case(
        pose,
        LayoutName.YOLOV8,
        1,
        metadata={"task": "pose", "names": "{0: 'person'}", "kpt_shape": "[17, 3]"},
    ),
    "pose without metadata": Case(pose, LayoutName.YOLOV8, 1),
    "segmentation": Case(segment, LayoutName.YOLOV8, metadata={"task": "segment", **COCO}),
    "segmentation without metadata": Case(segment, LayoutName.YOLOV8),
    "rotated boxes": Case(
        rotated, LayoutName.YOLOV8, 2, metadata={"task": "obb", "names": "{0: person, 1: car}"}
    ),
    "YOLOv10, YOLO26 end to end": Case(end2end, LayoutName.END2END),
    "YOLO26 end to end, names": Case(
        end2end, LayoutName.END2END, metadata={"task": "detect", "end2end": "True", **COCO}
    ),
    "YOLO26 pose end to end": Case(
        partial(end2end, after=51),
        LayoutName.END2END,
        1,
        metadata={"task": "pose", "names": "{0: 'person'}", "kpt_shape": "[17, 3]"},
    ),
    "DeepStream-Yolo": Case(deepstream, LayoutName.DEEPSTREAM),
    "DeepStream-Yolo, one class": Case(deepstream, LayoutName.DEEPSTREAM, 1),
    "DeepStream-Yolo, three outputs": Case(deepstream_apart, LayoutName.DEEPSTREAM),
    "EfficientNMS": Case(efficient_nms, LayoutName.EFFICIENT_NMS),
    "RTMDet with its selection": Case(mmdet, LayoutName.MMDET),
    "RTMDet's heads": Case(rtmdet_heads, LayoutName.RTMDET),
    "RTMDet's heads, one class": Case(rtmdet_heads, LayoutName.RTMDET, 1),
    "RTMDet's heads, after the sigmoid": Case(
        partial(rtmdet_heads, logits=False), LayoutName.RTMDET
    ),
    "RTMDet's heads, four classes": Case(rtmdet_heads, LayoutName.RTMDET, 4),
    "PP-YOLOE": Case(ppyoloe, LayoutName.PPYOLOE),
    "PicoDet": Case(picodet, LayoutName.PICODET),
    "PicoDet's heads": Case(picodet_heads, LayoutName.PICODET),
    "NanoDet's heads": Case(partial(picodet_heads, strides=(8, 16, 32)), LayoutName.NANODET),
    "NanoDet-Plus": Case(nanodet, LayoutName.NANODET),
    "NanoDet-Plus, one class": Case(nanodet, LayoutName.NANODET, 1),
    "NanoDet": Case(partial(nanodet, plus=False), LayoutName.NANODET),
    "RT-DETR of Ultralytics": Case(detr_in_one, LayoutName.DETR),
    "RT-DETR of Ultralytics, two classes": Case(
        detr_in_one, LayoutName.DETR, 2, metadata={"names": "{0: 'person', 1: 'bag'}"}
    ),
    "RT-DETR, D-FINE, DEIM": Case(detr, LayoutName.DETR),
    "RF-DETR": Case(partial(detr, names=("labels", "dets")), LayoutName.DETR, 91, 1),
    "SSD": Case(partial(ssd, tensorflow=True), LayoutName.SSD, person=1),
    "DetectNet_v2": Case(detectnet_v2, LayoutName.DETECTNET_V2, 3),
}


def found_by(
    outputs: dict[str, np.ndarray[Any, Any]],
    folder: Path,
    metadata: Mapping[str, str] | None = None,
    **settings: Any,
) -> Detections:
    model = save_constant(folder / "m.onnx", outputs, metadata=metadata)
    detector = load_detector(DetectorSettings.model_validate({"model": str(model), **settings}))
    return people_in(detector, plain_frame(INPUT_WH))


@pytest.mark.parametrize("name", CASES)
def test_a_known_person_comes_out_and_other_classes_do_not(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    boxes = [Box(PERSON, case.person)]
    if case.num_classes > 1:
        boxes.append(Box(OTHER, case.person + 1, score=0.8))
    outputs = case.outputs(boxes, INPUT_WH, case.num_classes)
    model = save_constant(tmp_path / "m.onnx", outputs, metadata=case.metadata)

    detector = load_detector(DetectorSettings(model=str(model)))
    found = people_in(detector, plain_frame(INPUT_WH))

    assert detector.info.layout is case.layout
    np.testing.assert_allclose(found.xyxy, [PERSON], atol=0.5)
    np.testing.assert_allclose(found.score, [0.9], atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_a_named_layout_gives_the_same_boxes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    outputs = case.outputs([Box(PERSON, case.person)], INPUT_WH, case.num_classes)

    found = found_by(outputs, tmp_path, case.metadata, layout=case.layout)

    np.testing.assert_allclose(found.xyxy, [PERSON], atol=0.5)


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("YOLOv5, one class", "DetectNet_v2")]
)
def test_a_model_that_finds_nothing_is_read_as_the_same_layout(name: str, tmp_path: Path) -> None:
    # its first pictures are blank
    case = CASES[name]
    outputs = case.outputs([], INPUT_WH, case.num_classes)
    model = save_constant(tmp_path / "m.onnx", outputs, metadata=case.metadata)

    assert load_detector(DetectorSettings(model=str(model))).info.layout is case.layout


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (yolov5, 1),
        (yolox_decoded, 1),
        (deepstream, 1),
        (rtmdet_heads, 1),
        (ppyoloe, 1),
        # these select their boxes themselves: two people that overlap stay two
        (end2end, 2),
        (efficient_nms, 2),
        (mmdet, 2),
    ],
)
def test_overlapping_boxes_become_one_unless_the_model_has_selected_them(
    make: Callable[..., dict[str, np.ndarray[Any, Any]]], kept: int, tmp_path: Path
) -> None:
    x1, y1, x2, y2 = PERSON
    beside = Box((x1 + 24, y1, x2 + 24, y2), score=0.7)  # half of each in the other

    found = found_by(make([Box(PERSON), beside], INPUT_WH, 80), tmp_path, nms_iou=0.3)

    assert len(found) == kept


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5, math.pi / 2, 2.0])
def test_rotated_boxes_are_enclosed(angle: float, tmp_path: Path) -> None:
    box = Box((100, 80, 180, 260))
    around = np.array([(-40, -90), (40, -90), (40, 90), (-40, 90)])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = around @ turn + box.centre

    found = found_by(
        rotated([box], INPUT_WH, 2, angle=angle),
        tmp_path,
        {"task": "obb", "names": "{0: person, 1: car}"},
    )

    np.testing.assert_allclose(
        found.xyxy, [np.clip([*corners.min(axis=0), *corners.max(axis=0)], 0, 320)], atol=0.5
    )


# --------------------------------------------------------------------------- names

NAMED = [
    # a dict as Ultralytics writes it, JSON, a list, and one without quotes
    ("{0: 'bag', 1: 'person', 2: 'cart'}", {1}),
    ('{"0": "bag", "1": "Person", "2": "cart"}', {1}),
    ("['bag', 'cart', 'pedestrian']", {2}),
    ("{0: bag, 1: cart, 2: person}", {2}),
    ("bag,cart,person", {2}),
    ("bag\ncart\nperson\n", {2}),
    # VisDrone has two classes of people
    ("{0: 'pedestrian', 1: 'people', 2: 'bicycle'}", {0, 1}),
    # an exporter that knows no names, and a text that was cut off
    ("{0: 'class0', 1: 'class1', 2: 'class2'}", {0}),
    ("['0', '1', '2']", {0}),
    ("{0: 'cart', 1: 'person'", {0}),
]


@pytest.mark.parametrize(("names", "people"), NAMED)
def test_people_are_the_classes_that_the_metadata_names_so(
    names: str, people: set[int], tmp_path: Path
) -> None:
    places = [(10.0 + 100 * index, 40.0, 90.0 + 100 * index, 200.0) for index in range(3)]
    boxes = [Box(place, class_id=index) for index, place in enumerate(places)]

    found = found_by(yolov8(boxes, INPUT_WH, 3), tmp_path, {"names": names})

    assert {places.index(tuple(xyxy.round().tolist())) for xyxy in found.xyxy} == people


@pytest.mark.parametrize("make", [yolov8, yolov5, yolov8_transposed, end2end])
def test_bags_do_not_become_people(
    make: Callable[..., dict[str, np.ndarray[Any, Any]]], tmp_path: Path
) -> None:
    outputs = make([Box(PERSON)], INPUT_WH, 1)

    with pytest.raises(ModelLayoutError, match=r"m\.onnx.*0: bag.*person.*detector\.person_class"):
        found_by(outputs, tmp_path, {"names": "{0: 'bag'}"})

    # whoever trained it on people's heads names the class
    assert len(found_by(outputs, tmp_path, {"names": "{0: 'bag'}"}, person_class=0)) == 1


def test_a_person_class_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    outputs = yolov8([Box(PERSON)], INPUT_WH, 2)

    with pytest.raises(ModelLayoutError, match=r"person_class.*0: bag, 1: person.*found 7"):
        found_by(outputs, tmp_path, {"names": "{0: bag, 1: person}"}, person_class=7)


# --------------------------------------------------------------------------- refused


def yolov8_in(task: str) -> dict[str, str]:
    return {"task": task, "names": "{0: 'person', 1: 'bag'}"}


@pytest.mark.parametrize(
    ("outputs", "metadata", "settings", "expected"),
    [
        # keypoints of another number of joints, taken for classes
        (pose([Box(PERSON)], INPUT_WH, 2), {}, {}, "expected probabilities.*pose"),
        (rotated([], INPUT_WH, 15, angle=1.2), {}, {}, "expected probabilities.*rotated"),
        (yolov8([], INPUT_WH, 1000), {"task": "classify"}, {}, "task 'classify'"),
        # the notes and the outputs contradict each other
        (yolov8([], INPUT_WH, 3), yolov8_in("detect"), {}, "states 2 classes.*expected 6.*got"),
        (yolov5([], INPUT_WH, 3), yolov8_in("detect"), {}, "names 2 classes.*expected 7.*got 8"),
        (end2end([], INPUT_WH, 2, after=1), yolov8_in("obb"), {}, "rotated boxes.*export"),
        # one class with an objectness, or two without
        (yolox_decoded([], INPUT_WH, 1), {}, {}, "1 classes with an objectness or 2 without"),
        # read as another layout; and boxes without a size
        (
            end2end([Box(PERSON, class_id=3)], INPUT_WH, 80),
            {},
            {"layout": "yolov5"},
            "expected probabilities in 0..1, found a score of 2.7",
        ),
        (
            {"dets": np.full((1, 5, 5), 0.5, np.float32), "labels": np.zeros((1, 5), np.float32)},
            {},
            {},
            "expected boxes inside the input of 320x320.*without a size",
        ),
        (yolov8([], INPUT_WH, 80), {"stride": "48"}, {}, "stride 48.*320x320"),
    ],
    ids=[
        "pose with two classes",
        "rotated boxes without metadata",
        "a classifier",
        "names",
        "names beside an objectness",
        "rotated boxes end to end",
        "one class or two",
        "another layout named",
        "no boxes",
        "stride",
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    outputs: dict[str, np.ndarray[Any, Any]],
    metadata: dict[str, str],
    settings: dict[str, str],
    expected: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelError) as caught:
        found_by(outputs, tmp_path, metadata, **settings)

    assert "m.onnx" in str(caught.value)
    assert caught.match(expected)


# --------------------------------------------------------------------------- the real thing


def test_rtmdets_heads_give_the_boxes_of_its_own_selection(tmp_path: Path) -> None:
    if not RTMDET.is_file():
        pytest.skip(f"{RTMDET} is not here")
    graph = onnx.load(str(RTMDET))
    del graph.graph.output[:]
    for name in ("y", "y.8", "y.16", "y.4", "y.12", "y.20"):  # scores, then distances
        graph.graph.output.append(onnx.ValueInfoProto(name=name))
    onnx.save(graph, str(tmp_path / "heads.onnx"))
    picture = self_test_picture(None)
    assert picture is not None

    whole, heads = (
        load_detector(DetectorSettings(model=str(path)))
        for path in (RTMDET, tmp_path / "heads.onnx")
    )
    expected, found = (people_in(one, picture.frame) for one in (whole, heads))

    assert heads.info.layout is LayoutName.RTMDET
    assert num_places(heads.info.input_wh) == 2100
    np.testing.assert_allclose(found.xyxy[:1], expected.xyxy[:1], atol=0.5)
    np.testing.assert_allclose(found.score[:1], expected.score[:1], atol=1e-3)
