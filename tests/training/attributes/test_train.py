"""A whole run: crops in, an attribute classifier that serving loads out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from storeguard.classification.attributes.classifier import are_probabilities
from storeguard.cli.main import app
from storeguard.config.models import AttributeSettings, BackendName
from storeguard.engines.loading import load_attribute_classifier
from storeguard.errors import DatasetError, ModelError, QueryError, TrainingDivergedError
from storeguard.training.attributes.data import LabelChoice, LabelledCrop, read_crops
from storeguard.training.attributes.evaluate import measure, plot_confusion
from storeguard.training.attributes.export import export_attribute, serving_difference
from storeguard.training.attributes.fit import (
    AttributeFitSettings,
    AttributeHead,
    FeatureBank,
    class_weights,
    fit_head,
    fit_whole,
    jittered,
    to_inputs,
    training_features,
)
from storeguard.training.attributes.split import SplitBy
from storeguard.training.attributes.train import (
    AttributeTrainResult,
    AttributeTrainSettings,
    start_model,
    train_attribute,
)
from storeguard.training.clips.backbones import imagenet_lite0_weights
from storeguard.training.clips.features import ClipAugmentation

HALVES = LabelChoice(renamed=(("person_upper", "upper"), ("person_lower", "lower")))
VALIDATION = ("street4", "cabin1", "cabin4")


@pytest.fixture(scope="module")
def made(
    kitti_halves: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[AttributeTrainSettings, AttributeTrainResult]:
    settings = AttributeTrainSettings(
        data=kitti_halves,
        out=tmp_path_factory.mktemp("attribute") / "new" / "out",
        choice=HALVES,
        validation_groups=VALIDATION,
        fit=AttributeFitSettings(jitters=1),
        num_threads=1,
    )
    return settings, train_attribute(settings, progress=False)


Made = tuple[AttributeTrainSettings, AttributeTrainResult]


def test_serving_tells_people_it_never_saw(made: Made, folder_halves: Path) -> None:
    _, result = made
    classifier = load_attribute_classifier(
        AttributeSettings(name="half", model=str(result.model), backend=BackendName.ONNXRUNTIME_CPU)
    )
    assert classifier.info.labels == ("upper", "lower")
    assert classifier.info.sha256 == result.sha256
    pictures = sorted(path for group in VALIDATION for path in folder_halves.glob(f"*/{group}/*"))
    assert len(pictures) == result.metrics.num_pictures >= 10
    crops = [np.asarray(Image.open(path)) for path in pictures]
    predicted = classifier.probabilities(crops).argmax(axis=1)
    labels = [classifier.info.labels[i] for i in predicted]
    right = [path.parts[-3] == label for path, label in zip(pictures, labels, strict=True)]
    assert np.mean(right) >= 0.8
    assert np.mean(right) == pytest.approx(result.metrics.accuracy)


def test_what_is_written(made: Made) -> None:
    settings, result = made
    assert {path.name for path in settings.out.iterdir()} == {
        "attribute_classifier.onnx",
        "settings.json",
        "metrics.json",
        "confusion.png",
    }
    written = (settings.out / "settings.json").read_text()
    assert AttributeTrainSettings.model_validate_json(written) == settings
    document = json.loads((settings.out / "metrics.json").read_text())
    pictures = document.pop("pictures")
    assert AttributeTrainResult.model_validate(document) == result
    assert len(pictures) == result.metrics.num_pictures
    right = sum(one["said"] == one["label"] for one in pictures)
    assert right / len(pictures) == pytest.approx(result.metrics.accuracy)
    assert result.split_by is SplitBy.GROUPS
    assert result.validation.groups == tuple(sorted(VALIDATION))
    assert not set(result.train.groups) & set(VALIDATION)
    assert result.train.num_pictures["upper"] == result.train.num_pictures["lower"] > 10
    assert result.passed_over.dont_care > 0
    assert result.export_difference < 1e-3
    assert result.serving_difference < 1e-3
    with Image.open(settings.out / "confusion.png") as plot:
        assert min(plot.size) > 300


def test_the_exported_file(made: Made) -> None:
    _, result = made
    model = onnx.load(result.model)
    metadata = {one.key: one.value for one in model.metadata_props}
    assert json.loads(metadata["storeguard_labels"]) == ["upper", "lower"]
    assert (metadata["pixels"], metadata["channels"], metadata["resize"]) == (
        "imagenet",
        "rgb",
        "letterbox",
    )
    training = json.loads(metadata["storeguard_training"])
    assert training["validation_pictures"] == result.metrics.num_pictures
    assert training["split_by"] == "groups"
    (pictures,), (logits,) = model.graph.input, model.graph.output
    shape = [one.dim_param or one.dim_value for one in pictures.type.tensor_type.shape.dim]
    assert shape == ["n", 3, 224, 224]
    assert [one.dim_param or one.dim_value for one in logits.type.tensor_type.shape.dim] == ["n", 2]


def test_the_command(folder_halves: Path, tmp_path: Path) -> None:
    # A few pictures of one group, so that blocks have to do.
    data = tmp_path / "data"
    for path in sorted(folder_halves.glob("*/cabin*/*")):
        to = data / path.parts[-3] / f"cabin_{''.join(path.name.split('_')[1:])}"
        to.parent.mkdir(parents=True, exist_ok=True)
        to.symlink_to(path)
    arguments = ["train", "attribute", "--data", str(data), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(
        app, [*arguments, "--map", "upper=face", "--label", "lower", "--epochs", "5"]
    )
    assert answer.exit_code == 0, answer.output
    assert "beware: NOT split by group" in " ".join(answer.output.split())
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["labels"] == ["lower", "face"]
    assert document["split_by"] == "blocks of names"
    assert document["metrics"]["auc"] is not None
    assert len(document["losses"]) <= 5
    strange = CliRunner().invoke(app, [*arguments, "--map", "upper"])
    assert isinstance(strange.exception, QueryError)
    assert "expected FOUND=CALLED, found 'upper'" in str(strange.exception)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"validation_groups": ("mars",)}, DatasetError, "'mars': no picture is of it"),
        ({"choice": LabelChoice(labels=("person_upper",))}, DatasetError, "two labels or more"),
        ({"weights": Path(__file__)}, ModelError, "expected a file of weights"),
    ],
)
def test_a_failed_run_leaves_nothing(
    kitti_halves: Path,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    whole = {"data": kitti_halves, "out": tmp_path / "out", "choice": HALVES, **changes}
    with pytest.raises(error, match=message):
        train_attribute(AttributeTrainSettings.model_validate(whole), progress=False)
    assert not (tmp_path / "out").exists()


def test_broken_weights_leave_nothing(kitti_halves: Path, tmp_path: Path) -> None:
    weights = torch.load(imagenet_lite0_weights(), weights_only=True)
    weights["_conv_stem.weight"][0] = math.nan
    torch.save(weights, tmp_path / "broken.pt")
    settings = AttributeTrainSettings(
        data=kitti_halves,
        out=tmp_path / "out",
        choice=HALVES,
        weights=tmp_path / "broken.pt",
        fit=AttributeFitSettings(jitters=0),
    )
    with pytest.raises(TrainingDivergedError, match=r"the loss became nan: .* broken weights"):
        train_attribute(settings, progress=False)
    assert not settings.out.exists()


def test_an_export_that_serving_reads_otherwise(
    made: Made, some_crops: list[LabelledCrop], tmp_path: Path
) -> None:
    settings, _ = made
    torch.manual_seed(0)
    model = start_model(settings, 2).cpu()
    torch.nn.init.normal_(model.head.linear.weight, std=0.05)
    path = tmp_path / "model.onnx"
    pixels = [one.pixels for one in some_crops]
    # The right file is in `test_what_is_written`; this one has serving swap the colours.
    export_attribute(model, path, labels=("upper", "lower"), metadata={"channels": "bgr"})
    with pytest.raises(ModelError, match="expected the labels"):
        serving_difference(model, path, pixels, ("lower", "upper"))
    with pytest.raises(ModelError, match="serving's probabilities differ by"):
        serving_difference(model, path, pixels, ("upper", "lower"))


def test_logits_are_not_taken_for_probabilities(made: Made, some_crops: list[LabelledCrop]) -> None:
    model = start_model(made[0], 2).cpu()
    with torch.no_grad():
        model.head.linear.bias.copy_(torch.tensor([0.3, 0.7]))
        logits = model(torch.from_numpy(to_inputs([some_crops[0].pixels]))).numpy()
    assert not are_probabilities(logits)
    likely = 1 / (1 + math.exp(-0.4))
    assert np.exp(logits[0]) == pytest.approx([1 - likely, likely], abs=1e-6)


# ---------------------------------------------------------------------- fitting


@pytest.fixture(scope="module")
def some_crops(folder_halves: Path) -> list[LabelledCrop]:
    """Four of each label."""
    crops = read_crops(folder_halves, LabelChoice()).crops
    return [*crops[:4], *crops[-4:]]


def test_features_of_mirrored_and_jittered_copies(some_crops: list[LabelledCrop]) -> None:
    settings = AttributeFitSettings(jitters=2)

    def mean_colour(pictures: np.ndarray) -> np.ndarray:
        return pictures.mean(axis=(2, 3))

    bank = training_features(mean_colour, some_crops, ("lower", "upper"), settings)
    assert bank.features.shape == (8 * 4, 3)
    assert bank.label_id.tolist() == [0] * 16 + [1] * 16
    # A mirror image has the same colours, a jittered copy others.
    by_crop = bank.features.view(8, 4, 3)
    assert torch.allclose(by_crop[:, 0], by_crop[:, 1], atol=0.02)
    assert (by_crop[:, 2:] - by_crop[:, :1]).abs().amax(dim=2).min() > 1e-3
    again = training_features(mean_colour, some_crops, ("lower", "upper"), settings)
    assert torch.equal(bank.features, again.features)


def test_a_jitter_of_nothing_is_the_letterbox(some_crops: list[LabelledCrop]) -> None:
    still = ClipAugmentation(
        zoom=(1, 1), shift=0, flip=0, contrast=(1, 1), brightness=0, tint=(1, 1)
    )
    mirrored = still.model_copy(update={"flip": 1.0})
    rng = np.random.default_rng(0)
    for one in some_crops:
        moved = jittered(one.pixels, rng, still)
        assert moved.shape == (224, 224, 3)
        height, width = one.pixels.shape[:2]
        inner_w, inner_h = (round(side * 224 / max(width, height)) for side in (width, height))
        left, top = (224 - inner_w) // 2 + 2, (224 - inner_h) // 2 + 2
        inside = moved[top : 224 - top, left : 224 - left]
        assert np.abs(inside.mean(axis=(0, 1)) - one.pixels.mean(axis=(0, 1))).max() < 4
        assert np.array_equal(jittered(one.pixels, rng, mirrored), moved[:, ::-1])


def two_clouds(num_a: int, num_b: int, apart: float) -> FeatureBank:
    generator = torch.Generator().manual_seed(num_a)
    features = torch.randn(num_a + num_b, 4, generator=generator)
    features[num_a:, 0] += apart
    return FeatureBank(features, torch.tensor([0] * num_a + [1] * num_b))


def test_rare_labels_weigh_as_much() -> None:
    assert class_weights(torch.tensor([0, 0, 0, 1]), 2).tolist() == pytest.approx([2 / 3, 2])
    head = AttributeHead(4, 2)
    fit_head(head, two_clouds(400, 20, 2.0), two_clouds(200, 200, 2.0), AttributeFitSettings())
    predicted = head(two_clouds(300, 300, 2.0).features).argmax(dim=1)
    # The best border lies halfway, where 84 % of each cloud are right.
    assert (predicted[:300] == 0).float().mean() > 0.75
    assert (predicted[300:] == 1).float().mean() > 0.75


def test_the_best_epoch_is_taken() -> None:
    # What is learnt is wrong for the validation pictures: the sooner it stops, the better.
    train, validation = two_clouds(50, 50, 3.0), two_clouds(40, 40, -3.0)
    head = AttributeHead(4, 2)
    settings = AttributeFitSettings(patience=4, batch_size=25)
    losses = fit_head(head, train, validation, settings)
    assert losses == sorted(losses)
    assert len(losses) == 5
    logits = head(validation.features).detach()
    kept = torch.nn.functional.cross_entropy(logits, validation.label_id)
    assert float(kept) == pytest.approx(min(losses), abs=1e-5)
    assert fit_head(AttributeHead(4, 2), train, validation, settings) == losses


def test_broken_features_are_reported() -> None:
    broken = two_clouds(10, 10, 1.0)
    broken.features[3, 1] = math.nan
    with pytest.raises(TrainingDivergedError, match="the loss became nan"):
        fit_head(AttributeHead(4, 2), broken, two_clouds(5, 5, 1.0), AttributeFitSettings())


def test_unfreezing_changes_the_last_third_of_the_backbone(
    made: Made, some_crops: list[LabelledCrop]
) -> None:
    model = start_model(made[0], 2).cpu()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in model.backbone.named_parameters()]
    settings = AttributeFitSettings(
        unfrozen_epochs=1, batch_size=32, learning_rate=1e-3, unfrozen_learning_rate=1e-3
    )
    losses = fit_whole(model, some_crops, some_crops, ("lower", "upper"), settings)
    after = model.state_dict()
    changed = [
        not torch.equal(before[f"backbone.{name}"], after[f"backbone.{name}"]) for name in names
    ]
    # Started from equal chances, so one epoch on the very same pictures lowers the loss.
    assert len(losses) == 1
    assert losses[0] < math.log(2)
    assert not any(changed[: len(changed) * 2 // 3])
    assert changed[-1]


# ---------------------------------------------------------------------- measuring


def test_the_metrics() -> None:
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.55, 0.45]], np.float32
    )
    truth = np.array([0, 0, 0, 1, 1])
    found = measure(probabilities, truth, ("none", "basket"), num_groups=2)
    assert found.confusion == ((2, 1), (1, 1))
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.majority == pytest.approx(3 / 5)
    assert [(one.precision, one.recall) for one in found.labels] == [
        pytest.approx((2 / 3, 2 / 3)),
        pytest.approx((1 / 2, 1 / 2)),
    ]
    # Of six pairs of a basket and none, five are in order: 0.45 is under 0.6.
    assert found.auc == pytest.approx(5 / 6)
    assert found.accuracy_interval.low == pytest.approx(0.2307, abs=1e-3)
    assert found.accuracy_interval.high == pytest.approx(0.8824, abs=1e-3)
    # Bins hold 0.9 (right), 0.8 (right), 0.7 (right), 0.6 (wrong), 0.55 (wrong).
    assert found.calibration_error == pytest.approx((0.1 + 0.2 + 0.3 + 0.6 + 0.55) / 5, abs=1e-6)


def test_three_labels_of_which_one_is_absent(tmp_path: Path) -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], np.float32)
    found = measure(probabilities, np.array([0, 0]), ("a", "b", "c"), num_groups=1)
    assert found.auc is None
    assert found.labels[2].precision is None
    assert found.labels[2].recall is None
    assert found.labels[1].precision == 0
    plot_confusion(found, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as plot:
        shades = np.asarray(plot.convert("L"))
    assert shades.std() > 10
