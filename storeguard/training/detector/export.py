"""Writes the person detector as an ONNX file that takes camera pixels as they are.

The graph is written node by node from the model's parameters instead of being traced: batch, height
and width stay free, initialisers keep the parameters' names (so that training can start from an
exported file), and casting and transposing of the pixels are part of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from storeguard.files import write_atomically
from storeguard.training.detector.model import (
    Bottleneck,
    Conv,
    CspLayer,
    DepthwiseConv,
    HeadLevel,
    PersonDetector,
    SpatialPyramid,
)

OPSET = 17
IR_VERSION = 8  # read by onnxruntime 1.13 and later


def export_detector(
    model: PersonDetector, path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write `model` to `path`, whole or not at all.

    The file's input `images` is uint8 (N, H, W, 3) RGB, 0..255, H and W multiples of 32, all three
    free. Its output `output` is float32 (N, A, 6), A = H*W/64 + H*W/256 + H*W/1024 in stride order
    8, 16, 32: cx, cy, w, h in raw grid units (centre = (cxcy + cell) * stride,
    size = exp(wh) * stride), then the probabilities of objectness and of person.

    Args:
        model: the trained network, on the CPU.
        path: the .onnx file to write; its folder must exist.
        metadata: key-value properties stored in the file.
    """
    graph = _Graph(model)
    graph.detector(model)
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", "a", 6])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "person_detector", [images], [output], graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="storeguard",
    )
    proto.ir_version = IR_VERSION
    helper.set_model_props(proto, dict(metadata or {}))
    onnx.checker.check_model(proto)
    write_atomically(path, proto.SerializeToString())


class _Graph:
    """Nodes and tensors in the making; every method adds nodes and returns its output's name."""

    def __init__(self, model: nn.Module) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._names = {module: name for name, module in model.named_modules()}

    def detector(self, m: PersonDetector) -> None:
        x = self._add("Cast", ["images"], to=TensorProto.FLOAT)
        x = self._add("Transpose", [x], perm=[0, 3, 1, 2])
        c3 = self._run(x, m.stem, m.down2, m.dark2, m.down3, m.dark3)
        c4 = self._run(c3, m.down4, m.dark4)
        c5 = self._run(c4, m.down5, m.pyramid, m.dark5)
        p5 = self._run(c5, m.lateral5)
        p4 = self._run(self._concat([self._twice(p5), c4]), m.top_down4, m.lateral4)
        out3 = self._run(self._concat([self._twice(p4), c3]), m.top_down3)
        out4 = self._run(self._concat([self._run(out3, m.down_out3), p4]), m.bottom_up4)
        out5 = self._run(self._concat([self._run(out4, m.down_out4), p5]), m.bottom_up5)
        rows = self._constant("rows", np.array([0, 6, -1], np.int64))
        levels = [
            self._add("Reshape", [self._run(out, head), rows])
            for out, head in zip((out3, out4, out5), m.heads, strict=True)
        ]
        self._add("Transpose", [self._concat(levels, axis=2)], "output", perm=[0, 2, 1])

    def _run(self, x: str, *modules: nn.Module) -> str:
        for module in modules:
            x = self._module(module, x)
        return x

    def _module(self, module: nn.Module, x: str) -> str:  # noqa: PLR0911  # one per kind
        match module:
            case Conv():
                x = self._conv(module.conv, x)
                return self._add("Mul", [x, self._add("Sigmoid", [x])])
            case nn.Conv2d():
                return self._conv(module, x)
            case DepthwiseConv():
                return self._run(x, module.depthwise, module.pointwise)
            case Bottleneck():
                y = self._run(x, module.reduce, module.spatial)
                return self._add("Add", [y, x]) if module.shortcut else y
            case CspLayer():
                main = self._run(x, module.main, *module.blocks)
                return self._run(self._concat([main, self._run(x, module.bypass)]), module.join)
            case SpatialPyramid():
                x = self._run(x, module.reduce)
                pools = [
                    self._add("MaxPool", [x], kernel_shape=[k, k], pads=[k // 2] * 4)
                    for k in module.kernels
                ]
                return self._run(self._concat([x, *pools]), module.join)
            case HeadLevel():
                x = self._run(x, module.stem)
                regression = self._run(x, *module.reg_convs)
                boxes = self._run(regression, module.reg_pred)
                objectness = self._add("Sigmoid", [self._run(regression, module.obj_pred)])
                person = self._run(x, *module.cls_convs, module.cls_pred)
                return self._concat([boxes, objectness, self._add("Sigmoid", [person])])
            case _:
                raise TypeError(f"no ONNX form is written for {type(module).__name__}")

    def _conv(self, conv: nn.Conv2d, x: str) -> str:
        name = self._names[conv]
        parts = {"weight": conv.weight, "bias": conv.bias}
        inputs = [x]
        for kind, parameter in parts.items():
            if parameter is not None:
                values = parameter.detach().numpy()
                inputs.append(self._constant(f"{name}.{kind}", values))
        return self._add(
            "Conv",
            inputs,
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[int(p) for p in conv.padding] * 2,
            group=conv.groups,
        )

    def _twice(self, x: str) -> str:
        factors = self._constant("twice", np.array([1, 1, 2, 2], np.float32))
        # These three settings together are torch's nearest neighbour at factor 2.
        return self._add(
            "Resize",
            [x, "", factors],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _concat(self, inputs: list[str], axis: int = 1) -> str:
        return self._add("Concat", inputs, axis=axis)

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        if all(tensor.name != name for tensor in self.tensors):
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name
