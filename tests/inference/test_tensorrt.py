"""TensorRT's code up to the library's edge: a recording stand-in, and RTX's real builder if here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest

from storeguard.config.models import BackendName, EngineSettings, Precision
from storeguard.detection.detector import model_path
from storeguard.engines.build import build_engine
from storeguard.engines.cache import EngineOptions
from storeguard.engines.calibration import CalibrationBatches
from storeguard.engines.choice import open_backend
from storeguard.errors import BackendUnavailableError, ModelError
from storeguard.inference.backend import sha256_of
from storeguard.inference.engine_file import card_path, read_card
from storeguard.inference.tensorrt import TensorRtBackend
from tests.inference.conftest import TENSORRT_MODULES
from tests.inference.factories import mean_model
from tests.inference.fake_tensorrt import FakeCuda, FakeTensorRt

try:
    import tensorrt_rtx_bindings as rtx
except ImportError:
    rtx = None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return mean_model(tmp_path / "mean.onnx", ("n", 3, 32, 32), metadata={"layout": "yolox"})


def options(tmp_path: Path, **others: object) -> EngineOptions:
    settings = EngineSettings(dir=str(tmp_path / "engines"), **others)
    return EngineOptions(settings=settings, max_batch=4, size_wh=(32, 32))


def install(
    monkeypatch: pytest.MonkeyPatch, trt: FakeTensorRt, cuda: FakeCuda, *, name: str = "tensorrt"
) -> None:
    for module in TENSORRT_MODULES:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, trt)
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)


def test_builds_once_runs_and_gives_memory_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    trt, cuda = FakeTensorRt(), FakeCuda()
    install(monkeypatch, trt, cuda)
    requested = options(tmp_path)
    backend = open_backend(model, BackendName.TENSORRT, options=requested)
    assert isinstance(backend, TensorRtBackend)
    assert (backend.name, backend.precision) == ("tensorrt", "fp16")
    assert backend.metadata == {"layout": "yolox"}
    assert backend.input.shape == (None, 3, 32, 32)
    (build,) = trt.built
    assert build["flags"] == 1 << 1  # strongly typed
    assert build["profile"] == ("images", (1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32))
    weights = onnx.load_from_string(build["graph"]).graph.initializer
    assert {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}

    inputs = np.random.default_rng(0).random((10, 3, 32, 32), dtype=np.float32)
    for size in (1, 4, 2, 10):  # greater and smaller batches, and one past the greatest
        found = backend.run(inputs[:size])["mean"]
        assert found.dtype == np.float32
        expected = 2 * inputs[:size].reshape(size, -1).mean(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert trt.engine is not None
    assert trt.engine.batches == [1, 4, 2, 4, 4, 2]
    backend.close()
    assert not cuda.held
    assert not cuda.streams

    open_backend(model, BackendName.TENSORRT, options=requested).close()
    assert len(trt.built) == 1


@pytest.mark.parametrize(
    "change",
    [
        "version",  # another TensorRT
        "device",  # another GPU
        "model",  # another model under the same name
        "profile",  # another greatest batch
        "damaged",  # the engine file was cut short
        "sidecar",  # the sidecar is missing
    ],
)
def test_a_stale_engine_is_built_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, change: str
) -> None:
    trt, cuda = FakeTensorRt(), FakeCuda()
    install(monkeypatch, trt, cuda)
    requested = options(tmp_path)
    first = build_engine(model, requested, Precision.FP16)
    if change == "version":
        trt.__version__ = "11.5.0"
    elif change == "device":
        install(monkeypatch, trt, FakeCuda(name=b"Another"))
    elif change == "model":
        mean_model(model, ("n", 3, 32, 32), metadata={"layout": "ssd"})
    elif change == "profile":
        requested = EngineOptions(settings=requested.settings, max_batch=2, size_wh=(32, 32))
    elif change == "damaged":
        first.path.write_bytes(b"eng")
    else:
        card_path(first.path).unlink()
    open_backend(model, BackendName.TENSORRT, options=requested)
    assert len(trt.built) == 2
    if change == "version":  # an engine of an older version is removed
        assert not first.path.exists()
        assert not card_path(first.path).exists()
    if change == "damaged":
        assert trt.built[1]["timings_before"] == b"timings"


def test_auto_takes_a_kept_engine_and_builds_only_if_it_may(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    trt = FakeTensorRt()
    install(monkeypatch, trt, FakeCuda())
    careful, eager = options(tmp_path), options(tmp_path, build=True)
    assert open_backend(model, BackendName.AUTO, options=careful).name == "onnxruntime-cpu"
    assert not trt.built
    assert open_backend(model, BackendName.AUTO, options=eager).name == "tensorrt"
    assert open_backend(model, BackendName.AUTO, options=careful).name == "tensorrt"
    assert len(trt.built) == 1


def test_a_prebuilt_engine_and_its_sidecar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    install(monkeypatch, FakeTensorRt(), FakeCuda())
    built = build_engine(model, options(tmp_path), Precision.FP32)
    assert read_card(built.path) == built.card
    assert built.card.key.model_sha256 == sha256_of(model)
    plan = tmp_path / "mine.plan"
    plan.write_bytes(built.path.read_bytes())
    with pytest.raises(ModelError, match=r"needs its sidecar mine\.plan\.json"):
        open_backend(plan, BackendName.AUTO)
    card_path(plan).write_bytes(card_path(built.path).read_bytes())
    assert open_backend(plan, BackendName.AUTO).name == "tensorrt"
    with pytest.raises(ModelError, match=r"runs on backend 'tensorrt', not 'openvino'"):
        open_backend(plan, BackendName.OPENVINO)
    install(monkeypatch, FakeTensorRt(), FakeCuda(name=b"Another"))
    with pytest.raises(ModelError, match=r"built for .*Fake RTX.*here is .*Another"):
        open_backend(plan, BackendName.TENSORRT)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ((FakeTensorRt("8.6.1"), FakeCuda()), r"tensorrt 8\.6\.1 is older than 10"),
        ((FakeTensorRt(), FakeCuda(gpus=0)), r"NVIDIA GPU and its driver.*cudaErrorNoDevice"),
        ((FakeTensorRt(), FakeCuda(free_bytes=1)), "cudaMalloc failed: cudaErrorMemoryAlloc"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: Path,
    machine: tuple[FakeTensorRt, FakeCuda],
    message: str,
) -> None:
    install(monkeypatch, *machine)
    with pytest.raises(BackendUnavailableError, match=message):
        open_backend(model, BackendName.TENSORRT, options=options(tmp_path)).run(
            np.zeros((1, 3, 32, 32), np.float32)
        )


def test_a_failed_build_leaves_nothing_and_names_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    trt = FakeTensorRt()
    trt.fails_with = "no kernel for this layer"
    install(monkeypatch, trt, FakeCuda())
    with pytest.raises(ModelError, match=r"could not build .*no kernel for this layer"):
        build_engine(model, options(tmp_path), Precision.FP32)
    assert not list((tmp_path / "engines").glob("*"))


def test_outputs_of_open_size_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path
) -> None:
    install(monkeypatch, FakeTensorRt(open_output=True), FakeCuda())
    backend = open_backend(model, BackendName.TENSORRT, options=options(tmp_path))
    with pytest.raises(ModelError, match="depends on the picture"):
        backend.run(np.zeros((1, 3, 32, 32), np.float32))


@pytest.mark.skipif(rtx is None, reason="tensorrt-rtx is not installed (228 MB)")
@pytest.mark.parametrize("precision", list(Precision))
def test_rtx_really_builds_the_bundled_detector_without_a_gpu(
    tmp_path: Path, precision: Precision
) -> None:
    blank = np.full((1, 320, 320, 3), 114, np.uint8)
    batches = CalibrationBatches("images", [blank, blank // 2])
    built = build_engine(
        model_path("bundled"),
        EngineOptions(settings=EngineSettings(dir=str(tmp_path))),
        precision,
        batches=batches,
        compute_capability="8.9",
    )
    assert built.path.stat().st_size > 1_000_000
    assert read_card(built.path).key.target.device == "any"
    with pytest.raises(BackendUnavailableError, match=r"does not support .* 9\.0; it knows .*SM89"):
        build_engine(model_path("bundled"), EngineOptions(), precision, compute_capability="9.0")
