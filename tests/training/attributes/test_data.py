"""Crops in two layouts, and their split by group."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storeguard.classification.attributes.crop import MAX_SIDE_PX
from storeguard.errors import DatasetError
from storeguard.training.attributes.data import (
    AttributeData,
    LabelChoice,
    LabelledCrop,
    read_crops,
    without_number,
)
from storeguard.training.attributes.split import CropSplit, SplitBy, check_leakage, split_crops

HALVES = LabelChoice(renamed=(("person_upper", "upper"), ("person_lower", "lower")))
BOX = "a 0 0 0 4 4 40 60 0 0 0 0 0 0 0"
OTHER_BOX = "b 0 0 0 50 4 90 60 0 0 0 0 0 0 0"


def noise(path: Path, seed: int, wh: tuple[int, int] = (96, 64)) -> Path:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (wh[1], wh[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def kitti(folder: Path, *frames: str, name: str = "images") -> Path:
    """KITTI pictures cam_0, cam_1, ... with the given lines."""
    for number, lines in enumerate(frames):
        noise(folder / name / f"cam_{number}.png", number)
        labels = folder / name.replace("image", "label") / f"cam_{number}.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text(lines)
    return folder


def crop(label: str, group: str, frame: str) -> LabelledCrop:
    name = f"{label}/{group}/{frame}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return LabelledCrop(name, frame, label, group, np.zeros((4, 4, 3), np.uint8), digest)


# ---------------------------------------------------------------------- reading


def test_both_layouts_give_the_same_crops(kitti_halves: Path, folder_halves: Path) -> None:
    boxes = read_crops(kitti_halves, HALVES)
    folders = read_crops(folder_halves, LabelChoice(labels=("upper", "lower")))
    assert boxes.labels == folders.labels == ("upper", "lower")
    assert len(boxes.crops) >= 30

    def labelled(data: AttributeData) -> set[tuple[str, str, str]]:
        return {(one.sha256, one.label, one.group) for one in data.crops}

    assert labelled(boxes) == labelled(folders)
    num_pictures = len(list((kitti_halves / "images").iterdir()))
    assert boxes.passed_over.dont_care == num_pictures
    assert boxes.passed_over.other_labels == num_pictures
    assert boxes.passed_over.too_small == num_pictures
    assert folders.passed_over.model_dump() == {
        "too_small": 0,
        "dont_care": 0,
        "other_labels": 0,
        "duplicates": 0,
    }


def test_the_names_of_kitti_itself(tmp_path: Path) -> None:
    folder = kitti(tmp_path, f"{BOX}\n\n{OTHER_BOX}", f"{BOX} 0.97", "", name="image_2")
    data = read_crops(folder, LabelChoice())
    assert data.labels == ("a", "b")
    assert [one.name for one in data.crops] == [
        "image_2/cam_0.png:1",
        "image_2/cam_0.png:3",
        "image_2/cam_1.png:1",
    ]
    assert {one.group for one in data.crops} == {"cam"}
    # A box of 36x56 with a pad of 0.08 on each side.
    assert data.crops[0].pixels.shape == (64, 42, 3)


def test_groups_of_folders(tmp_path: Path) -> None:
    noise(tmp_path / "with" / "anna" / "monday" / "7.jpg", 0)
    noise(tmp_path / "with" / "cam1_000123.PNG", 1)
    noise(tmp_path / "none" / "door-cam-0044.jpeg", 2, wh=(900, 300))
    noise(tmp_path / "none" / "000017.jpg", 3)
    noise(tmp_path / "none" / ".thumbnails" / "0.jpg", 4)
    (tmp_path / "README.txt").write_text("not a picture")
    data = read_crops(tmp_path, LabelChoice())
    assert data.labels == ("none", "with")
    assert {one.name: one.group for one in data.crops} == {
        "with/anna/monday/7.jpg": "anna",
        "with/cam1_000123.PNG": "cam1",
        "none/door-cam-0044.jpeg": "door-cam",
        "none/000017.jpg": "(numbers)",
    }
    largest = max(one.pixels.shape[1] for one in data.crops)
    assert largest == MAX_SIDE_PX


@pytest.mark.parametrize(
    ("stem", "group"),
    [
        ("cam1_000123", "cam1"),
        ("cam-2-17", "cam-2"),
        ("frame0001", "frame"),
        ("door", "door"),
        ("0001", "(numbers)"),
    ],
)
def test_a_name_without_its_number(stem: str, group: str) -> None:
    assert without_number(stem) == group


def test_labels_that_share_a_name_and_others(tmp_path: Path) -> None:
    for number, label in enumerate(["basket", "trolley", "none", "dog"]):
        noise(tmp_path / label / "x_1.png", number)
    choice = LabelChoice(labels=("none",), renamed=(("basket", "goods"), ("trolley", "goods")))
    data = read_crops(tmp_path, choice)
    assert data.labels == ("none", "goods")
    assert sorted(one.label for one in data.crops) == ["goods", "goods", "none"]
    assert data.passed_over.other_labels == 1


def test_a_picture_twice_is_one(tmp_path: Path) -> None:
    noise(tmp_path / "a" / "x_1.png", 0)
    noise(tmp_path / "a" / "y_1.png", 0)
    noise(tmp_path / "b" / "x_1.png", 1)
    data = read_crops(tmp_path, LabelChoice())
    assert [one.name for one in data.crops] == ["a/x_1.png", "b/x_1.png"]
    assert data.passed_over.duplicates == 1


def a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def loose(folder: Path) -> None:
    noise(folder / "1.png", 0)


def boxes_alone(folder: Path) -> None:
    (folder / "labels").mkdir()


def no_pictures(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "labels").mkdir()


def no_boxes(folder: Path) -> None:
    kitti(folder, BOX, BOX)
    (folder / "labels" / "cam_1.txt").unlink()


def no_picture(folder: Path) -> None:
    kitti(folder, BOX, BOX)
    (folder / "images" / "cam_1.png").unlink()


def binary(folder: Path) -> None:
    kitti(folder, BOX)
    (folder / "labels" / "cam_0.txt").write_bytes(b"\xff\xfe\x00")


def cut_short(folder: Path) -> None:
    path = noise(folder / "a" / "1.png", 0)
    path.write_bytes(path.read_bytes()[:2000])


def no_image(folder: Path) -> None:
    noise(folder / "a" / "1.jpg", 0).write_text("hello")


def contradiction(folder: Path) -> None:
    noise(folder / "a" / "1.png", 0)
    noise(folder / "b" / "2.png", 0)


def strange_label(folder: Path) -> None:
    noise(folder / "with basket" / "1.png", 0)
    noise(folder / "none" / "2.png", 1)


def with_lines(*frames: str) -> Callable[[Path], None]:
    return lambda folder: (kitti(folder, *frames), None)[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_file, "expected a folder with pictures and labels, found none"),
        (lambda _: None, "expected pictures in LABEL/ folders, or images/ with labels/"),
        (loose, r"1\.png: expected pictures in folders named after their labels"),
        (boxes_alone, "expected images or image_2 next to labels"),
        (no_pictures, "images: expected pictures, found none"),
        (no_boxes, r"cam_1\.png: expected boxes in .*cam_1\.txt"),
        (no_picture, r"cam_1\.txt: expected a picture cam_1 in"),
        (binary, r"cam_0\.txt: expected KITTI boxes"),
        (cut_short, r"1\.png: expected a picture"),
        (no_image, r"1\.jpg: expected a picture"),
        (contradiction, r"b/2\.png: the same picture as a/1\.png, but labelled 'b' instead of 'a'"),
        (strange_label, r"label 'with basket': expected letters.*rename it with --map"),
        # YOLO's five columns are no KITTI boxes.
        (with_lines("0 0.5 0.5 0.1 0.1"), r"cam_0\.txt:1: expected 15 columns or more .*found 5"),
        (with_lines(BOX, BOX.replace("40", "wide")), r"cam_1\.txt:1: right: .*found 'wide'"),
        (with_lines(BOX.replace("60", "nan")), "bottom: expected pixels, found 'nan'"),
        (with_lines(BOX.replace("40", "2")), "expected left < right .*found 4 4 2 60"),
        (
            with_lines("a 0 0 0 400 4 440 60 0 0 0 0 0 0 0"),
            r"cam_0\.txt:1: expected a box inside 96x64",
        ),
        (with_lines(BOX, ""), r"expected two labels or more.*found a; the folder has a \(1\)"),
        (with_lines("", ""), "found none; the folder has none"),
        # Too small to learn from differs from missing.
        (
            with_lines(BOX, "b 0 0 0 4 4 40 27 0 0 0 0 0 0 0"),
            r"found a; the folder has a \(1\), b \(1\)",
        ),
    ],
)
def test_what_cannot_be_read(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(DatasetError, match=message):
        read_crops(folder, LabelChoice())


def test_a_label_that_is_not_there(tmp_path: Path) -> None:
    folder = kitti(tmp_path, f"{BOX}\n{OTHER_BOX}")
    with pytest.raises(DatasetError, match=r"label 'basket': .*the folder has a \(1\), b \(1\)"):
        read_crops(folder, LabelChoice(labels=("a", "basket")))


# ---------------------------------------------------------------------- splitting


def test_about_a_fifth_of_the_groups_with_every_label() -> None:
    # "rare" is in two groups of twenty alone: one of them has to be kept.
    crops = [crop("common", f"g{g}", f"g{g}/{i}") for g in range(20) for i in range(3)]
    crops += [crop("rare", "g3", "g3/7"), crop("rare", "g11", "g11/8")]
    seen = set()
    for seed in range(5):
        split = split_crops(crops, (), seed=seed)
        kept = {one.group for one in split.validation}
        assert split.by is SplitBy.GROUPS
        assert split.warnings == ()
        assert len(kept) == 4
        assert len({"g3", "g11"} & kept) == 1
        assert not kept & {one.group for one in split.train}
        assert len(split.train) + len(split.validation) == len(crops)
        assert split_crops(crops, (), seed=seed).validation == split.validation
        seen.add(frozenset(kept))
    assert len(seen) > 1


def test_named_groups() -> None:
    crops = [crop(label, group, "1") for label in "ab" for group in ("anna", "bob", "carol")]
    split = split_crops(crops, ("bob",), seed=0)
    assert {one.group for one in split.validation} == {"bob"}
    with pytest.raises(DatasetError, match="'dave': no picture is of it; there are anna, bob, car"):
        split_crops(crops, ("dave",), seed=0)
    with pytest.raises(DatasetError, match="label 'c': all its 1 pictures are kept for validation"):
        split_crops([*crops, crop("c", "bob", "9")], ("bob",), seed=0)


def test_blocks_where_a_label_has_one_group() -> None:
    crops = [crop("a", "cam1", f"{i:03d}") for i in range(20)]
    crops += [crop("b", "cam2", f"{i:03d}") for i in range(10)]
    split = split_crops(crops, (), seed=0)
    assert split.by is SplitBy.BLOCKS
    assert "NOT split by group" in split.warnings[0]
    assert [one.frame for one in split.validation if one.label == "a"] == [
        "016",
        "017",
        "018",
        "019",
    ]
    assert [one.frame for one in split.validation if one.label == "b"] == ["008", "009"]


def test_blocks_keep_a_frame_together() -> None:
    # Two people with different labels in one picture are on one side.
    crops = [crop("a", "cam", f"{i:03d}") for i in range(20)]
    crops += [crop("b", "cam", f"{i:03d}") for i in range(10)]
    split = split_crops(crops, (), seed=0)
    kept = {one.frame for one in split.validation}
    assert kept == {"008", "009", "016", "017", "018", "019"}
    assert not kept & {one.frame for one in split.train}


def test_too_few_pictures_for_two_sides() -> None:
    crops = [crop("a", "cam", f"{i}") for i in range(8)] + [crop("b", "cam", "9")]
    with pytest.raises(DatasetError, match=r"label 'b': expected two pictures or more.*found 1"):
        split_crops(crops, (), seed=0)


def test_names_that_do_not_tell_groups() -> None:
    # The crop's number comes last, so that every frame seems to be a group of its own.
    crops = [crop("ab"[i % 2], f"cam1_{i:03d}", f"cam1_{i:03d}_2.png") for i in range(9)]
    (warning,) = split_crops(crops, (), seed=0).warnings
    assert "9 files fall into 9 groups: if names such as 'cam1_000_2' do not end" in warning
    # Folders are taken as they are.
    sorted_in = [crop("ab"[i % 2], f"p{i}", f"p{i}/cam1_{i:03d}_2.png") for i in range(9)]
    assert split_crops(sorted_in, (), seed=0).warnings == ()


def test_leakage_is_found() -> None:
    train, same_group = crop("a", "anna", "1"), crop("a", "anna", "2")
    with pytest.raises(DatasetError, match="a/anna/2: group 'anna' is on both sides"):
        check_leakage(CropSplit(SplitBy.GROUPS, (train,), (same_group,), ()))
    check_leakage(CropSplit(SplitBy.BLOCKS, (train,), (same_group,), ()))
    twin = LabelledCrop("b/2", "2", "b", "bob", train.pixels, train.sha256)
    with pytest.raises(DatasetError, match="b/2: the same picture as a/anna/1, which is trained"):
        check_leakage(CropSplit(SplitBy.BLOCKS, (train,), (twin,), ()))
