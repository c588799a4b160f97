"""What turns the features of a clip's pictures into one logit; and the clip classifier itself."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate

import torch
from torch import nn
from torch.nn import functional

from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX
from storeguard.training.clips.backbones import (
    Backbone,
    CloseupLite0,
    EfficientNetLite0,
    MobileNetV3Small,
)

_DROPOUT = 0.5


class BackboneName(StrEnum):
    """The picture networks there are."""

    EFFICIENTNET_LITE0 = "efficientnet-lite0"
    EFFICIENTNET_LITE0_CLOSEUP = "efficientnet-lite0-closeup"
    MOBILENETV3_SMALL = "mobilenetv3-small"


class HeadName(StrEnum):
    """The temporal heads there are; `resnet3d` takes pictures, not features."""

    TAP = "tap"
    TT = "tt"
    LSTM = "lstm"
    RESNET3D = "resnet3d"


class Standardise(nn.Module):
    """Takes the training clips' mean from features, and divides by their common deviation.

    One deviation for all: features that hardly vary would otherwise weigh as much as the others.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("deviation", torch.ones(1))

    def learn(self, features: torch.Tensor) -> None:
        """From (n, CLIP_FRAMES, num_features) of training clips."""
        self.mean.copy_(features.mean(dim=(0, 1)))
        self.deviation.copy_(features.std(dim=(0, 1)).mean().clamp_min(1e-6))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = (features - self.mean) / self.deviation
        return scaled


class Head(nn.Module):
    """Features (n, CLIP_FRAMES, num_features) to logits (n,).

    Every head has a linear layer that starts from ridge regression on the mean over time
    (`storeguard.training.clips.fit`), and what is its own starts from nothing: with dozens of
    videos a head that has to find everything by gradient descent does worse than the regression.

    Args:
        num_features: of each picture.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.standardise = Standardise(num_features)
        self.linear = nn.Linear(num_features, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.classify(self.standardise(features))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features to logits."""
        raise NotImplementedError

    def baseline(self, features: torch.Tensor) -> torch.Tensor:
        """The linear layer's word on the mean over time: logits (n,)."""
        logits: torch.Tensor = self.linear(features.mean(dim=1))
        return logits.squeeze(1)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TemporalAttentionPooling(Head):
    """A weighted mean over time, the weights learnt, before the linear layer (TAP)."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.attention = _zeroed(nn.Linear(num_features, 1))
        self.dropout = nn.Dropout(_DROPOUT)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        weights = self.attention(features).softmax(dim=1)
        logits: torch.Tensor = self.linear(self.dropout((weights * features).sum(dim=1)))
        return logits.squeeze(1)


class TinyTransformer(Head):
    """One transformer layer of width 64 with 2 heads over the clip's moments (TT)."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        width = 64
        self.dropout = nn.Dropout(_DROPOUT)
        self.squeeze = nn.Linear(num_features, width)
        self.position = nn.Parameter(torch.zeros(1, CLIP_FRAMES, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, 2, dim_feedforward=2 * width, dropout=0.2, batch_first=True, norm_first=True
        )
        self.output = nn.Sequential(nn.LayerNorm(width), _zeroed(nn.Linear(width, 1)))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        inner = self.layer(self.squeeze(self.dropout(features)) + self.position)
        more: torch.Tensor = self.output(inner.mean(dim=1))
        return self.baseline(features) + more.squeeze(1)


class RecurrentHead(Head):
    """Two LSTM layers of 256; the last moment's state is classified (LSTM)."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.dropout = nn.Dropout(_DROPOUT)
        self.lstm = nn.LSTM(num_features, 256, num_layers=2, batch_first=True, dropout=0.3)
        self.output = _zeroed(nn.Linear(256, 1))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        inner, _ = self.lstm(self.dropout(features))
        more: torch.Tensor = self.output(inner[:, -1])
        return self.baseline(features) + more.squeeze(1)


class PerView(nn.Module):
    """A head for each view of the pictures; the clip's logit is the mean of theirs.

    Fitted together, the view with the most features would outweigh the others.

    Args:
        heads: one a view.
        views: how many features each view gives, in their order.
    """

    def __init__(self, heads: Sequence[Head], views: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        ends = list(accumulate(views))
        self.slices = [slice(end - size, end) for end, size in zip(ends, views, strict=True)]
        """Which features each view gives."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits = [
            head(features[..., seen]) for head, seen in zip(self.heads, self.slices, strict=True)
        ]
        return torch.stack(logits).mean(dim=0)


class _Block3d(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels, 3, stride, 1, bias=False)
        self.first_bn = nn.BatchNorm3d(channels)
        self.second = nn.Conv3d(channels, channels, 3, 1, 1, bias=False)
        self.second_bn = nn.BatchNorm3d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Sequential(
                nn.Conv3d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm3d(channels)
            )
        )

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first_bn(self.first(clips)))
        inner = self.second_bn(self.second(inner))
        return torch.relu(inner + self.shortcut(clips))


class ResNet3d18(nn.Module):
    """The 3D ResNet-18 of action recognition (Tran et al. 2018, R3D-18); learns from pictures.

    Takes them at half their side, 112 pixels, as published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
        )
        plan = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Block3d(before, after, stride), _Block3d(after, after, 1))
                for before, after, stride in plan
            )
        )
        self.classify = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(512, 1))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        pictures = clips.transpose(1, 2)
        if clips.shape[-1] == SIDE_PX:
            pictures = functional.avg_pool3d(pictures, (1, 2, 2))
        inner = self.stages(self.stem(pictures))
        logits: torch.Tensor = self.classify(inner.mean(dim=(2, 3, 4)))
        return logits.squeeze(1)


class ClipModel(nn.Module):
    """Clips (n, CLIP_FRAMES, 3, side, side) float32, normalised, to logits (n,).

    Args:
        backbone: turns each picture into features; frozen by default.
        head: classifies the features of all of a clip's pictures.
    """

    def __init__(self, backbone: Backbone, head: Head | PerView) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(clips))
        return logits

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """(n, CLIP_FRAMES, num_features) of clips, each picture by itself."""
        count, moments = clips.shape[:2]
        found: torch.Tensor = self.backbone(clips.flatten(0, 1))
        return found.view(count, moments, -1)


def make_backbone(name: BackboneName) -> Backbone:
    """An untrained backbone."""
    match name:
        case BackboneName.EFFICIENTNET_LITE0:
            return EfficientNetLite0()
        case BackboneName.EFFICIENTNET_LITE0_CLOSEUP:
            return CloseupLite0()
        case BackboneName.MOBILENETV3_SMALL:
            return MobileNetV3Small()


def make_head(name: HeadName, *views: int) -> Head | PerView:
    """An untrained head over features; not for `resnet3d`, which takes pictures.

    Args:
        name: which.
        views: the backbone's, `Backbone.views`.
    """
    heads = [_head(name, num_features) for num_features in views]
    return heads[0] if len(heads) == 1 else PerView(heads, views)


def _head(name: HeadName, num_features: int) -> Head:
    match name:
        case HeadName.TAP:
            return TemporalAttentionPooling(num_features)
        case HeadName.TT:
            return TinyTransformer(num_features)
        case HeadName.LSTM:
            return RecurrentHead(num_features)
        case HeadName.RESNET3D:
            raise ValueError("resnet3d is a whole model, not a head over features")
