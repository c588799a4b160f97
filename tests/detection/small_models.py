"""Small ONNX detectors of every layout that give the outputs which a test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Float32 = NDArray[np.float32]

_OPSET = 17
_IR = 10


@dataclass(frozen=True)
class Box:
    """One box that a model is to report: corners in pixels of its input."""

    xyxy: tuple[float, float, float, float]
    class_id: int = 0
    score: float = 0.9

    @property
    def centre(self) -> tuple[float, float]:
        return (self.xyxy[0] + self.xyxy[2]) / 2, (self.xyxy[1] + self.xyxy[3]) / 2

    @property
    def wh(self) -> tuple[float, float]:
        return self.xyxy[2] - self.xyxy[0], self.xyxy[3] - self.xyxy[1]


def yolox(boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int) -> dict[str, Float32]:
    """Each box in the stride-32 cell that holds its centre."""
    width, height = input_wh
    cells = [(height // step) * (width // step) for step in (8, 16, 32)]
    raw = np.zeros((1, sum(cells), 5 + num_classes), np.float32)
    for box in boxes:
        column, row = (int(v // 32) for v in box.centre)
        at = cells[0] + cells[1] + row * (width // 32) + column
        raw[0, at, :2] = np.array(box.centre) / 32 - (column, row)
        raw[0, at, 2:4] = np.log(np.array(box.wh) / 32)
        raw[0, at, 4] = 1.0
        raw[0, at, 5 + box.class_id] = box.score
    return {"output": raw}


def yolov8(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int, *, anchors: int = 2100
) -> dict[str, Float32]:
    del input_wh
    raw = np.zeros((1, 4 + num_classes, anchors), np.float32)
    for at, box in enumerate(boxes):
        raw[0, :4, 7 * at] = *box.centre, *box.wh
        raw[0, 4 + box.class_id, 7 * at] = box.score
    return {"output0": raw}


def detr(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    names: tuple[str, str] = ("logits", "pred_boxes"),
    boxes_first: bool = False,
) -> dict[str, Float32]:
    logits = np.full((1, 30, num_classes), -9.0, np.float32)
    places = np.full((1, 30, 4), 0.5, np.float32)
    for at, box in enumerate(boxes):
        logits[0, at, box.class_id] = np.log(box.score / (1 - box.score))
        places[0, at] = np.array((*box.centre, *box.wh)) / (*input_wh, *input_wh)
    both = {names[0]: logits, names[1]: places}
    return dict(reversed(both.items())) if boxes_first else both


def detectnet_v2(
    boxes: Sequence[Box], input_wh: tuple[int, int], num_classes: int
) -> dict[str, Float32]:
    """Each box in the stride-16 cell nearest to its centre; see TAO's post-processing."""
    columns, rows = input_wh[0] // 16, input_wh[1] // 16
    coverage = np.zeros((1, num_classes, rows, columns), np.float32)
    edges = np.zeros((1, 4 * num_classes, rows, columns), np.float32)
    for box in boxes:
        column, row = (round(v / 16) for v in box.centre)
        x, y = column * 16 + 0.5, row * 16 + 0.5
        x1, y1, x2, y2 = box.xyxy
        coverage[0, box.class_id, row, column] = box.score
        first = 4 * box.class_id
        edges[0, first : first + 4, row, column] = np.array((x - x1, y - y1, x2 - x, y2 - y)) / 35
    return {"output_bbox/BiasAdd:0": edges, "output_cov/Sigmoid:0": coverage}


def ssd(
    boxes: Sequence[Box],
    input_wh: tuple[int, int],
    num_classes: int,
    *,
    tensorflow: bool = False,
    pixels: bool = False,
) -> dict[str, Float32]:
    del num_classes
    places = np.zeros((1, 10, 4), np.float32)
    classes, scores = np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32)
    for at, box in enumerate(boxes):
        places[0, at] = np.array(box.xyxy) / ((1, 1, 1, 1) if pixels else (*input_wh, *input_wh))
        classes[0, at], scores[0, at] = box.class_id, box.score
    if not tensorflow:
        return {"boxes": places, "labels": classes, "scores": scores}
    return {
        "detection_boxes:0": places[..., [1, 0, 3, 2]],
        "detection_classes:0": classes,
        "detection_scores:0": scores,
        "num_detections:0": np.full((1,), len(boxes), np.float32),
    }


def save_constant(
    path: Path,
    outputs: Mapping[str, NDArray[np.generic]],
    *,
    input_shape: Sequence[int | str] = ("n", 3, "h", "w"),
    input_type: int = TensorProto.FLOAT,
    follow_batch: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model that gives the same outputs for any picture.

    With `follow_batch` each output is repeated along the input's batch dimension; without, the
    batch of one is baked in, as some exports do.
    """
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
    ]
    constants, declared = [], []
    for index, (name, array) in enumerate(outputs.items()):
        constants.append(numpy_helper.from_array(array, f"value{index}"))
        rest = np.array(array.shape[1:], np.int64)
        if follow_batch:
            constants.append(numpy_helper.from_array(rest, f"rest{index}"))
            nodes.append(
                helper.make_node("Concat", ["batch", f"rest{index}"], [f"shape{index}"], axis=0)
            )
            nodes.append(helper.make_node("Expand", [f"value{index}", f"shape{index}"], [name]))
        else:
            nodes.append(helper.make_node("Identity", [f"value{index}"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        declared.append(helper.make_tensor_value_info(name, kind, ["m", *array.shape[1:]]))
    return _save(path, nodes, constants, (input_type, input_shape), declared, metadata=metadata)


def save_mirror(
    path: Path,
    *,
    input_shape: Sequence[int | str] = ("n", 3, "h", "w"),
    input_type: int = TensorProto.FLOAT,
    float16_out: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model of YOLOv8's layout whose only box depends on the picture.

    The box's centre is the mean of channels 0 and 1, its width the mean of channel 2 plus 1000,
    its height 1000, each in the numbers that reached the model; the score is 0.9.
    """
    axes = [1, 2] if input_shape[-1] == 3 else [2, 3]
    floats = {
        "gain": np.array([[1, 1, 1, 0, 0]], np.float32),
        "base": np.array([[0, 0, 1000, 1000, 0.9]], np.float32),
        "ones": np.ones((1, 1, 9), np.float32),
    }
    ints = {"end": np.array([2], np.int64), "zero": np.array([0, 0, 0, 2], np.int64)}
    constants = [numpy_helper.from_array(v, k) for k, v in {**floats, **ints}.items()]
    out_kind = TensorProto.FLOAT16 if float16_out else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["images"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["seen"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Pad", ["mean", "zero"], ["five"]),
        helper.make_node("Mul", ["five", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "base"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "end"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], ["many"]),
        helper.make_node("Cast", ["many"], ["output0"], to=out_kind),
    ]
    declared = [helper.make_tensor_value_info("output0", out_kind, ["m", 5, 9])]
    return _save(path, nodes, constants, (input_type, input_shape), declared, metadata=metadata)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    image: tuple[int, Sequence[int | str]],
    outputs: list[onnx.ValueInfoProto],
    *,
    metadata: Mapping[str, str] | None,
) -> Path:
    images = helper.make_tensor_value_info("images", image[0], list(image[1]))
    graph = helper.make_graph(nodes, "small", [images], outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
