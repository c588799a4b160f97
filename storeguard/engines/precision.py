"""Changing the precision of an ONNX model.

INT8 is written into the graph as pairs of QuantizeLinear and DequantizeLinear with symmetric
scales, which TensorRT, OpenVINO and ONNX Runtime all run. TensorRT 11 has no builder flags
and no calibrators as earlier versions had, so the precision is decided here for all three.
"""

from __future__ import annotations

import importlib
import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from storeguard.config.models import Precision
from storeguard.engines.calibration import CalibrationBatches
from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import PRECISION_KEY

CALIBRATION_METHOD = "entropy"
_QUANTIZED = ["Conv", "MatMul", "Gemm"]


def in_precision(
    model: Path, precision: Precision, batches: CalibrationBatches | None = None
) -> bytes:
    """The model in another precision, as an ONNX file's bytes. Inputs and outputs keep their types.

    Args:
        model: an ONNX file in float32.
        precision: what it computes in; fp32 returns the file unchanged.
        batches: model inputs to calibrate INT8 on; required for INT8, unused otherwise.

    Raises:
        ModelError: the model cannot be converted.
        BackendUnavailableError: the package onnx is missing.
    """
    match precision:
        case Precision.FP32:
            return model.read_bytes()
        case Precision.FP16:
            converted = _to_fp16(model)
        case Precision.INT8:
            if batches is None:
                raise ModelError(f"{model}: INT8 needs pictures to calibrate on")
            converted = _to_int8(model, batches)
    _onnx().helper.set_model_props(
        converted,
        {p.key: p.value for p in converted.metadata_props} | {PRECISION_KEY: str(precision)},
    )
    return bytes(converted.SerializeToString())


def _to_fp16(model: Path) -> Any:
    onnx = _onnx()
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    try:
        return convert_float_to_float16(onnx.load(str(model)), keep_io_types=True)
    except Exception as error:  # noqa: BLE001 - protobuf's, onnx's and the converter's own
        raise ModelError(f"{model}: cannot be converted to FP16: {error}") from None


def _to_int8(model: Path, batches: CalibrationBatches) -> Any:
    onnx = _onnx()
    from onnxruntime.quantization import (  # noqa: PLC0415
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    with tempfile.TemporaryDirectory(prefix="storeguard-int8-") as folder:
        out = Path(folder) / "int8.onnx"
        try:
            with _quiet():
                quantize_static(
                    str(model),
                    str(out),
                    batches,
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=_QUANTIZED,
                    nodes_to_exclude=_edges(onnx.load(str(model)).graph),
                    per_channel=True,
                    activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.Entropy,
                    extra_options={
                        "ActivationSymmetric": True,
                        "WeightSymmetric": True,
                        "QuantizeBias": False,  # TensorRT takes no INT32 into DequantizeLinear
                        "CalibStridedMinMax": 1,  # one batch's activations in memory, not all
                    },
                )
            return onnx.load(str(out))
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base class
            raise ModelError(f"{model}: cannot be converted to INT8: {error}") from None


def _edges(graph: Any) -> list[str]:
    """Names of the first and last layers, which stay in float: rounding harms the picture's own
    256 steps and the boxes' coordinates most, and these layers cost little.
    """
    made_by = {name: at for at, node in enumerate(graph.node) for name in node.output}
    behind_one = [False] * len(graph.node)
    leads_to_one = [False] * len(graph.node)
    links = [
        (made_by[name], at)
        for at, node in enumerate(graph.node)
        for name in node.input
        if name in made_by
    ]
    heavy = [node.op_type in _QUANTIZED for node in graph.node]
    for before, after in links:  # nodes are in topological order
        behind_one[after] |= behind_one[before] or heavy[before]
    for before, after in reversed(links):
        leads_to_one[before] |= leads_to_one[after] or heavy[after]
    return [
        node.name
        for at, node in enumerate(graph.node)
        if heavy[at] and not (behind_one[at] and leads_to_one[at])
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which prints its progress and advice."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)


def _onnx() -> ModuleType:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise BackendUnavailableError(
            f"changing a model's precision needs the package onnx ({error}): install "
            "storeguard[tensorrt], or use precision fp32"
        ) from None
