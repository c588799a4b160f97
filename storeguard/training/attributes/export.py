"""Attribute classifiers as ONNX files, checked against torch and against serving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from storeguard.classification.attributes.classifier import LABELS_KEY
from storeguard.classification.attributes.crop import Crop
from storeguard.classification.clips.clip import SIDE_PX
from storeguard.config.models import AttributeSettings, BackendName
from storeguard.engines.loading import load_attribute_classifier
from storeguard.errors import ModelError
from storeguard.training.attributes.fit import CHANNELS, PIXELS, RESIZE, AttributeModel, to_inputs
from storeguard.training.onnx_file import write_checked

_TOLERANCE = 1e-3


def export_attribute(
    model: AttributeModel,
    path: Path,
    *,
    labels: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write an attribute classifier, whole or not at all.

    Its input `crops` is float32 (n, 3, SIDE_PX, SIDE_PX), n free, normalised as ImageNet's; its
    output `logits` is float32 (n, k). Its metadata holds the labels and the pixel format.

    Args:
        model: trained, on the CPU.
        path: the file; its folder must exist.
        labels: the k names.
        metadata: more key-value properties.

    Returns:
        The greatest difference of a logit from torch's, over random pictures.

    Raises:
        ModelError: that difference is more than a thousandth.
    """
    notes = {
        LABELS_KEY: json.dumps(list(labels)),
        "pixels": PIXELS.value,
        "channels": CHANNELS.value,
        "resize": RESIZE.value,
    }
    return write_checked(
        model,
        path,
        shape=(3, SIDE_PX, SIDE_PX),
        names=("crops", "logits"),
        metadata=notes | dict(metadata or {}),
    )


def serving_difference(
    model: AttributeModel, path: Path, crops: Sequence[Crop], labels: Sequence[str]
) -> float:
    """The greatest difference of a probability between serving the file and torch.

    Args:
        model: that was exported, on the CPU.
        path: the file.
        crops: real ones, n > 0.
        labels: that serving has to read from the file.

    Raises:
        ModelError: serving reads other labels, or that difference is more than a thousandth.
    """
    classifier = load_attribute_classifier(
        AttributeSettings(name="trained", model=str(path), backend=BackendName.ONNXRUNTIME_CPU)
    )
    if classifier.info.labels != tuple(labels):
        raise ModelError(f"{path}: expected the labels {labels}, serving reads {classifier.info}")
    expected = torch_probabilities(model, crops)
    found = np.concatenate([classifier.probabilities([crop]) for crop in crops])
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{path}: serving's probabilities differ by {difference:.2g} from torch's, expected "
            f"at most {_TOLERANCE}"
        )
    return difference


@torch.inference_mode()
def torch_probabilities(model: AttributeModel, crops: Sequence[Crop]) -> NDArray[np.float32]:
    """(n, k) float32 of n > 0 crops, one at a time."""
    model.eval()
    logits = [model(torch.from_numpy(to_inputs([crop]))) for crop in crops]
    return np.asarray(torch.cat(logits).softmax(dim=1).numpy(), dtype=np.float32)
