"""Two-step training on synthetic people, export, and the bundled model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image, ImageDraw
from pydantic import ValidationError

from storeguard.errors import TrainingDivergedError
from storeguard.training.detector.data import Batch, DetectorSource
from storeguard.training.detector.export import export_detector
from storeguard.training.detector.loss import assign, detector_loss, retention_loss
from storeguard.training.detector.model import (
    PersonDetector,
    WeightsError,
    decode_boxes,
    grid_cells,
    load_weights,
)
from storeguard.training.detector.train import (
    BUNDLED_DETECTOR,
    DetectorTrainSettings,
    rate_factor,
    train_detector,
)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Six pictures of two bright bars each, labelled in YOLO layout."""
    folder = tmp_path / "people"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = Image.new("RGB", (160, 120), (40, 60, 80))
        draw, lines = ImageDraw.Draw(picture), []
        for x in rng.integers([10, 90], [50, 130]):
            draw.rectangle((int(x), 30, int(x) + 20, 90), fill="white")
            lines.append(f"0 {(x + 10) / 160} 0.5 {20 / 160} 0.5")
        picture.save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines))
    return folder


def settings(people: Path, out: Path, **changes: object) -> DetectorTrainSettings:
    values: dict[str, object] = {
        "sources": (DetectorSource(path=people, val_fraction=0.34, retain=True),),
        "out": out,
        "num_steps": 2,
        "warmup_steps": 0,
        "batch_size": 2,
        "sizes_px": (96,),
        "eval_sizes_px": (96,),
        "num_threads": 1,
    }
    return DetectorTrainSettings.model_validate(values | changes)


