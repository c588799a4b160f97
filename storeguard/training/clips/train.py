"""Trains a clip classifier: list, split, cache, bank of features, head, scores, plots, export.

Read it from top to bottom. Everything random derives from one seed; the settings that made a model
are written next to it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from storeguard.classification.clips.classifier import DEFAULT_THRESHOLD, THRESHOLD_KEY
from storeguard.config.models import DetectorSettings
from storeguard.training.clips.backbones import (
    Backbone,
    EfficientNetLite0,
    imagenet_lite0_weights,
    load_backbone,
)
from storeguard.training.clips.data import (
    ClipDatasetError,
    ClipVideo,
    Fold,
    FollowedVideo,
    VideoCache,
    check_leakage,
    read_list,
)
from storeguard.training.clips.evaluate import ClipMetrics, VideoScore, measure
from storeguard.training.clips.export import backbone_runner, export_classifier
from storeguard.training.clips.features import (
    ClipAugmentation,
    VideoFeatures,
    compute_bank,
    plain_features,
)
from storeguard.training.clips.fit import (
    ClipFitSettings,
    fit_head,
    fit_whole,
    score_from_pictures,
    score_videos,
)
from storeguard.training.clips.heads import (
    BackboneName,
    ClipModel,
    HeadName,
    ResNet3d18,
    make_backbone,
    make_head,
)
from storeguard.training.clips.plots import plot_scores
from storeguard.training.progress import step_bar

MODEL_FILE = "clip_classifier.onnx"
SETTINGS_FILE = "settings.json"
METRICS_FILE = "metrics.json"


class ClipTrainSettings(BaseModel):
    """Everything that decides a training run.

    Attributes:
        data: folder with the list (see `storeguard.training.clips.data`) and its videos.
        out: folder for the model, settings, scores and plots; made if it is not there.
        cache: folder for decoded videos and features; None means `out`/cache.
        backbone, head: what is trained.
        weights: the backbone's ImageNet weights as a torch state dict; None takes those of the
            training part for EfficientNet-Lite0, and random ones for MobileNetV3-Small.
        validation_groups: groups kept for validation; none trains on all and scores nothing.
        passed_over_groups: groups that are neither trained on nor validated with.
        train_clips: augmented clips a video in the bank.
        augmentation: of those.
        fit: how the classifier is fitted.
        detector: finds the people.
        threshold: recommended in the model's metadata.
        dataset: noted in the model's metadata.
        num_threads: for torch; None leaves it to torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    out: Path
    cache: Path | None = None
    backbone: BackboneName = BackboneName.EFFICIENTNET_LITE0_CLOSEUP
    head: HeadName = HeadName.TAP
    weights: Path | None = None
    validation_groups: tuple[str, ...] = ()
    passed_over_groups: tuple[str, ...] = ()
    train_clips: int = Field(default=12, ge=1)
    augmentation: ClipAugmentation = ClipAugmentation()
    fit: ClipFitSettings = ClipFitSettings()
    detector: DetectorSettings = DetectorSettings()
    threshold: float = Field(default=DEFAULT_THRESHOLD, gt=0, lt=1)
    dataset: str = ""
    num_threads: int | None = Field(default=None, ge=1)


class ClipTrainResult(BaseModel):
    """What a run made.

    Attributes:
        model: the exported .onnx; `sha256` of that file, hexadecimal.
        export_difference: the greatest difference of a logit from torch's.
        losses: of each epoch.
        metrics: of the validation videos; None without any.
    """

    model_config = ConfigDict(frozen=True)

    model: Path
    sha256: str
    export_difference: float
    losses: tuple[float, ...]
    metrics: ClipMetrics | None


