"""Small ONNX image classifiers whose scores are the mean colours of what they are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLOURS = ("red", "green", "blue")


def save_colour_model(
    path: Path,
    *,
    labels: Sequence[str] | None = COLOURS,
    shape: tuple[int | str, ...] = ("n", 3, 32, 16),
    gain: float = 5.0,
    mix: Sequence[Sequence[float]] = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    input_type: int = TensorProto.FLOAT,
    softmax: bool = False,
    twice: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A model whose scores are `gain` * `mix` of the means of its input's three channels.

    Args:
        path: where to.
        labels: for its metadata; None names none there.
        shape: of its input, channels first or last.
        gain: see above.
        mix: (3, k), channels to scores.
        input_type: of its input.
        softmax: probabilities instead of logits.
        twice: with a second output.
        metadata: more of it.
    """
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    weights = np.array(mix, np.float32) * gain
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    outputs = ["logits"]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        outputs = ["probabilities"]
    if twice:
        nodes.append(helper.make_node("Neg", ["logits"], ["other"]))
        outputs.append("other")
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pictures", input_type, list(shape))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [shape[0], weights.shape[1]])
            for name in outputs
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    named = {} if labels is None else {"storeguard_labels": json.dumps(list(labels))}
    helper.set_model_props(model, {**named, **(metadata or {})})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
