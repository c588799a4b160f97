"""Fits attribute classifiers: a linear layer on frozen features, then, if set, the last blocks.

The features of each training picture, of its mirror image and of a few jittered copies are computed
once; the pictures themselves are needed again only when the last blocks learn.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from storeguard.classification.attributes.crop import Crop, to_pictures
from storeguard.classification.clips.clip import SIDE_PX, cut_out
from storeguard.config.models import Channels, Pixels, Resize
from storeguard.errors import TrainingDivergedError
from storeguard.inference.pixels import PixelFormat
from storeguard.training.attributes.data import LabelledCrop
from storeguard.training.clips.backbones import GRID, Backbone, unfreeze_last_third
from storeguard.training.clips.export import RunBackbone, backbone_runner
from storeguard.training.clips.features import ClipAugmentation
from storeguard.training.clips.heads import Standardise

PIXELS: Final = Pixels.IMAGENET
CHANNELS: Final = Channels.RGB
RESIZE: Final = Resize.LETTERBOX
_FORMAT: Final = PixelFormat(
    pixels=PIXELS, channels=CHANNELS, channels_last=False, dtype=np.dtype(np.float32)
)

Inputs = NDArray[np.float32]
"""(n, 3, SIDE_PX, SIDE_PX) float32, RGB, normalised as ImageNet's."""


