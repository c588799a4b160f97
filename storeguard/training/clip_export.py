"""Clip classifiers and their backbones as ONNX files, checked against torch."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import nn

from storeguard.classification.clip import CLIP_FRAMES, SIDE_PX
from storeguard.errors import ModelError
from storeguard.training.clip_backbones import Backbone

OPSET = 17
_TOLERANCE = 1e-3

RunBackbone = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(n, 3, SIDE_PX, SIDE_PX) float32 to (n, num_features) float32."""


def export_classifier(
    model: nn.Module, path: Path, *, metadata: Mapping[str, str] | None = None
) -> float:
    """Write a clip classifier, whole or not at all.

    Its input `clips` is float32 (n, CLIP_FRAMES, 3, SIDE_PX, SIDE_PX), n free, normalised as
    `storeguard.classification.clip.to_input` does; its output `logits` is float32 (n,).

    Args:
        model: trained, on the CPU.
        path: the file; its folder must exist.
        metadata: key-value properties stored in the file.

    Returns:
        The greatest difference of a logit from torch's, over random clips in batches of 1 and 3.

    Raises:
        ModelError: that difference is more than a thousandth.
    """
    model.eval()
    shape = (CLIP_FRAMES, 3, SIDE_PX, SIDE_PX)
    partial = path.with_name(f".{path.name}.partial")
    try:
        _export(model, torch.zeros(2, *shape), partial, names=("clips", "logits"))
        proto = onnx.load(partial)
        helper.set_model_props(proto, dict(metadata or {}))
        onnx.checker.check_model(proto)
        partial.write_bytes(proto.SerializeToString())
        difference = _difference(model, partial, shape)
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"{path}: the exported model's logits differ by {difference:.2g} from torch's, "
                f"expected at most {_TOLERANCE}"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


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
        _export(backbone, torch.zeros(2, 3, SIDE_PX, SIDE_PX), path, names=("x", "features"))
        session = _session(path)

    def run_onnx(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        # One at a time stays in the processor's cache.
        parts = [session.run(None, {"x": one[None]})[0] for one in pictures]
        return np.concatenate(parts)

    return run_onnx


def _export(model: nn.Module, example: torch.Tensor, path: Path, names: tuple[str, str]) -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)  # has no ONNX form
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own future
            torch.onnx.export(
                model,
                (example,),
                str(path),
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_axes={names[0]: {0: "n"}, names[1]: {0: "n"}},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(value=fast)


def _difference(model: nn.Module, path: Path, shape: tuple[int, ...]) -> float:
    session = _session(path)
    random = np.random.default_rng(0)
    worst = 0.0
    for count in (1, 3):
        clips = random.standard_normal((count, *shape)).astype(np.float32)
        with torch.inference_mode():
            wanted = model(torch.from_numpy(clips)).numpy()
        (found,) = session.run(None, {"clips": clips})
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - wanted).max()))
    return worst


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
