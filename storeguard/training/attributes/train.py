"""Trains an attribute classifier: crops, split, features, linear layer, scores, plot, export.

Read it from top to bottom. Everything random derives from one seed; the settings that made a model
are written next to it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storeguard.training.attributes.data import (
    AttributeData,
    LabelChoice,
    LabelledCrop,
    PassedOver,
    read_crops,
)
from storeguard.training.attributes.evaluate import AttributeMetrics, measure, plot_confusion
from storeguard.training.attributes.export import export_attribute, serving_difference
from storeguard.training.attributes.fit import (
    AttributeFitSettings,
    AttributeHead,
    AttributeModel,
    FeatureBank,
    GlobalPool,
    fit_head,
    fit_whole,
    plain_features,
    training_features,
)
from storeguard.training.attributes.split import CropSplit, SplitBy, split_crops
from storeguard.training.clips.backbones import (
    EfficientNetLite0,
    imagenet_lite0_weights,
    load_backbone,
)
from storeguard.training.clips.export import backbone_runner
from storeguard.training.progress import step_bar

MODEL_FILE: Final = "attribute_classifier.onnx"
SETTINGS_FILE: Final = "settings.json"
METRICS_FILE: Final = "metrics.json"
CONFUSION_FILE: Final = "confusion.png"
_CHECKED_CROPS: Final = 64


class AttributeTrainSettings(BaseModel):
    """Everything that decides a training run.

    Attributes:
        data: folder with crops or KITTI boxes (see `storeguard.training.attributes.data`).
        out: folder for the model, settings, scores and plot; made if it is not there.
        choice: which labels are distinguished.
        validation_groups: groups kept for validation; none chooses about a fifth of them.
        weights: EfficientNet-Lite0's ImageNet weights as a torch state dict; None takes those of
            the training part.
        fit: how the classifier is fitted.
        dataset: noted in the model's metadata; empty takes the data folder's name.
        num_threads: for torch; None leaves it to torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    out: Path
    choice: LabelChoice = LabelChoice()
    validation_groups: tuple[str, ...] = ()
    weights: Path | None = None
    fit: AttributeFitSettings = AttributeFitSettings()
    dataset: str = ""
    num_threads: int | None = Field(default=None, ge=1)


class SideSummary(BaseModel):
    """One side of the split.

    Attributes:
        groups: sorted names.
        num_pictures: by label.
    """

    model_config = ConfigDict(frozen=True)

    groups: tuple[str, ...]
    num_pictures: dict[str, int]


class AttributeTrainResult(BaseModel):
    """What a run made.

    Attributes:
        model: the exported .onnx; `sha256` of that file, hexadecimal.
        labels: in the order of its scores.
        split_by: what kept training and validation apart.
        warnings: what makes the metrics too high; empty if nothing is known to.
        train, validation: what is on each side.
        passed_over: what of the folder was not used.
        losses: on the validation pictures, of each epoch, the unfrozen ones last.
        metrics: of the validation pictures, which also chose the epoch.
        export_difference: the greatest difference of a logit from torch's, on random pictures.
        serving_difference: the greatest difference of a probability between torch and serving, on
            up to 64 validation pictures.
    """

    model_config = ConfigDict(frozen=True)

    model: Path
    sha256: str
    labels: tuple[str, ...]
    split_by: SplitBy
    warnings: tuple[str, ...]
    train: SideSummary
    validation: SideSummary
    passed_over: PassedOver
    losses: tuple[float, ...]
    metrics: AttributeMetrics
    export_difference: float
    serving_difference: float


