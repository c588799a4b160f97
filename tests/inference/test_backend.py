"""ONNX Runtime and OpenVINO for real, and the errors where something is missing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from storeguard.config.models import BackendName, DetectorSettings, EngineSettings, Precision
from storeguard.detection.detector import model_path
from storeguard.engines.cache import EngineOptions
from storeguard.engines.calibration import read_pictures
from storeguard.engines.choice import open_backend
from storeguard.engines.loading import load_detector
from storeguard.errors import BackendUnavailableError, ModelError
from tests.inference.factories import mean_model, pictures
from tests.real_parts import required_module

ON_CPU = (BackendName.ONNXRUNTIME_CPU, BackendName.OPENVINO)


@pytest.fixture(autouse=True)
def no_tensorrt(no_gpu: None) -> None:
    """As on this machine, wherever the tests run."""


def options(folder: Path, precision: Precision | None = None) -> EngineOptions:
    return EngineOptions(settings=EngineSettings(dir=str(folder)), precision=precision)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_openvino_and_onnxruntime_agree_on_real_pictures(tmp_path: Path, batch: int) -> None:
    required_module("openvino")
    detector = load_detector(DetectorSettings(backend=BackendName.ONNXRUNTIME_CPU))
    images = detector.to_input(read_pictures(pictures(tmp_path, count=4), detector, limit=4))
    inputs = images.take(np.arange(batch) % 4, axis=0)
    theirs, ours = (open_backend(model_path("bundled"), name) for name in ON_CPU)
    expected, found = theirs.run(inputs)["output"], ours.run(inputs)["output"]
    assert found.shape == expected.shape == (batch, 2100, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_openvino_reads_the_same_from_the_bundled_model() -> None:
    required_module("openvino")
    theirs, ours = (open_backend(model_path("bundled"), name) for name in ON_CPU)
    assert (ours.name, ours.precision) == ("openvino", "fp32")
    assert ours.input == theirs.input
    assert dict(ours.metadata) == dict(theirs.metadata)


def test_openvino_results_survive_the_next_batch() -> None:
    required_module("openvino")
    backend = open_backend(model_path("bundled"), BackendName.OPENVINO)
    first = backend.run(np.zeros((1, 320, 320, 3), np.uint8))["output"]
    kept = first.copy()
    backend.run(np.full((1, 320, 320, 3), 200, np.uint8))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    ("shape", "dtype", "batch"),
    [
        (("n", 3, 32, 32), TensorProto.FLOAT, (2, 3, 32, 32)),  # pictures
        (("n", 4, 3, 32, 32), TensorProto.FLOAT, (3, 4, 3, 32, 32)),  # clips
        (("n", 32, 32, 3), TensorProto.UINT8, (2, 32, 32, 3)),  # bytes
    ],
)
def test_pictures_and_clips(
    tmp_path: Path, name: BackendName, shape: tuple[int | str, ...], dtype: int, batch: tuple
) -> None:
    if name is BackendName.OPENVINO:
        required_module("openvino")
    model = mean_model(tmp_path / "mean.onnx", shape, dtype=dtype, metadata={"layout": "yolox"})
    backend = open_backend(model, name)
    assert backend.input.shape == (None, *shape[1:])
    assert backend.metadata["layout"] == "yolox"
    inputs = np.random.default_rng(1).integers(0, 9, batch).astype(backend.input.dtype)
    found = backend.run(inputs)["mean"]
    np.testing.assert_allclose(found, 2 * inputs.reshape(batch[0], -1).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((1, 3, 32, 33), np.float32), r"\(any, 3, 32, 32\) float32.*\(1, 3, 32, 33\)"),
        (np.zeros((3, 32, 32), np.float32), r"got \(3, 32, 32\)"),  # no batch
        (np.zeros((1, 3, 32, 32), np.uint8), "got .* uint8"),  # another type
        (np.zeros((0, 3, 32, 32), np.float32), "at least one"),  # an empty batch
    ],
)
def test_wrong_batches_are_refused(
    tmp_path: Path, name: BackendName, batch: np.ndarray, message: str
) -> None:
    if name is BackendName.OPENVINO:
        required_module("openvino")
    model = mean_model(tmp_path / "mean.onnx", ("n", 3, 32, 32))
    with pytest.raises(ModelError, match=message):
        open_backend(model, name).run(batch)


@pytest.mark.parametrize("name", ON_CPU)
def test_a_size_that_the_graph_cannot_take(name: BackendName) -> None:
    if name is BackendName.OPENVINO:
        required_module("openvino")
    with pytest.raises(ModelError, match=r"fails on a batch \(1, 272, 320, 3\)"):
        open_backend(model_path("bundled"), name).run(np.zeros((1, 272, 320, 3), np.uint8))


@pytest.mark.parametrize("name", [*ON_CPU, BackendName.AUTO])
def test_models_that_are_none(tmp_path: Path, name: BackendName) -> None:
    if name is BackendName.OPENVINO:
        required_module("openvino")
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(model_path("bundled").read_bytes()[:20_000])
    with pytest.raises(ModelError, match=r"corrupt\.onnx: not a usable ONNX model"):
        open_backend(corrupt, name)
    flat = mean_model(tmp_path / "flat.onnx", ("n", 12))
    with pytest.raises(ModelError, match=r"flat\.onnx: expected one input of 4 .* or 5"):
        open_backend(flat, name)
    with pytest.raises(ModelError, match="there is no such model file"):
        open_backend(tmp_path / "none.onnx", name)


def test_the_detector_refuses_clips(tmp_path: Path) -> None:
    clips = mean_model(tmp_path / "clips.onnx", ("n", 4, 3, 32, 32))
    with pytest.raises(ModelError, match=r"expected pictures \(4 dimensions\)"):
        load_detector(DetectorSettings(model=str(clips), backend=BackendName.ONNXRUNTIME_CPU))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (BackendName.TENSORRT, "needs the package tensorrt .*onnxruntime-cpu"),
        (BackendName.ONNXRUNTIME_CUDA, "needs the package onnxruntime-gpu and an NVIDIA GPU"),
    ],
)
def test_a_named_backend_that_cannot_run(name: BackendName, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        open_backend(model_path("bundled"), name)


def test_openvino_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match="needs the package openvino"):
        open_backend(model_path("bundled"), BackendName.OPENVINO)


def test_auto_without_a_gpu_takes_the_cpu_and_logs_it_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO, logger="storeguard.engines"):
        backend = open_backend(
            model_path("bundled"), BackendName.AUTO, options=options(tmp_path / "none")
        )
    assert (backend.name, backend.precision) == ("onnxruntime-cpu", "fp32")
    assert len(caplog.records) == 1
    assert "running on the CPU" in caplog.text
    assert "tensorrt" in caplog.text


def test_fp16_is_made_once_and_kept(tmp_path: Path) -> None:
    requested = options(tmp_path, Precision.FP16)
    backend = open_backend(model_path("bundled"), BackendName.ONNXRUNTIME_CPU, options=requested)
    assert backend.precision == "fp16"
    assert backend.metadata["layout"] == "yolox"
    (engine,) = tmp_path.glob("*.onnx")
    written = engine.stat().st_mtime_ns
    open_backend(model_path("bundled"), BackendName.ONNXRUNTIME_CPU, options=requested)
    assert engine.stat().st_mtime_ns == written
    engine.write_bytes(b"half a file")  # damaged: made again
    again = open_backend(model_path("bundled"), BackendName.ONNXRUNTIME_CPU, options=requested)
    assert again.precision == "fp16"


def test_int8_needs_a_calibrated_engine(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"storeguard engine build .* --calibration"):
        open_backend(
            model_path("bundled"), BackendName.AUTO, options=options(tmp_path, Precision.INT8)
        )


def test_precision_without_the_package_onnx(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailableError, match="needs the package onnx"):
        open_backend(
            model_path("bundled"),
            BackendName.ONNXRUNTIME_CPU,
            options=options(tmp_path, Precision.FP16),
        )
