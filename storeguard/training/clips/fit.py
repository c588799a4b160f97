"""Fits clip classifiers: a head on a bank of features, then, if requested, the backbone too."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from storeguard.classification.clips.classifier import top_mean
from storeguard.classification.clips.clip import to_input
from storeguard.errors import TrainingDivergedError
from storeguard.training.clips.backbones import unfreeze_last_third
from storeguard.training.clips.data import ClipDatasetError, FollowedVideo
from storeguard.training.clips.evaluate import VideoScore, area_under_roc
from storeguard.training.clips.features import (
    ClipAugmentation,
    VideoFeatures,
    draw_clip,
)
from storeguard.training.clips.heads import ClipModel, Head, PerView


class ClipFitSettings(BaseModel):
    """How a classifier is fitted.

    Attributes:
        ridge: strength of the regression that the linear layer starts from.
        ridge_gain: logit of a clip that the regression puts squarely into a class.
        epochs: passes over the bank with the backbone frozen.
        learning_rate: AdamW's highest; it rises and falls over the run.
        weight_decay: AdamW's.
        batch_size: clips.
        label_smoothing: labels are drawn this far towards one half.
        patience: epochs without a better validation AUC until the best is taken; only where there
            are validation videos.
        unfrozen_epochs: passes over the videos with the backbone's last third learning as well.
        unfrozen_learning_rate: of those.
        train_starts: random clips a video and unfrozen epoch.
        seed: of all choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ridge: float = Field(default=0.3, gt=0)
    ridge_gain: float = Field(default=2.0, gt=0)
    epochs: int = Field(default=3, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    batch_size: int = Field(default=32, ge=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    patience: int = Field(default=3, ge=1)
    unfrozen_epochs: int = Field(default=0, ge=0)
    unfrozen_learning_rate: float = Field(default=1e-5, gt=0)
    train_starts: int = Field(default=6, ge=1)
    seed: int = Field(default=42, ge=0)


@dataclass(frozen=True, slots=True, eq=False)
class _Clips:
    features: torch.Tensor  # (n, CLIP_FRAMES, num_features)
    positive: torch.Tensor  # (n,) 0 or 1
    weight: torch.Tensor  # (n,) so that both classes weigh the same


def fit_head(
    head: Head | PerView,
    train: Sequence[VideoFeatures],
    settings: ClipFitSettings,
    *,
    validation: Sequence[VideoFeatures] = (),
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> list[float]:
    """Fit a head to a bank of features; returns each epoch's mean loss.

    Args:
        head: untrained; is trained in place. One with several views is fitted view by view.
        train: videos; those without a person are left out.
        settings: how.
        validation: for early stopping; disjoint from `train`.
        on_epoch: called with each epoch's number and loss.

    Raises:
        ClipDatasetError: one class alone is left to train on.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    if isinstance(head, PerView):
        return _fit_each(head, train, settings, validation=validation, on_epoch=on_epoch)
    torch.manual_seed(settings.seed)
    clips = _gather(train)
    head.standardise.learn(clips.features)
    _start_from_ridge(head, clips, settings)
    batches = max(1, math.ceil(len(clips.positive) / settings.batch_size))
    optimiser, schedule = _optimiser(
        head, settings.learning_rate, settings, steps=batches * settings.epochs
    )
    best, best_auc, waited = copy.deepcopy(head.state_dict()), -1.0, 0
    losses = []
    for epoch in range(settings.epochs):
        head.train()
        total = 0.0
        for _ in range(batches):
            chosen = torch.multinomial(clips.weight, settings.batch_size, replacement=True)
            loss = _loss(head(clips.features[chosen]), clips.positive[chosen], settings)
            total += _step(loss, optimiser, schedule)
        losses.append(total / batches)
        on_epoch(epoch, losses[-1])
        if validation:
            auc = _auc(score_videos(head, validation))
            if auc > best_auc:
                best, best_auc, waited = copy.deepcopy(head.state_dict()), auc, 0
            elif (waited := waited + 1) >= settings.patience:
                break
    if validation and settings.epochs:
        head.load_state_dict(best)
    head.eval()
    return losses


def _fit_each(
    head: PerView,
    train: Sequence[VideoFeatures],
    settings: ClipFitSettings,
    *,
    validation: Sequence[VideoFeatures],
    on_epoch: Callable[[int, float], None],
) -> list[float]:
    """Fit the head of each view to its part of the features; losses of all, one after the other."""
    losses: list[float] = []
    for part, seen in zip(head.heads, head.slices, strict=True):
        losses += fit_head(
            cast("Head", part),
            [_look(one, seen) for one in train],
            settings,
            validation=[_look(one, seen) for one in validation],
            on_epoch=on_epoch,
        )
    return losses


def _look(one: VideoFeatures, seen: slice) -> VideoFeatures:
    return replace(one, train=one.train[..., seen], test=one.test[..., seen])


def fit_whole(
    model: nn.Module,
    train: Sequence[FollowedVideo],
    settings: ClipFitSettings,
    *,
    augmentation: ClipAugmentation,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> list[float]:
    """Continue with the backbone's last third unfrozen, from pictures; all of a model without one.

    A model without a backbone learns from nothing: for `epochs`, at `learning_rate`. Runs in mixed
    precision on a GPU. Returns each epoch's mean loss.

    Raises:
        ClipDatasetError: one class alone is there to train on.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    videos = [video for video in train if video.has_person]
    _require_both_classes(videos)
    device = next(model.parameters()).device
    epochs, rate = settings.epochs, settings.learning_rate
    if isinstance(model, ClipModel):
        epochs, rate = settings.unfrozen_epochs, settings.unfrozen_learning_rate
        unfreeze_last_third(model.backbone)
    per_batch = max(1, settings.batch_size // 4)
    num_clips = len(videos) * settings.train_starts
    batches = math.ceil(num_clips / per_batch)
    optimiser, schedule = _optimiser(model, rate, settings, steps=batches * epochs)
    chance = _class_weights(torch.tensor([float(one.video.positive) for one in videos]))
    losses = []
    for epoch in range(epochs):
        model.train()
        if isinstance(model, ClipModel):
            model.backbone.eval()  # the running statistics of ImageNet stay
        total = 0.0
        for _ in range(batches):
            picked = torch.multinomial(chance, per_batch, replacement=True).tolist()
            clips = to_input([draw_clip(videos[i], rng, augmentation) for i in picked])
            positive = torch.tensor([float(videos[i].video.positive) for i in picked])
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                logits = model(torch.from_numpy(clips).to(device))
            total += _step(
                _loss(logits.float(), positive.to(device), settings), optimiser, schedule
            )
        losses.append(total / batches)
        on_epoch(epoch, losses[-1])
    model.eval()
    return losses


@torch.inference_mode()
def score_videos(head: Head | PerView, videos: Sequence[VideoFeatures]) -> list[VideoScore]:
    """Each video's score by its plain clips: the mean of the top ones' probabilities."""
    head.eval()
    return [
        _scored(one.followed, head(torch.from_numpy(one.test)) if len(one.test) else None)
        for one in videos
    ]


@torch.inference_mode()
def score_from_pictures(model: nn.Module, videos: Sequence[FollowedVideo]) -> list[VideoScore]:
    """The same by a whole model, on the model's device."""
    model.eval()
    device = next(model.parameters()).device
    scored = []
    for one in videos:
        ends = one.uniform_ends() if one.has_person else []
        logits = [
            model(torch.from_numpy(to_input([one.clip(end_s)])).to(device)).float().cpu()
            for end_s in ends
        ]
        scored.append(_scored(one, torch.cat(logits) if logits else None))
    return scored


def _scored(followed: FollowedVideo, logits: torch.Tensor | None) -> VideoScore:
    scores = [] if logits is None else torch.sigmoid(logits).tolist()
    video, frame_s = followed.video, followed.frame_s
    return VideoScore(
        video.name,
        video.group,
        video.positive,
        top_mean(scores),
        float(frame_s[-1] - frame_s[0]) if len(frame_s) > 1 else 0.0,
    )


def _gather(videos: Sequence[VideoFeatures]) -> _Clips:
    there = [one for one in videos if len(one.test)]
    features = [np.concatenate([one.train, one.test]) for one in there]
    positive = [
        np.full(len(found), float(one.followed.video.positive), np.float32)
        for one, found in zip(there, features, strict=True)
    ]
    _require_both_classes([one.followed for one in there])
    labels = torch.from_numpy(np.concatenate(positive))
    return _Clips(torch.from_numpy(np.concatenate(features)), labels, _class_weights(labels))


def _require_both_classes(videos: Sequence[FollowedVideo]) -> None:
    if len({one.video.positive for one in videos}) < 2:
        raise ClipDatasetError(
            f"expected videos of both classes with a person in view to train on, got {len(videos)} "
            "of one class"
        )


def _class_weights(positive: torch.Tensor) -> torch.Tensor:
    num_positive = positive.sum()
    return torch.where(positive > 0, 1 / num_positive, 1 / (len(positive) - num_positive))


@torch.no_grad()
def _start_from_ridge(head: Head, clips: _Clips, settings: ClipFitSettings) -> None:
    """Weighted ridge regression of +-1 on the mean over time, in its dual form (n < features)."""
    means = head.standardise(clips.features).mean(dim=1).double()
    weight = (clips.weight * len(clips.weight) / clips.weight.sum()).double()
    root = weight.sqrt().unsqueeze(1)
    rows = means * root
    gram = rows @ rows.T
    strength = settings.ridge * len(rows)
    target = (clips.positive.double() * 2 - 1).unsqueeze(1) * root
    dual = torch.linalg.solve(gram + strength * torch.eye(len(rows), dtype=gram.dtype), target)
    head.linear.weight.copy_((rows.T @ dual).T * settings.ridge_gain)
    head.linear.bias.zero_()


def _optimiser(
    model: nn.Module, rate: float, settings: ClipFitSettings, *, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    learning = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(learning, rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(2, steps))
    return optimiser, schedule


def _loss(logits: torch.Tensor, positive: torch.Tensor, settings: ClipFitSettings) -> torch.Tensor:
    smooth = settings.label_smoothing
    return functional.binary_cross_entropy_with_logits(logits, positive * (1 - smooth) + smooth / 2)


def _step(
    loss: torch.Tensor,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingDivergedError(
            f"the loss became {value}: lower the learning rate, or search for broken videos"
        )
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    schedule.step()
    return value


def _auc(videos: Sequence[VideoScore]) -> float:
    scores = np.array([one.score or 0.0 for one in videos])
    return area_under_roc(scores, np.array([one.positive for one in videos])) or 0.0