def train_classifier(settings: ClipTrainSettings, *, progress: bool = True) -> ClipTrainResult:
    """Train a clip classifier and write it to `settings.out`.

    Writes `clip_classifier.onnx`, `settings.json`, `metrics.json` and plots together, once all
    is done.

    Raises:
        ClipDatasetError: the list or a video cannot be trained on, or a group is on both sides.
        ModelError: the weights are not the backbone's, or the export differs from torch.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)

    # Data
    passed_over = frozenset(settings.passed_over_groups)
    videos = [one for one in read_list(settings.data) if not one.groups & passed_over]
    fold = split(videos, settings.validation_groups)
    followed = follow(settings, [*fold.train, *fold.test], progress=progress)
    train, validation = followed[: len(fold.train)], followed[len(fold.train) :]

    if settings.head is HeadName.RESNET3D:
        return _train_from_pictures(settings, train, validation)

    # Features
    backbone = start_backbone(settings)
    bank = feature_bank(settings, backbone, followed, progress=progress)
    train_bank, validation_bank = bank[: len(train)], bank[len(train) :]

    # Head, then the backbone's last third
    head = make_head(settings.head, *backbone.views)
    losses = fit_head(head, train_bank, settings.fit, validation=validation_bank)
    model = ClipModel(backbone, head)
    if settings.fit.unfrozen_epochs:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        losses += fit_whole(
            model.to(device), train, settings.fit, augmentation=settings.augmentation
        )
        run = backbone_runner(model.backbone)
        validation_bank = [plain_features(run, one) for one in validation]
        model.cpu()

    # Scores
    scores = score_videos(head, validation_bank)
    metrics = measure(scores, threshold=settings.threshold) if scores else None

    # Files
    return _write(settings, model, tuple(losses), scores, metrics)


def _train_from_pictures(
    settings: ClipTrainSettings,
    train: Sequence[FollowedVideo],
    validation: Sequence[FollowedVideo],
) -> ClipTrainResult:
    """A model without a backbone: everything in it learns, from nothing."""
    torch.manual_seed(settings.fit.seed)
    model = ResNet3d18().to("cuda" if torch.cuda.is_available() else "cpu")
    losses = fit_whole(model, train, settings.fit, augmentation=settings.augmentation)
    scores = score_from_pictures(model, validation)
    metrics = measure(scores, threshold=settings.threshold) if scores else None
    return _write(settings, model.cpu(), tuple(losses), scores, metrics)


def split(videos: Sequence[ClipVideo], validation_groups: Sequence[str]) -> Fold:
    """Training and validation videos; a video with a validation group's member is not trained on.

    Raises:
        ClipDatasetError: no video is of such a group.
    """
    known = {name for video in videos for name in video.groups}
    if unknown := sorted(set(validation_groups) - known):
        raise ClipDatasetError(
            f"validation group {unknown[0]!r}: no video is of it; there are "
            f"{', '.join(sorted(known))}"
        )
    out = frozenset(validation_groups)
    test = tuple(video for video in videos if video.groups <= out)
    train = tuple(video for video in videos if not video.groups & out)
    fold = Fold("validation", train, test)
    check_leakage(fold)
    return fold


def follow(
    settings: ClipTrainSettings, videos: Sequence[ClipVideo], *, progress: bool
) -> list[FollowedVideo]:
    """The videos, decoded and their people followed; from the cache where they are in it."""
    cache = VideoCache(_cache(settings) / "videos", settings.detector)
    with step_bar("following people", len(videos), shown=progress) as bar:
        return cache.open(videos, progress=bar)


def feature_bank(
    settings: ClipTrainSettings,
    backbone: Backbone,
    followed: Sequence[FollowedVideo],
    *,
    progress: bool,
) -> list[VideoFeatures]:
    """The frozen backbone's features of all videos; from the cache where they are in it."""
    with step_bar("features", len(followed), shown=progress) as bar:
        return compute_bank(
            backbone,
            followed,
            folder=_cache(settings) / "features",
            train_clips=settings.train_clips,
            augmentation=settings.augmentation,
            seed=settings.fit.seed,
            progress=bar,
        )


def start_backbone(settings: ClipTrainSettings) -> Backbone:
    """The backbone with its start weights."""
    torch.manual_seed(settings.fit.seed)
    backbone = make_backbone(settings.backbone)
    weights = settings.weights
    if weights is None and isinstance(backbone, EfficientNetLite0):
        weights = imagenet_lite0_weights()
    if weights is not None:
        load_backbone(backbone, weights)
    return backbone.eval()


def _cache(settings: ClipTrainSettings) -> Path:
    return settings.cache or settings.out / "cache"


def _write(
    settings: ClipTrainSettings,
    model: nn.Module,
    losses: tuple[float, ...],
    scores: Sequence[VideoScore],
    metrics: ClipMetrics | None,
) -> ClipTrainResult:
    settings.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.out, prefix=".partial-") as name:
        folder = Path(name)
        difference = export_classifier(model, folder / MODEL_FILE, metadata=_metadata(settings))
        digest = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()
        result = ClipTrainResult(
            model=settings.out / MODEL_FILE,
            sha256=digest,
            export_difference=difference,
            losses=losses,
            metrics=metrics,
        )
        written = settings.model_dump_json(indent=2)
        (folder / SETTINGS_FILE).write_text(written + "\n", encoding="utf-8")
        document = result.model_dump(mode="json") | {
            "videos": [
                {"name": one.name, "positive": one.positive, "score": one.score} for one in scores
            ]
        }
        (folder / METRICS_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        if metrics is not None:
            plot_scores(scores, metrics, folder / "scores.png")
        for path in folder.iterdir():
            shutil.move(path, settings.out / path.name)
    return result


def _metadata(settings: ClipTrainSettings) -> dict[str, str]:
    return {
        THRESHOLD_KEY: str(settings.threshold),
        "storeguard_task": "clip classification: concealing goods",
        "storeguard_backbone": (
            "none" if settings.head is HeadName.RESNET3D else settings.backbone.value
        ),
        "storeguard_head": settings.head.value,
        "storeguard_dataset": settings.dataset,
    }
