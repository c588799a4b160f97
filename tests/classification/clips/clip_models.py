"""Small ONNX clip classifiers whose logit is a line over the mean of one colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from storeguard.classification.clips.clip import CLIP_FRAMES, SIDE_PX

SHAPE = (CLIP_FRAMES, 3, SIDE_PX, SIDE_PX)


def save_clip_model(
    path: Path,
    *,
    gain: float = 1.0,
    bias: float = 0.0,
    channel: int = 0,
    shape: tuple[int | str, ...] = ("n", *SHAPE),
    input_type: int = TensorProto.FLOAT,
    num_logits: int = 1,
    twice: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model that gives `bias` + `gain` * mean of a channel of its normalised input.

    Args:
        path: where to.
        gain, bias, channel: see above; channels are those of the input, so 0 is red.
        shape: of its input, the batch first.
        input_type: of its input.
        num_logits: logits for each clip; a classifier gives one.
        twice: with a second output.
        metadata: of the file.
    """
    rest = list(range(1, len(shape) - 2))
    constants = {
        "channel": np.array([channel], np.int64),
        "gain": np.array(gain, np.float32),
        "bias": np.full((1, num_logits), bias, np.float32),
        "last": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["clips"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["floats", "channel"], ["colour"], axis=len(shape) - 3),
        helper.make_node("ReduceMean", ["colour"], ["mean"], axes=[*rest, -2, -1], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "last"], ["column"]),
        helper.make_node("Add", ["column", "bias"], ["logit"]),
    ]
    outputs = ["logit"]
    if twice:
        nodes.append(helper.make_node("Neg", ["logit"], ["other"]))
        outputs.append("other")
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("clips", input_type, list(shape))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], num_logits])
            for name in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_suspicious(path: Path, *, threshold: float = 0.6) -> Path:
    """A model that gives 0.9526 for every clip, and recommends a threshold."""
    return save_clip_model(
        path, gain=0.0, bias=3.0, metadata={"storeguard_threshold": str(threshold)}
    )
