"""Clip classifiers and their backbones as ONNX files, checked against torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX
from storeguard.training.clips.backbones import Backbone
from storeguard.training.onnx_file import export_onnx, open_session, write_checked

RunBackbone = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, 3, SIDE_PX, SIDE_PX) float32 to (n, num_features) float32."""


def export_classifier(
    model: nn.Module, path: Path, *, metadata: Mapping[str, str] | None = None
) -> float:
    """Write a clip classifier, whole or not at all.

    Its input `clips` is float32 (n, CLIP_FRAMES, 3, SIDE_PX, SIDE_PX), n free, normalised as
    `storeguard.classification.clips.clip.to_input` does; its output `logits` is float32 (n,).

    Args:
        model: trained, on the CPU.
        path: the file; its folder must exist.
        metadata: key-value properties stored in the file.

    Returns:
        The greatest difference of a logit from torch's, over random clips in batches of 1 and 3.

    Raises:
        ModelError: that difference is more than a thousandth.
    """
    return write_checked(
        model,
        path,
        shape=(CLIP_FRAMES, 3, SIDE_PX, SIDE_PX),
        names=("clips", "logits"),
        metadata=metadata,
    )


def backbone_runner(backbone: Backbone) -> RunBackbone:
    """A frozen backbone: on its GPU by torch, on the CPU by ONNX Runtime, thrice as fast."""
    backbone.eval()
    device = next(backbone.parameters()).device
    if device.type != "cpu":

        @torch.inference_mode()
        def run_torch(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
            answer = backbone(torch.from_numpy(pictures).to(device))
            return np.asarray(answer.float().cpu().numpy(), dtype=np.float32)

        return run_torch
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.onnx"
        example = torch.zeros(2, 3, SIDE_PX, SIDE_PX)
        export_onnx(backbone, example, path, names=("x", "features"))
        session = open_session(path)

    def run_onnx(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        # One at a time stays in the processor's cache.
        parts = [session.run(None, {"x": one[None]})[0] for one in pictures]
        return np.concatenate(parts)

    return run_onnx
