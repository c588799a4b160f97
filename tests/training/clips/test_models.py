"""Backbones, heads, fitting and export."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from storeguard.errors import ModelError, TrainingDivergedError
from storeguard.training.clips.backbones import (
    CLOSEUP_PX,
    EfficientNetLite0,
    MobileNetV3Small,
    imagenet_lite0_weights,
    load_backbone,
)
from storeguard.training.clips.data import ClipDatasetError, ClipVideo, FollowedVideo
from storeguard.training.clips.export import backbone_runner, export_classifier
from storeguard.training.clips.features import ClipAugmentation, VideoFeatures
from storeguard.training.clips.fit import (
    ClipFitSettings,
    fit_head,
    score_videos,
)
from storeguard.training.clips.heads import (
    BackboneName,
    ClipModel,
    HeadName,
    PerView,
    ResNet3d18,
    make_backbone,
    make_head,
)

HEADS = [HeadName.TAP, HeadName.TT, HeadName.LSTM]
WIDTH = 24


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------- backbones


@pytest.mark.parametrize(
    ("name", "num_features"),
    [(BackboneName.EFFICIENTNET_LITE0, 2880), (BackboneName.MOBILENETV3_SMALL, 864)],
)
def test_features_show_where_things_are(name: BackboneName, num_features: int) -> None:
    backbone = make_backbone(name).eval()
    pictures = torch.zeros(2, 3, 224, 224)
    pictures[1, :, :80, :80] = 2.0  # something in the top left corner
    with torch.inference_mode():
        features = backbone(pictures)
    assert features.shape == (2, num_features) == (2, backbone.num_features)
    fields = (features[1] - features[0]).abs().view(-1, 3, 3).sum(dim=0)
    assert fields.argmax() == 0
    assert fields[2, 2] < fields[0, 0]


def test_a_closeup_sees_the_middle_and_nothing_else() -> None:
    backbone = make_backbone(BackboneName.EFFICIENTNET_LITE0_CLOSEUP).eval()
    assert backbone.views == (2880, 1280)
    assert backbone.num_features == sum(backbone.views)
    load_backbone(backbone, imagenet_lite0_weights())
    pictures = torch.zeros(3, 3, 224, 224)
    edge = (224 - CLOSEUP_PX) // 2
    pictures[1, :, :edge] = 2.0  # over its head
    pictures[2, :, edge + 20 : edge + 60, edge + 20 : edge + 60] = 2.0  # at its waist
    with torch.inference_mode():
        whole, near = torch.split(backbone(pictures), backbone.views, dim=1)
    assert torch.equal(near[0], near[1])
    assert not torch.equal(whole[0], whole[1])
    assert (near[0] - near[2]).abs().max() > 1e-3


def test_the_closeups_weights_are_the_published_ones() -> None:
    backbone = make_backbone(BackboneName.EFFICIENTNET_LITE0_CLOSEUP)
    load_backbone(backbone, imagenet_lite0_weights())
    published = torch.load(imagenet_lite0_weights(), map_location="cpu", weights_only=True)
    for name in ("_conv_head.weight", "_bn1.running_mean", "_conv_stem.weight"):
        assert torch.equal(backbone.state_dict()[name], published[name])


def test_lite0_knows_imagenet() -> None:
    """With the published weights loaded, a picture turned upside down is another one."""
    backbone = EfficientNetLite0()
    load_backbone(backbone, imagenet_lite0_weights())
    stem = torch.load(imagenet_lite0_weights(), map_location="cpu", weights_only=True)
    assert torch.equal(backbone._conv_stem.weight, stem["_conv_stem.weight"])
    assert torch.equal(backbone._blocks[15]._bn2.running_var, stem["_blocks.15._bn2.running_var"])


def test_mobilenet_has_torchvisions_names_and_sizes(tmp_path: Path) -> None:
    """A few parameters of torchvision's mobilenet_v3_small, as its file has them."""
    shapes = {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.1.block.1.fc1.weight": (8, 16, 1, 1),
        "features.1.block.1.fc2.bias": (16,),
        "features.4.block.2.fc1.weight": (24, 96, 1, 1),
        "features.5.block.2.fc1.weight": (64, 240, 1, 1),
        "features.9.block.1.0.weight": (288, 1, 5, 5),
        "features.11.block.3.1.running_mean": (96,),
    }
    state = MobileNetV3Small().state_dict()
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    # A file with more in it, as torchvision's has its classifier, loads.
    other = {name: torch.full_like(value, 1) for name, value in state.items()}
    torch.save({**other, "classifier.0.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    loaded = MobileNetV3Small()
    load_backbone(loaded, tmp_path / "weights.pth")
    assert (loaded.state_dict()["features.0.0.weight"] == 1).all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"other": torch.zeros(1)}, "lacks _conv_stem.weight"),
        (None, "expected a file of weights"),
    ],
)
def test_strange_weights_are_refused(
    tmp_path: Path, state: dict[str, torch.Tensor] | None, message: str
) -> None:
    path = tmp_path / "weights.pth"
    if state is None:
        path.write_bytes(b"nonsense")
    else:
        torch.save(state, path)
    with pytest.raises(ModelError, match=message):
        load_backbone(EfficientNetLite0(), path)


