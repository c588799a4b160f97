"""Reading box data sets, and what their mistakes are answered with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storeguard.errors import DatasetError
from storeguard.training.detector.data import (
    Augmentation,
    BatchMaker,
    DetectorSource,
    read_boxes,
)


def yolo(folder: Path, labels: dict[str, str | None]) -> Path:
    """A YOLO folder of 100x50 pictures; None leaves the label file out."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name, text in labels.items():
        Image.new("RGB", (100, 50), "navy").save(folder / "images" / f"{name}.png")
        if text is not None:
            (folder / "labels" / f"{name}.txt").write_text(text)
    return folder


def test_yolo_boxes_are_pixels_and_ignored_ones_apart(tmp_path: Path):
    folder = yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.2 0.2\n\n", "b": ""})
    first, second = read_boxes(folder, ignore_class=1)
    assert first.size_wh == (100, 50)
    np.testing.assert_allclose(first.persons, [[40, 15, 60, 35]], atol=1e-4)
    np.testing.assert_allclose(first.ignored, [[0, 0, 20, 10]], atol=1e-4)
    assert second.persons.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5 0.5 0.2", "expected 5 fields"),  # a field is missing
        ("0 0.5 0.5 0.2 0.2 0.9", "expected 5 fields"),  # a score too many
        ("person 0.5 0.5 0.2 0.2", "expected a whole number and 4 fractions"),
        ("0 0.5 0.5 x 0.2", "found '0 0.5 0.5 x 0.2'"),
        ("0 50 0.5 0.2 0.2", "cx: expected a fraction in 0..1, found 50.0"),  # pixels
        ("0 0.5 0.5 nan 0.2", "w: expected a fraction in 0..1, found nan"),
        ("0 0.5 0.5 0.2 -0.1", "h: expected a fraction in 0..1, found -0.1"),
        ("0 0.5 0.5 0 0.2", "expected a box with an area"),
        ("-1 0.5 0.5 0.2 0.2", "class: expected 0 or more, found -1"),
    ],
)
def test_bad_yolo_line_names_file_line_and_value(tmp_path: Path, line: str, expected: str):
    folder = yolo(tmp_path, {"a": f"0 0.5 0.5 0.2 0.2\n{line}\n"})
    with pytest.raises(DatasetError) as raised:
        read_boxes(folder)
    assert expected in str(raised.value)
    assert "a.txt:2:" in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, "expected pictures"),
        ({"a": None}, "expected labels in .*a.txt"),
        ({"a": "", "b": ""}, "none of the 2 pictures has a person box"),
        ({"a": "7 0.5 0.5 0.2 0.2"}, "none of the 1 pictures has a person box"),
    ],
)
def test_unfit_folder(tmp_path: Path, labels: dict[str, str | None], expected: str):
    with pytest.raises(DatasetError, match=expected):
        read_boxes(yolo(tmp_path, labels))


def test_folder_without_labels_or_without_existence(tmp_path: Path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="expected labels/ next to images/"):
        read_boxes(tmp_path)
    with pytest.raises(DatasetError, match="found none"):
        read_boxes(tmp_path / "nowhere")


def test_coco_reads_persons_and_ignores_crowds(tmp_path: Path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    notes = {
        "images": [{"id": 3, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": 3, "category_id": 1, "bbox": [10, 10, 20, 30]},
            {"image_id": 3, "category_id": 1, "bbox": [0, 0, 64, 9], "iscrowd": 1},
            {"image_id": 3, "category_id": 2, "bbox": [1, 1, 5, 5]},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(notes))
    (image,) = read_boxes(tmp_path)
    assert image.persons.tolist() == [[10, 10, 30, 40]]
    assert image.ignored.tolist() == [[0, 0, 64, 9]]
    (tmp_path / "instances.json").write_text("{}")
    with pytest.raises(DatasetError, match="expected COCO annotations"):
        read_boxes(tmp_path)


def test_split_keeps_neighbours_together_and_honours_names(tmp_path: Path):
    folder = yolo(tmp_path, {f"f{i}": "0 0.5 0.5 0.2 0.4" for i in range(5)})
    train, val = DetectorSource(path=folder).split()
    assert [i.path.stem for i in train] == ["f0", "f1", "f2", "f3"]
    assert [i.path.stem for i in val] == ["f4"]
    train, val = DetectorSource(path=folder, val_names=("f1.png", "f3.png")).split()
    assert [i.path.stem for i in val] == ["f1", "f3"]
    with pytest.raises(DatasetError, match=r"1 validation names .* such as f9.png"):
        DetectorSource(path=folder, val_names=("f9.png",)).split()


def test_boxes_follow_the_pixels_through_augmentation(tmp_path: Path):
    """A white person on black: wherever the picture is placed, its box must hold the white pixels."""
    folder = yolo(tmp_path, {"a": "0 0.30 0.50 0.20 0.40"})
    picture = Image.new("RGB", (100, 50))
    picture.paste("white", (20, 15, 40, 35))
    picture.save(folder / "images" / "a.png")
    source = DetectorSource(path=folder)
    still = Augmentation(mosaic=0, grey=0, brightness=0, contrast=0, tint=0, gamma=0, blur=0)
    maker = BatchMaker(
        [(source, read_boxes(folder))], augmentation=still, batch_size=16, sizes_px=(256,), seed=1
    )
    batch = maker.batch(0)
    checked = 0
    for pixels, persons in zip(batch.images.numpy(), batch.persons, strict=True):
        for x1, y1, x2, y2 in persons.numpy():
            rows, columns = np.nonzero(pixels[0] > 180)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(found, (x1, y1, x2, y2), atol=2.5)
            checked += 1
    assert checked >= 12
    again = maker.batch(0)
    assert (again.images == batch.images).all()