def onnx_output(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": images})
    return output


def test_training_writes_a_model_that_onnxruntime_runs_like_torch(people: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = train_detector(settings(people, out), progress=False)
    assert sorted(p.name for p in out.iterdir()) == [
        "person_detector.onnx", "result.json", "settings.json",
    ]  # fmt: skip
    assert json.loads((out / "settings.json").read_text())["num_steps"] == 2
    assert len(result.losses) == 2
    assert [s.num_images for s in result.scores] == [3]
    model = PersonDetector().eval()
    load_weights(model, result.model)
    rng = np.random.default_rng(0)
    for shape in ((1, 320, 320, 3), (3, 416, 416, 3)):
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        with torch.no_grad():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        expected[..., 4:] = expected[..., 4:].sigmoid()
        found = onnx_output(result.model, images)
        assert found.shape == (shape[0], shape[1] * shape[2] * 21 // 1024, 6)
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)


def test_steps_lower_the_loss_on_the_same_batch():
    torch.manual_seed(0)
    model = PersonDetector()
    load_weights(model, BUNDLED_DETECTOR)
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    person = torch.tensor([[30.0, 20.0, 60.0, 100.0]])
    batch = Batch(images, [person, person], [torch.zeros(0, 4)] * 2, torch.tensor([False, False]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-4)
    losses = []
    for _ in range(3):
        loss = detector_loss(model(images.float()), batch).total
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[2] < losses[1] < losses[0]


def test_same_seed_same_model(people: Path, tmp_path: Path):
    first = train_detector(settings(people, tmp_path / "a"), progress=False)
    second = train_detector(settings(people, tmp_path / "b"), progress=False)
    other = train_detector(settings(people, tmp_path / "c", seed=1), progress=False)
    assert first.losses == second.losses
    assert first.losses != other.losses


def test_a_diverging_run_is_reported_and_writes_nothing(people: Path, tmp_path: Path):
    out = tmp_path / "out"
    wild = settings(people, out, learning_rate=1e12, num_steps=5, max_gradient_norm=1e12)
    with pytest.raises(TrainingDivergedError, match="expected a finite number"):
        train_detector(wild, progress=False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes_px": (300,)}, "multiples of 32"),
        ({"learning_rate": -1}, "greater than 0"),
        ({"sources": ()}, "at least 1 item"),
        ({"epochs": 3}, "Extra inputs"),
        ({"start": None, "start_blend": 0.2}, "nothing to blend"),
    ],
)
def test_bad_settings(people: Path, tmp_path: Path, changes: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        settings(people, tmp_path, **changes)


def test_rate_rises_then_falls(people: Path, tmp_path: Path):
    run = settings(people, tmp_path, num_steps=100, warmup_steps=10)
    assert rate_factor(0, run) == pytest.approx(0.1)
    assert rate_factor(10, run) == pytest.approx(1.0)
    assert rate_factor(55, run) == pytest.approx(0.51)
    assert rate_factor(100, run) == pytest.approx(0.02)


def test_weights_file_that_is_none(tmp_path: Path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="expected an ONNX file"):
        load_weights(PersonDetector(), path)


def test_export_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(onnx.checker, "check_model", lambda _: (_ for _ in ()).throw(ValueError))
    with pytest.raises(ValueError):  # noqa: PT011  # the checker's own error
        export_detector(PersonDetector(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_assign_gives_cells_to_the_person_they_sit_in():
    corners, strides = grid_cells(64, 64)
    raw = torch.zeros(len(corners), 6)
    persons = torch.tensor([[0.0, 0.0, 16.0, 16.0], [40.0, 40.0, 64.0, 64.0]])
    decoded = decode_boxes(raw, corners, strides)
    half = decoded[:, 2:] / 2
    xyxy = torch.cat([decoded[:, :2] - half, decoded[:, :2] + half], 1)
    cells, owners, overlap = assign(xyxy, raw[:, 4:], persons, corners, strides)
    assert set(owners.tolist()) == {0, 1}
    assert len(set(cells.tolist())) == len(cells)
    centres = ((corners + 0.5) * strides)[cells]
    assert (centres[owners == 0] < 32).all()
    assert (centres[owners == 1] > 32).all()
    assert ((overlap >= 0) & (overlap <= 1)).all()


def test_ignored_boxes_silence_the_background():
    """An untaught but confident cell costs, unless its box is ignored."""
    raw = torch.zeros(1, 84, 6)  # 64x64: objectness one half everywhere
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    none, whole = torch.zeros(0, 4), torch.tensor([[-64.0, -64.0, 128.0, 128.0]])
    taught = detector_loss(raw, Batch(images, [none], [none], torch.tensor([False])))
    silenced = detector_loss(raw, Batch(images, [none], [whole], torch.tensor([False])))
    assert float(taught.total) == pytest.approx(84 * np.log(2), rel=1e-4)
    assert float(silenced.total) == 0.0


def test_retention_is_zero_for_the_start_model_itself():
    raw = torch.randn(2, 84, 6)
    assert float(retention_loss(raw, raw)) == pytest.approx(0, abs=1e-4)
    assert float(retention_loss(raw + 0.5, raw)) > 0.1


def test_bundled_model_is_what_its_metadata_say():
    assert BUNDLED_DETECTOR.stat().st_size <= 5_000_000
    model = onnx.load(str(BUNDLED_DETECTOR))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert (metadata["layout"], metadata["classes"]) == ("yolox", "person")
    assert (metadata["pad"], metadata["pad_value"]) == ("topleft", "114")
    assert 0 < float(metadata["score_threshold"]) < 1
    for n, side in ((1, 320), (3, 416)):
        output = onnx_output(BUNDLED_DETECTOR, np.full((n, side, side, 3), 114, np.uint8))
        assert output.shape == (n, side * side * 21 // 1024, 6)
        assert output.dtype == np.float32
        assert output[..., 4:].prod(-1).max() < float(
            metadata["score_threshold"]
        )  # grey: no people


def test_card_names_the_bundled_file():
    card = BUNDLED_DETECTOR.with_suffix(".md").read_text()
    assert hashlib.sha256(BUNDLED_DETECTOR.read_bytes()).hexdigest() in card