def test_a_backbone_runs_the_same_in_onnxruntime() -> None:
    backbone = make_backbone(BackboneName.MOBILENETV3_SMALL).eval()
    pictures = np.random.default_rng(0).standard_normal((3, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(backbone_runner(backbone)(pictures), expected, atol=1e-4)


# ---------------------------------------------------------------------- fitting


def bank(
    *, num_videos: int = 12, gap: float = 1.0, late: bool = False, one_class: bool = False
) -> list[VideoFeatures]:
    """Made-up features: positives differ by `gap` in some directions, `late` in the end only."""
    random = np.random.default_rng(1)
    videos = []
    for number in range(num_videos):
        positive = number % 2 == 0 or one_class
        features = random.standard_normal((12, 16, WIDTH)).astype(np.float32)
        since = 12 if late else 0
        features[:, since:, :6] += gap * positive
        video = ClipVideo(f"{number}.mp4", Path("none"), positive, f"group {number // 2}")
        seen_s = np.linspace(0, 5, 50)
        followed = FollowedVideo(
            video, np.zeros((1, 2, 2, 3), np.uint8), seen_s, seen_s, np.zeros((50, 4), np.float32)
        )
        videos.append(VideoFeatures(followed, features[:4], features[4:]))
    return videos


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("late", [False, True])
def test_a_head_learns_what_there_is_to_learn(name: HeadName, late: bool) -> None:
    videos = bank(late=late, gap=3.0 if late else 1.0)
    head = make_head(name, WIDTH)
    losses = fit_head(head, videos[:8], ClipFitSettings(epochs=3))
    assert len(losses) == 3
    scores = score_videos(head, videos[8:])
    positive = [one.score for one in scores if one.positive]
    normal = [one.score for one in scores if not one.positive]
    assert min(map(float, positive)) > max(map(float, normal))


@pytest.mark.parametrize("name", HEADS)
def test_each_look_has_a_head_of_its_own(name: HeadName) -> None:
    """A small view that separates the classes, and a large one that does not."""
    random, videos = np.random.default_rng(2), []
    for one in bank(gap=3.0):
        noise = [random.standard_normal((*part.shape[:2], 300)) for part in (one.train, one.test)]
        videos.append(
            VideoFeatures(
                one.followed,
                np.concatenate([noise[0].astype(np.float32), one.train], axis=2),
                np.concatenate([noise[1].astype(np.float32), one.test], axis=2),
            )
        )
    head = make_head(name, 300, WIDTH)
    assert isinstance(head, PerView)
    losses = fit_head(head, videos[:8], ClipFitSettings(epochs=3))
    assert len(losses) == 6
    scores = score_videos(head, videos[8:])
    assert min(one.score or 0.0 for one in scores if one.positive) > max(
        one.score or 0.0 for one in scores if not one.positive
    )
    features = torch.from_numpy(videos[0].test)
    with torch.inference_mode():
        by_look = [
            part(features[..., seen])
            for part, seen in zip(head.heads, (slice(0, 300), slice(300, None)), strict=True)
        ]
        torch.testing.assert_close(head(features), (by_look[0] + by_look[1]) / 2)


@pytest.mark.parametrize("name", HEADS)
def test_a_run_is_repeatable(name: HeadName) -> None:
    def run(seed: int) -> list[float | None]:
        torch.manual_seed(99)  # of the head's own start
        head = make_head(name, WIDTH)
        fit_head(head, bank(gap=0.3), ClipFitSettings(seed=seed))
        return [one.score for one in score_videos(head, bank(gap=0.3))]

    assert run(42) == run(42)
    assert run(42) != run(43)


def test_training_stops_early_and_keeps_the_best() -> None:
    epochs: list[int] = []
    settings = ClipFitSettings(epochs=50, patience=2, learning_rate=1e-2)
    fit_head(
        make_head(HeadName.TAP, WIDTH),
        bank(),
        settings,
        validation=bank(num_videos=4),
        on_epoch=lambda epoch, _: epochs.append(epoch),
    )
    assert len(epochs) < 50


def test_one_class_is_refused() -> None:
    with pytest.raises(ClipDatasetError, match="both classes"):
        fit_head(make_head(HeadName.TAP, WIDTH), bank(one_class=True), ClipFitSettings())


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    videos = bank()
    videos[0].train[0, 0, 0] = np.nan
    with pytest.raises(TrainingDivergedError, match="nan"):
        fit_head(make_head(HeadName.TT, WIDTH), videos, ClipFitSettings())


def test_videos_without_a_person_are_passed_over() -> None:
    videos = bank()
    empty = VideoFeatures(videos[0].followed, videos[0].train[:0], videos[0].test[:0])
    head = make_head(HeadName.TAP, WIDTH)
    fit_head(head, [empty, *videos], ClipFitSettings())
    assert score_videos(head, [empty])[0].score is None


def test_augmentation_keeps_to_its_ranges_and_changes_the_clip() -> None:
    augmentation, rng = ClipAugmentation(), np.random.default_rng(0)
    jitters = [augmentation.jitter(rng) for _ in range(200)]
    low, high = augmentation.zoom
    assert all(low <= one.zoom <= high for one in jitters)
    assert all(abs(shift) <= augmentation.shift for one in jitters for shift in one.shift)
    assert 0.3 < np.mean([one.flip for one in jitters]) < 0.7
    clip = np.full((16, 4, 4, 3), 100, np.uint8)
    changed = augmentation.recolour(clip, rng)
    assert changed.dtype == np.uint8
    assert (changed != clip).any()
    assert (changed == changed[:1]).all()  # all pictures of a clip alike


# ---------------------------------------------------------------------- export


@pytest.mark.parametrize("name", HEADS)
def test_an_exported_classifier_agrees_with_torch(name: HeadName, tmp_path: Path) -> None:
    backbone = make_backbone(BackboneName.MOBILENETV3_SMALL)
    head = make_head(name, backbone.num_features)
    torch.nn.init.normal_(head.linear.weight, std=0.05)
    model = ClipModel(backbone, head).eval()
    path = tmp_path / "clip.onnx"
    assert export_classifier(model, path, metadata={"storeguard_threshold": "0.4"}) < 1e-3
    session = ort.InferenceSession(str(path))
    (clips,) = session.get_inputs()
    assert clips.shape[1:] == [16, 3, 224, 224]
    assert session.get_modelmeta().custom_metadata_map["storeguard_threshold"] == "0.4"
    one = np.random.default_rng(5).standard_normal((1, 16, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(one)).numpy()
    np.testing.assert_allclose(session.run(None, {"clips": one})[0], expected, atol=1e-3)


def test_an_exported_closeup_agrees_with_torch(tmp_path: Path) -> None:
    backbone = make_backbone(BackboneName.EFFICIENTNET_LITE0_CLOSEUP)
    load_backbone(backbone, imagenet_lite0_weights())
    head = make_head(HeadName.TAP, *backbone.views)
    assert isinstance(head, PerView)
    for part in head.heads:
        torch.nn.init.normal_(part.get_parameter("linear.weight"), std=0.05)
    assert export_classifier(ClipModel(backbone, head).eval(), tmp_path / "clip.onnx") < 1e-3


def test_a_bad_export_leaves_nothing_behind(tmp_path: Path) -> None:
    backbone = make_backbone(BackboneName.MOBILENETV3_SMALL)
    head = make_head(HeadName.TAP, backbone.num_features)
    torch.nn.init.constant_(head.linear.bias, float("nan"))
    with pytest.raises(ModelError, match="differ"):
        export_classifier(ClipModel(backbone, head), tmp_path / "clip.onnx")
    assert list(tmp_path.iterdir()) == []


def test_resnet3d_takes_pictures() -> None:
    model = ResNet3d18().eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 16, 3, 32, 32)).shape == (2,)
    # As published for R3D-18, its 400-class layer aside.
    assert sum(one.numel() for one in model.parameters()) == pytest.approx(33.2e6, rel=0.01)