def train_attribute(
    settings: AttributeTrainSettings, *, progress: bool = True
) -> AttributeTrainResult:
    """Train an attribute classifier and write it to `settings.out`.

    Writes `attribute_classifier.onnx`, `settings.json`, `metrics.json` and `confusion.png`
    together, once all is done.

    Raises:
        DatasetError: the folder cannot be trained on.
        ModelError: the weights are not the backbone's, or the export differs from torch.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)

    # Data
    data = read_crops(settings.data, settings.choice, progress=progress)
    split = split_crops(data.crops, settings.validation_groups, seed=settings.fit.seed)

    # Features
    model = start_model(settings, len(data.labels))
    device = next(model.parameters()).device
    run = backbone_runner(model.backbone)
    with step_bar("features", len(data.crops), shown=progress) as bar:
        train = training_features(run, split.train, data.labels, settings.fit, progress=bar)
        validation = plain_features(run, split.validation, data.labels, progress=bar)

    # Linear layer, then the backbone's last third
    with step_bar("linear layer", settings.fit.epochs, shown=progress) as bar:
        losses = fit_head(model.head.cpu(), train, validation, settings.fit, progress=bar)
    if settings.fit.unfrozen_epochs:
        model.to(device)
        with step_bar("whole model", settings.fit.unfrozen_epochs, shown=progress) as bar:
            losses += fit_whole(
                model, split.train, split.validation, data.labels, settings.fit, progress=bar
            )
        run = backbone_runner(model.backbone)
        validation = plain_features(run, split.validation, data.labels)
    model.cpu()

    # Scores
    probabilities = predict(model.head, validation)
    metrics = measure(
        probabilities,
        validation.label_id.numpy(),
        data.labels,
        num_groups=len({one.group for one in split.validation}),
    )

    # Files
    return _write(
        settings,
        model,
        data=data,
        split=split,
        losses=tuple(losses),
        probabilities=probabilities,
        metrics=metrics,
    )


def start_model(settings: AttributeTrainSettings, num_labels: int) -> AttributeModel:
    """EfficientNet-Lite0 with its ImageNet weights, on a GPU if there is one, and a zero layer."""
    torch.manual_seed(settings.fit.seed)
    inner = EfficientNetLite0()
    load_backbone(inner, settings.weights or imagenet_lite0_weights())
    backbone = GlobalPool(inner)
    model = AttributeModel(backbone, AttributeHead(backbone.num_features, num_labels))
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def predict(head: AttributeHead, bank: FeatureBank) -> NDArray[np.float32]:
    """(n, k) float32 probabilities."""
    return np.asarray(head(bank.features).softmax(dim=1).numpy(), dtype=np.float32)


def _write(
    settings: AttributeTrainSettings,
    model: AttributeModel,
    *,
    data: AttributeData,
    split: CropSplit,
    losses: tuple[float, ...],
    probabilities: NDArray[np.float32],
    metrics: AttributeMetrics,
) -> AttributeTrainResult:
    every = max(1, len(split.validation) // _CHECKED_CROPS)
    checked = [one.pixels for one in split.validation[::every]][:_CHECKED_CROPS]
    settings.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.out, prefix=".partial-") as name:
        folder = Path(name)
        path = folder / MODEL_FILE
        notes = _metadata(settings, split, metrics)
        result = AttributeTrainResult(
            model=settings.out / MODEL_FILE,
            labels=data.labels,
            split_by=split.by,
            warnings=split.warnings,
            train=_summary(split.train, data.labels),
            validation=_summary(split.validation, data.labels),
            passed_over=data.passed_over,
            losses=losses,
            metrics=metrics,
            export_difference=export_attribute(model, path, labels=data.labels, metadata=notes),
            serving_difference=serving_difference(model, path, checked, data.labels),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        written = settings.model_dump_json(indent=2)
        (folder / SETTINGS_FILE).write_text(written + "\n", encoding="utf-8")
        document = result.model_dump(mode="json") | {
            "pictures": _judged(split.validation, probabilities, data.labels)
        }
        (folder / METRICS_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        plot_confusion(metrics, folder / CONFUSION_FILE)
        for made in folder.iterdir():
            shutil.move(made, settings.out / made.name)
    return result


def _summary(crops: Sequence[LabelledCrop], labels: Sequence[str]) -> SideSummary:
    counts = Counter(one.label for one in crops)
    return SideSummary(
        groups=tuple(sorted({one.group for one in crops})),
        num_pictures={label: counts[label] for label in labels},
    )


def _judged(
    crops: Sequence[LabelledCrop], probabilities: NDArray[np.float32], labels: Sequence[str]
) -> list[dict[str, object]]:
    """The prediction for each picture: the surest mistakes are often wrong labels."""
    return [
        {
            "name": one.name,
            "label": one.label,
            "said": labels[int(row.argmax())],
            "probability": round(float(row.max()), 4),
        }
        for one, row in zip(crops, probabilities, strict=True)
    ]


def _metadata(
    settings: AttributeTrainSettings, split: CropSplit, metrics: AttributeMetrics
) -> dict[str, str]:
    training = {
        "pictures": len(split.train),
        "validation_pictures": metrics.num_pictures,
        "split_by": split.by.value,
        "accuracy": round(metrics.accuracy, 4),
        "majority": round(metrics.majority, 4),
        "unfrozen_epochs": settings.fit.unfrozen_epochs,
        "seed": settings.fit.seed,
    }
    return {
        "storeguard_task": "attribute classification of people",
        "storeguard_backbone": "efficientnet-lite0",
        "storeguard_dataset": settings.dataset or settings.data.resolve().name,
        "storeguard_training": json.dumps(training),
    }
