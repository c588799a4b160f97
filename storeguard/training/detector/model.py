"""The person detector: YOLOX-nano in plain torch, with one class.

A depthwise CSPDarknet (depth 0.33, width 0.25), a PAFPN and a decoupled head, after "YOLOX:
Exceeding YOLO Series in 2021" (https://arxiv.org/abs/2107.08430). Three things differ from the
published network, none of which changes what it computes:

- Batch normalisation is folded into the convolutions. The weights we start from are published
  that way, fine-tuning on small data sets has no use for batch statistics of mixed scenes, and
  what is trained is then exactly what is exported.
- The focus layer (space-to-depth, then a 3x3 convolution over 12 channels) is written as the 6x6
  convolution with stride 2 that it is equal to: one pass over the pixels instead of nine.
- The first convolution takes RGB. The channel swap is done once, on the weights, when they are
  loaded.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from storeguard.errors import StoreguardError

STRIDES = (8, 16, 32)
"""Input pixels per cell of each output level, in the order of the output's rows."""

HEAD_WIDTH = 64
PRIOR_PROBABILITY = 0.01


class WeightsError(StoreguardError, ValueError):
    """A weights file does not hold a YOLOX-nano person detector."""


class Conv(nn.Module):
    """Convolution with bias, then SiLU (the network's only non-linearity)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        # Also fits the 6x6 stem: 2 on either side, and the output's size is halved.
        padding = (kernel - 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.conv(x), inplace=True)


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution, then a 1x1 convolution over the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, kernel=3, stride=stride, groups=inputs)
        self.pointwise = Conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class Bottleneck(nn.Module):
    """1x1, then depthwise 3x3; adds its input where `shortcut` is set."""

    def __init__(self, width: int, *, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.reduce = Conv(width, width)
        self.spatial = DepthwiseConv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.spatial(self.reduce(x))
        return out + x if self.shortcut else out


class CspLayer(nn.Module):
    """Two half-width branches, one of them through `depth` bottlenecks, joined by a 1x1."""

    def __init__(self, inputs: int, outputs: int, *, depth: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.main = Conv(inputs, half)
        self.bypass = Conv(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half, shortcut=shortcut) for _ in range(depth)))
        self.join = Conv(2 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.join(torch.cat([self.blocks(self.main(x)), self.bypass(x)], 1))
        return out


class SpatialPyramid(nn.Module):
    """Max pools of 5, 9 and 13 next to the input: the last stage's view of the whole picture."""

    kernels = (5, 9, 13)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = Conv(width, width // 2)
        self.join = Conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        pools = [nn.functional.max_pool2d(x, k, stride=1, padding=k // 2) for k in self.kernels]
        out: Tensor = self.join(torch.cat([x, *pools], 1))
        return out


class HeadLevel(nn.Module):
    """The decoupled head of one level: (N, C, H, W) features to (N, 6, H, W) raw predictions."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        width = HEAD_WIDTH
        self.stem = Conv(inputs, width)
        self.cls_convs = nn.Sequential(DepthwiseConv(width, width), DepthwiseConv(width, width))
        self.reg_convs = nn.Sequential(DepthwiseConv(width, width), DepthwiseConv(width, width))
        self.reg_pred = nn.Conv2d(width, 4, 1)
        self.obj_pred = nn.Conv2d(width, 1, 1)
        self.cls_pred = nn.Conv2d(width, 1, 1)
        # As published: every cell begins at a low probability, which keeps the first steps stable.
        bias = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        for pred in (self.obj_pred, self.cls_pred):
            pred.bias = nn.Parameter(torch.full((1,), bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        regression = self.reg_convs(x)
        return torch.cat(
            [
                self.reg_pred(regression),
                self.obj_pred(regression),
                self.cls_pred(self.cls_convs(x)),
            ],
            1,
        )


class PersonDetector(nn.Module):
    """YOLOX-nano with one class, person.

    `forward` takes float32 (N, 3, H, W), RGB, 0..255, H and W multiples of 32, and returns float32
    (N, A, 6) with A = H*W/64 + H*W/256 + H*W/1024 rows in stride order 8, 16, 32, each row-major:
    cx, cy, w, h in raw grid units, then the logits of objectness and of person. `decode_boxes`
    gives pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        # Members are declared in the order they run in: `load_weights` relies on it.
        self.stem = Conv(3, 16, kernel=6, stride=2)
        self.down2 = DepthwiseConv(16, 32, stride=2)
        self.dark2 = CspLayer(32, 32, depth=1)
        self.down3 = DepthwiseConv(32, 64, stride=2)
        self.dark3 = CspLayer(64, 64, depth=3)
        self.down4 = DepthwiseConv(64, 128, stride=2)
        self.dark4 = CspLayer(128, 128, depth=3)
        self.down5 = DepthwiseConv(128, 256, stride=2)
        self.pyramid = SpatialPyramid(256)
        self.dark5 = CspLayer(256, 256, depth=1, shortcut=False)
        self.lateral5 = Conv(256, 128)
        self.top_down4 = CspLayer(256, 128, depth=1, shortcut=False)
        self.lateral4 = Conv(128, 64)
        self.top_down3 = CspLayer(128, 64, depth=1, shortcut=False)
        self.down_out3 = DepthwiseConv(64, 64, stride=2)
        self.bottom_up4 = CspLayer(128, 128, depth=1, shortcut=False)
        self.down_out4 = DepthwiseConv(128, 128, stride=2)
        self.bottom_up5 = CspLayer(256, 256, depth=1, shortcut=False)
        self.heads = nn.ModuleList([HeadLevel(64), HeadLevel(128), HeadLevel(256)])

    def forward(self, images: Tensor) -> Tensor:
        c3 = self.dark3(self.down3(self.dark2(self.down2(self.stem(images)))))
        c4 = self.dark4(self.down4(c3))
        c5 = self.dark5(self.pyramid(self.down5(c4)))
        p5 = self.lateral5(c5)
        p4 = self.lateral4(self.top_down4(torch.cat([_twice(p5), c4], 1)))
        out3 = self.top_down3(torch.cat([_twice(p4), c3], 1))
        out4 = self.bottom_up4(torch.cat([self.down_out3(out3), p4], 1))
        out5 = self.bottom_up5(torch.cat([self.down_out4(out4), p5], 1))
        levels = [head(x) for head, x in zip(self.heads, (out3, out4, out5), strict=True)]
        return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)

    def freeze_early(self) -> None:
        """Stop training of the first two stages: edges and colours, whose training costs most."""
        for module in (self.stem, self.down2, self.dark2):
            module.requires_grad_(False)


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


def grid_cells(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cells' corners x, y in grid units (A, 2) and their strides (A, 1), float32."""
    corners, strides = [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corners.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((rows * columns, 1), stride))
    return torch.cat(corners).float(), torch.cat(strides).float()


def decode_boxes(raw: Tensor, corners: Tensor, strides: Tensor) -> Tensor:
    """Turn raw (..., A, 4) cx, cy, w, h in grid units into cx, cy, w, h in input pixels."""
    # exp() of an untrained size can overflow; 10 is 22026 cells, far beyond any picture.
    return torch.cat(
        [(raw[..., :2] + corners) * strides, raw[..., 2:4].clamp(max=10).exp() * strides], -1
    )


def load_weights(model: PersonDetector, path: Path) -> None:
    """Load weights into `model` from an ONNX file.

    Takes a file that `export_detector` wrote (initialisers named like the model's parameters), or a
    published yolox_nano.onnx with folded batch normalisation, of which the first class (person) is
    kept.

    Raises:
        WeightsError: the file is neither.
    """
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises protobuf's errors, OSError and its own
        raise WeightsError(f"{path}: expected an ONNX file: {error}") from error
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    expected = model.state_dict()
    if set(expected) <= set(arrays):
        found = {name: arrays[name] for name in expected}
    else:
        found = _from_published(model, graph, arrays, path)
    for name, parameter in expected.items():
        if found[name].shape != tuple(parameter.shape):
            raise WeightsError(
                f"{path}: {name}: expected shape {tuple(parameter.shape)}, "
                f"found {found[name].shape}"
            )
    model.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in found.items()})


def _from_published(
    model: PersonDetector,
    graph: onnx.GraphProto,
    arrays: dict[str, NDArray[np.float32]],
    path: Path,
) -> dict[str, NDArray[np.float32]]:
    """Match the published graph's convolutions, in the order they run in, with the model's."""
    named = {f"head.{part}_preds.{level}" for part in ("cls", "reg", "obj") for level in range(3)}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    chain = [n for n in convolutions if n.input[1].removesuffix(".weight") not in named]
    slots = [
        name.removesuffix(".weight")
        for name, parameter in model.named_parameters()
        if name.endswith(".conv.weight") and parameter.ndim == 4
    ]
    if len(chain) != len(slots) or len(convolutions) != len(slots) + len(named):
        raise WeightsError(
            f"{path}: expected YOLOX-nano with {len(slots) + len(named)} convolutions, "
            f"found {len(convolutions)}"
        )
    found: dict[str, NDArray[np.float32]] = {}
    for slot, node in zip(slots, chain, strict=True):
        found[f"{slot}.weight"], found[f"{slot}.bias"] = (
            arrays[node.input[1]],
            arrays[node.input[2]],
        )
    found["stem.conv.weight"] = _unfold_focus(found["stem.conv.weight"])
    for level in range(3):
        for part in ("reg", "obj", "cls"):
            for kind in ("weight", "bias"):
                values = arrays[f"head.{part}_preds.{level}.{kind}"]
                rows = slice(0, 4 if part == "reg" else 1)  # class 0 of COCO is person
                found[f"heads.{level}.{part}_pred.{kind}"] = values[rows]
    return found


def _unfold_focus(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the focus layer's (O, 12, 3, 3) weights for BGR into (O, 3, 6, 6) for RGB.

    Focus stacks the pixels of each 2x2 block as top-left, bottom-left, top-right, bottom-right,
    three channels each. Tap (u, v) of the 3x3 kernel on block pixel (dy, dx) is tap
    (2u + dy, 2v + dx).
    """
    out = np.zeros((weight.shape[0], 3, 6, 6), dtype=weight.dtype)
    for block, (dy, dx) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        out[:, :, dy::2, dx::2] = weight[:, 3 * block : 3 * block + 3]
    return np.ascontiguousarray(out[:, ::-1])
