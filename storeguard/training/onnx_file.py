"""A torch model as an ONNX file with one input and one output, checked against torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import nn

from storeguard.errors import ModelError
from storeguard.files import replacing

OPSET = 17
_TOLERANCE = 1e-3


def write_checked(
    model: nn.Module,
    path: Path,
    *,
    shape: tuple[int, ...],
    names: tuple[str, str],
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write a model, whole or not at all.

    Args:
        model: trained, on the CPU.
        path: the file; its folder must exist.
        shape: of one float32 input, without the batch dimension, which stays free.
        names: of the input and of the output.
        metadata: key-value properties stored in the file.

    Returns:
        The greatest difference of an output from torch's, over random inputs in batches of 1 and 3.

    Raises:
        ModelError: that difference is more than a thousandth.
    """
    model.eval()
    with replacing(path) as part:
        export_onnx(model, torch.zeros(2, *shape), part, names=names)
        proto = onnx.load(part)
        helper.set_model_props(proto, dict(metadata or {}))
        onnx.checker.check_model(proto)
        part.write_bytes(proto.SerializeToString())
        difference = _difference(model, part, shape, names[0])
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"{path}: the exported model's {names[1]} differ by {difference:.2g} from torch's, "
                f"expected at most {_TOLERANCE}"
            )
    return difference


def export_onnx(
    model: nn.Module, example: torch.Tensor, path: Path, *, names: tuple[str, str]
) -> None:
    """Trace a model with an example of its input; the first dimension stays free."""
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


def open_session(path: Path) -> ort.InferenceSession:
    """An ONNX file on the CPU; its threads do not spin while they wait."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(model: nn.Module, path: Path, shape: tuple[int, ...], name: str) -> float:
    session = open_session(path)
    random = np.random.default_rng(0)
    worst = 0.0
    for count in (1, 3):
        inputs = random.standard_normal((count, *shape)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(inputs)).numpy()
        (found,) = session.run(None, {name: inputs})
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