class AttributeFitSettings(BaseModel):
    """How a classifier is fitted.

    Attributes:
        epochs: passes over the features at most.
        learning_rate: AdamW's, for the linear layer.
        weight_decay: AdamW's.
        batch_size: pictures; an eighth of it while the backbone learns.
        patience: epochs without a lower validation loss until the best is taken.
        jitters: copies of each training picture that are moved, zoomed, mirrored and recoloured.
        augmentation: of those.
        unfrozen_epochs: passes over the pictures with the backbone's last third learning as well.
        unfrozen_learning_rate: of those.
        seed: of all choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=200, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0, le=10)
    weight_decay: float = Field(default=0.1, ge=0)
    batch_size: int = Field(default=256, ge=1)
    patience: int = Field(default=15, ge=1)
    jitters: int = Field(default=3, ge=0)
    augmentation: ClipAugmentation = ClipAugmentation()
    unfrozen_epochs: int = Field(default=0, ge=0)
    unfrozen_learning_rate: float = Field(default=1e-5, gt=0, le=10)
    seed: int = Field(default=42, ge=0)


class GlobalPool(Backbone):
    """A backbone's maps, averaged over the whole picture instead of over a grid."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__()
        self.inner = inner
        self.num_features = inner.num_features // GRID**2

    def maps(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.inner.maps(pictures)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.maps(pictures).mean(dim=(2, 3))


class AttributeHead(nn.Module):
    """Features (n, num_features) to logits (n, num_labels): standardised, then one linear layer."""

    def __init__(self, num_features: int, num_labels: int) -> None:
        super().__init__()
        self.standardise = Standardise(num_features)
        self.linear = nn.Linear(num_features, num_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.standardise(features))
        return logits


class AttributeModel(nn.Module):
    """Pictures (n, 3, SIDE_PX, SIDE_PX) float32, as `to_inputs` gives, to logits (n, k).

    The logits are logarithms of probabilities, never positive: plain ones that happen to add up to
    serving, which takes both, would take one for probabilities.
    """

    def __init__(self, backbone: Backbone, head: AttributeHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.backbone(pictures))
        return logits.log_softmax(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureBank:
    """Features and what they show.

    Attributes:
        features: (n, num_features) float32.
        label_id: (n,) int64, index in the labels.
    """

    features: torch.Tensor
    label_id: torch.Tensor


def to_inputs(crops: Sequence[Crop]) -> Inputs:
    """What the model is given of n > 0 crops: the same in training and in serving."""
    return _FORMAT.pack(to_pictures(crops, (SIDE_PX, SIDE_PX), resize=RESIZE)).astype(np.float32)


def jittered(crop: Crop, rng: np.random.Generator, augmentation: ClipAugmentation) -> Crop:
    """A training crop, letterboxed, moved, zoomed, perhaps mirrored, and under another light."""
    height, width = crop.shape[:2]
    drawn = augmentation.jitter(rng)
    side = max(height, width) * drawn.zoom
    shift = np.array(drawn.shift) * side
    window = np.array([width / 2 + shift[0], height / 2 + shift[1], side])
    moved = cut_out(augmentation.recolour(crop, rng), window)
    return np.ascontiguousarray(moved[:, ::-1]) if drawn.flip else moved


def training_features(
    run: RunBackbone,
    crops: Sequence[LabelledCrop],
    labels: Sequence[str],
    settings: AttributeFitSettings,
    *,
    progress: Callable[[object], None] = lambda _: None,
) -> FeatureBank:
    """Features of pictures, their mirror images and their jittered copies."""
    rng = np.random.default_rng(settings.seed)
    features, ids = [], []
    for one in crops:
        views = [one.pixels, one.pixels[:, ::-1]]
        views += [jittered(one.pixels, rng, settings.augmentation) for _ in range(settings.jitters)]
        features.append(run(to_inputs(views)))
        ids += [labels.index(one.label)] * len(views)
        progress(one)
    return FeatureBank(torch.from_numpy(np.concatenate(features)), torch.tensor(ids))


def plain_features(
    run: RunBackbone,
    crops: Sequence[LabelledCrop],
    labels: Sequence[str],
    *,
    progress: Callable[[object], None] = lambda _: None,
) -> FeatureBank:
    """Features of pictures as serving sees them."""
    features = []
    for one in crops:
        features.append(run(to_inputs([one.pixels])))
        progress(one)
    ids = [labels.index(one.label) for one in crops]
    return FeatureBank(torch.from_numpy(np.concatenate(features)), torch.tensor(ids))


def fit_head(
    head: AttributeHead,
    train: FeatureBank,
    validation: FeatureBank,
    settings: AttributeFitSettings,
    *,
    progress: Callable[[object], None] = lambda _: None,
) -> list[float]:
    """Fit the linear layer; returns the validation loss of each epoch.

    Labels weigh the same however many pictures they have. The weights of the epoch with the lowest
    validation loss are taken.

    Raises:
        TrainingDivergedError: a loss became infinite or not a number.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    head.standardise.learn(train.features.unsqueeze(1))
    weight = class_weights(train.label_id, head.linear.out_features)
    optimiser = torch.optim.AdamW(
        head.linear.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    best, lowest, waited = copy.deepcopy(head.state_dict()), math.inf, 0
    losses: list[float] = []
    for epoch in range(settings.epochs):
        order = torch.randperm(len(train.label_id), generator=generator)
        for rows in torch.split(order, settings.batch_size):
            logits = head(train.features[rows])
            _step(functional.cross_entropy(logits, train.label_id[rows], weight), optimiser)
        losses.append(validation_loss(head, validation, weight))
        progress(epoch)
        if losses[-1] < lowest:
            best, lowest, waited = copy.deepcopy(head.state_dict()), losses[-1], 0
        elif (waited := waited + 1) >= settings.patience:
            break
    head.load_state_dict(best)
    return losses


def fit_whole(
    model: AttributeModel,
    train: Sequence[LabelledCrop],
    validation: Sequence[LabelledCrop],
    labels: Sequence[str],
    settings: AttributeFitSettings,
    *,
    progress: Callable[[object], None] = lambda _: None,
) -> list[float]:
    """Continue with the backbone's last third unfrozen, from jittered pictures.

    The weights with the lowest validation loss are taken, those from before among them. Runs in
    mixed precision on a GPU. Returns the validation loss of each epoch.

    Args:
        model: with a fitted head, on the device to train on.
        train, validation: the pictures.
        labels: the model's.
        settings: how.
        progress: called after each epoch.

    Raises:
        TrainingDivergedError: a loss became infinite or not a number.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    device = next(model.parameters()).device
    unfreeze_last_third(model.backbone)
    label_id = torch.tensor([labels.index(one.label) for one in train])
    weight = class_weights(label_id, len(labels))
    learning = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(
        learning, settings.unfrozen_learning_rate, weight_decay=settings.weight_decay
    )
    best, lowest = copy.deepcopy(model.state_dict()), _judge(model, validation, labels, weight)
    losses: list[float] = []
    per_batch = max(1, settings.batch_size // 8)
    for epoch in range(settings.unfrozen_epochs):
        model.eval()  # the running statistics of ImageNet stay
        order = torch.randperm(len(train), generator=generator)
        for rows in torch.split(order, per_batch):
            views = [jittered(train[i].pixels, rng, settings.augmentation) for i in rows.tolist()]
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                logits = model(torch.from_numpy(to_inputs(views)).to(device))
            logits = logits.float().cpu()
            _step(functional.cross_entropy(logits, label_id[rows], weight), optimiser)
        losses.append(_judge(model, validation, labels, weight))
        progress(epoch)
        if losses[-1] < lowest:
            best, lowest = copy.deepcopy(model.state_dict()), losses[-1]
    model.load_state_dict(best)
    return losses


def class_weights(label_id: torch.Tensor, num_labels: int) -> torch.Tensor:
    """(num_labels,) float32 with which every label weighs the same; their mean over rows is 1."""
    counts = torch.bincount(label_id, minlength=num_labels)
    return len(label_id) / (num_labels * counts.clamp_min(1)).float()


@torch.inference_mode()
def validation_loss(head: AttributeHead, bank: FeatureBank, weight: torch.Tensor) -> float:
    """Cross entropy, each label weighing as in training.

    Raises:
        TrainingDivergedError: it is infinite or not a number.
    """
    return _finite(functional.cross_entropy(head(bank.features), bank.label_id, weight))


def _judge(
    model: AttributeModel,
    validation: Sequence[LabelledCrop],
    labels: Sequence[str],
    weight: torch.Tensor,
) -> float:
    bank = plain_features(backbone_runner(model.backbone), validation, labels)
    return validation_loss(copy.deepcopy(model.head).cpu(), bank, weight)


def _step(loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
    _finite(loss.detach())
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _finite(loss: torch.Tensor) -> float:
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingDivergedError(
            f"the loss became {value}: lower the learning rate, or search for broken weights"
        )
    return value
