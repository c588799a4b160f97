"""A whole run: videos in, a classifier that serving loads out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from storeguard.cli.main import app
from storeguard.config.models import ClassifierSettings
from storeguard.engines.loading import load_clip_classifier
from storeguard.training.clips.data import ClipDatasetError, FollowedVideo, VideoCache, read_list
from storeguard.training.clips.export import backbone_runner
from storeguard.training.clips.features import ClipAugmentation, plain_features
from storeguard.training.clips.fit import ClipFitSettings, fit_whole, score_videos
from storeguard.training.clips.heads import (
    BackboneName,
    ClipModel,
    HeadName,
    make_backbone,
    make_head,
)
from storeguard.training.clips.train import ClipTrainSettings, split, train_classifier


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, cabin: Path) -> Path:
    """Four short videos of the man in the car: his own, and in red, which shall be "concealing"."""
    folder = tmp_path_factory.mktemp("clips")
    with av.open(str(cabin)) as source:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)][::3]
    rows = ["file,label,group"]
    for number, (label, group) in enumerate(
        [("normal", "ann"), ("concealing", "ann"), ("normal", "bob"), ("concealing", "bob")]
    ):
        name = f"{number}.mp4"
        rows.append(f"{name},{label},{group}")
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
            for picture in pictures:
                shown = picture if label == "normal" else picture * np.array([1, 0.5, 0.5])
                frame = av.VideoFrame.from_ndarray(shown.astype(np.uint8), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    (folder / "videos.csv").write_text("\n".join(rows) + "\n")
    return folder


MakeSettings = Callable[..., ClipTrainSettings]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def settings(data: Path, cache: Path, tmp_path: Path) -> MakeSettings:
    def make(**changes: object) -> ClipTrainSettings:
        whole = {
            "data": data,
            "out": tmp_path / "out",
            "cache": cache,
            "backbone": BackboneName.MOBILENETV3_SMALL,
            "validation_groups": ("bob",),
            "train_clips": 2,
            "num_threads": 1,
            **changes,
        }
        return ClipTrainSettings.model_validate(whole)

    return make


def test_a_whole_run(settings: MakeSettings, data: Path) -> None:
    made = train_classifier(settings(), progress=False)
    assert made.export_difference < 1e-3
    assert made.metrics is not None
    assert made.metrics.num_videos == 2
    out = made.model.parent
    assert {path.name for path in out.iterdir()} == {
        "clip_classifier.onnx",
        "settings.json",
        "metrics.json",
        "scores.png",
    }
    written = ClipTrainSettings.model_validate_json((out / "settings.json").read_text())
    assert written == settings()
    document = json.loads((out / "metrics.json").read_text())
    # What serving loads gives each video the score that training wrote down.
    classifier = load_clip_classifier(ClassifierSettings(model=str(made.model)))
    assert classifier.info.sha256 == made.sha256
    cache = VideoCache(written.cache / "videos") if written.cache else None
    assert cache is not None
    for video, row in zip(read_list(data)[2:], document["videos"], strict=True):
        (followed,) = cache.open([video])
        scores = classifier.score([followed.clip(end_s) for end_s in followed.uniform_ends()])
        assert np.sort(scores)[-3:].mean() == pytest.approx(row["score"], abs=2e-3)


def test_a_3d_resnet_learns_from_pictures(
    settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    evenly = FollowedVideo.uniform_ends
    monkeypatch.setattr(FollowedVideo, "uniform_ends", lambda video: evenly(video, 1))  # of 8
    few = ClipFitSettings(epochs=1, train_starts=1)
    made = train_classifier(settings(head=HeadName.RESNET3D, fit=few), progress=False)
    assert made.export_difference < 1e-3
    assert len(made.losses) == 1
    assert made.metrics is not None
    assert made.metrics.num_videos == 2
    classifier = load_clip_classifier(ClassifierSettings(model=str(made.model)))
    assert classifier.info.sha256 == made.sha256


def test_a_3d_resnet_refuses_one_class(settings: MakeSettings, data: Path, tmp_path: Path) -> None:
    rows = (data / "videos.csv").read_text().splitlines()
    for name in ("0.mp4", "2.mp4", "3.mp4"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    (tmp_path / "videos.csv").write_text("\n".join([rows[0], rows[1], *rows[3:]]) + "\n")
    with pytest.raises(ClipDatasetError, match="both classes"):
        train_classifier(settings(head=HeadName.RESNET3D, data=tmp_path), progress=False)


def test_a_run_repeats_itself(settings: MakeSettings, tmp_path: Path) -> None:
    first = train_classifier(settings(), progress=False)
    again = train_classifier(settings(out=tmp_path / "again"), progress=False)
    assert first.metrics == again.metrics
    assert first.losses == again.losses


def test_a_failed_run_leaves_nothing(settings: MakeSettings) -> None:
    with pytest.raises(ClipDatasetError, match="no video is of it; there are ann, bob"):
        train_classifier(settings(validation_groups=("carol",)), progress=False)
    no_group = settings(passed_over_groups=("ann", "bob"), validation_groups=())
    with pytest.raises(ClipDatasetError, match="both classes"):
        train_classifier(no_group, progress=False)
    assert not settings().out.exists()


def test_no_group_is_on_both_sides(data: Path) -> None:
    fold = split(read_list(data), ["bob"])
    assert {one.group for one in fold.train} == {"ann"}
    assert {one.group for one in fold.test} == {"bob"}


def test_unfreezing_changes_the_last_third_of_the_backbone(
    settings: MakeSettings, data: Path
) -> None:
    torch.manual_seed(0)
    followed = VideoCache((settings().cache or Path()) / "videos").open(read_list(data))
    backbone = make_backbone(BackboneName.MOBILENETV3_SMALL)
    model = ClipModel(backbone, make_head(HeadName.TAP, backbone.num_features))
    torch.nn.init.normal_(model.head.linear.weight, std=0.05)
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    fit = ClipFitSettings(unfrozen_epochs=1, train_starts=1, batch_size=8)
    losses = fit_whole(model, followed, fit, augmentation=ClipAugmentation())
    assert len(losses) == 1
    after = dict(backbone.named_parameters())
    changed = [not torch.equal(before[name], after[name]) for name in before]
    assert not any(changed[: len(changed) // 2])
    assert changed[-1]
    features = [plain_features(backbone_runner(backbone), one) for one in followed]
    assert all(one.score is not None for one in score_videos(model.head, features))


def test_the_command(data: Path, tmp_path: Path) -> None:
    arguments = ["train", "classifier", "--data", str(data), "--out", str(tmp_path / "out")]
    few = ["--backbone", "mobilenetv3-small", "--epochs", "1", "--validation-group", "bob"]
    answer = CliRunner().invoke(app, arguments + few)
    assert answer.exit_code == 0, answer.output
    model = tmp_path / "out" / "clip_classifier.onnx"
    assert model.is_file()
    classified = CliRunner().invoke(
        app, ["classify", "--model", str(model), str(data / "0.mp4"), str(data / "videos.csv")]
    )
    # One JSON line for the video; the list is no video: an error message, and exit code 2.
    assert classified.exit_code == 2
    (line,) = [one for one in classified.stdout.splitlines() if one.startswith("{")]
    document = json.loads(line)
    assert document["video"].endswith("0.mp4")
    assert document["label"] in {"normal", "shoplifting"}
    assert 0 < document["score"] < 1
    best = np.sort(document["clip_scores"])[-3:].mean()
    assert document["score"] == pytest.approx(best, abs=1e-3)
    strange = CliRunner().invoke(app, [*arguments, "--head", "oracle"])
    assert "oracle" in str(strange.exception)
