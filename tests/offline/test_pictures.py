"""People in folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storeguard.config.models import DetectorSettings
from storeguard.errors import ConfigError, DatasetError, ModelError
from storeguard.offline.pictures import detect_folder
from tests.detection.small_models import Box, save_constant, yolov8

GREY = (120, 120, 120)


@pytest.fixture
def settings(tmp_path: Path) -> DetectorSettings:
    # a person in the left half and another, weaker one in the right half of a 320x320 input
    boxes = [Box((20, 100, 100, 220), score=0.9), Box((200, 100, 280, 220), score=0.5)]
    model = save_constant(tmp_path / "m.onnx", yolov8(boxes, (320, 320), 1))
    return DetectorSettings(model=str(model))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    return path


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_one_line_a_picture_in_pixels_of_the_picture(
    folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (640, 360), GREY).save(folder / "b.jpg")  # 70 rows of padding above
    Image.new("RGB", (320, 320), GREY).save(folder / "a.PNG")
    Image.new("L", (320, 320), 120).save(folder / "c.png")
    Image.new("RGBA", (320, 320), (*GREY, 0)).save(folder / "d.webp")
    Image.new("P", (320, 320)).save(folder / "e.bmp")
    (folder / "notes.txt").write_text("no picture")
    (folder / "album.jpg").mkdir()
    steps: list[int] = []

    counted = detect_folder(folder, tmp_path / "out.jsonl", settings, progress=steps.append)

    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["image"] for line in lines] == ["a.PNG", "b.jpg", "c.png", "d.webp", "e.bmp"]
    assert counted.num_pictures == len(lines)
    assert not counted.lost
    assert steps == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        lines[0]["boxes_xyxy"], [(20, 100, 100, 220), (200, 100, 280, 220)], atol=0.1
    )
    np.testing.assert_allclose(
        lines[1]["boxes_xyxy"], [(40, 60, 200, 300), (400, 60, 560, 300)], atol=0.1
    )
    assert lines[0]["scores"] == [0.9, 0.5]


def test_boxes_are_in_pixels_of_the_picture_as_it_is_shown(
    folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    # stored lying, shown standing: 360 wide and 640 high
    picture = Image.new("RGB", (640, 360), GREY)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(folder / "phone.jpg", exif=exif)

    detect_folder(folder, tmp_path / "out.jsonl", settings)

    (line,) = lines_of(tmp_path / "out.jsonl")
    # 70 columns of padding: the boxes reach into it and are cut there
    np.testing.assert_allclose(
        line["boxes_xyxy"], [(0, 200, 60, 440), (260, 200, 360, 440)], atol=0.1
    )


def test_a_picture_without_people_is_an_empty_list(
    folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), GREY).save(folder / "a.png")

    detect_folder(folder, tmp_path / "o", settings.model_copy(update={"min_score": 0.95}))

    assert lines_of(tmp_path / "o") == [{"image": "a.png", "boxes_xyxy": [], "scores": []}]


def half_a_picture(folder: Path) -> bytes:
    whole = folder.parent / "whole.png"
    Image.effect_noise((200, 200), 50).save(whole)
    return whole.read_bytes()[:9000]


def test_files_that_cannot_be_read_are_named_and_the_others_read(
    folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64), GREY).save(folder / "good.jpg")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture at all")
    (folder / "half.png").write_bytes(half_a_picture(folder))
    (folder / "._good.jpg").write_bytes(b"\x00\x05\x16\x07" + bytes(60))

    result = detect_folder(folder, tmp_path / "out.jsonl", settings)

    assert [line["image"] for line in lines_of(tmp_path / "out.jsonl")] == ["good.jpg"]
    assert result.num_pictures == 1
    assert result.lost == {
        "empty_file": 1,
        "not_a_picture": 1,
        "damaged": 1,
        "macos_sidecar": 1,
    }
    for name in ("empty.jpg", "text.jpg", "half.png", "._good.jpg"):
        assert name in result.losses


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", None])
def test_a_folder_without_a_readable_picture_is_an_error(
    content: bytes | None, folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    (folder / "broken.png").write_bytes(half_a_picture(folder) if content is None else content)
    with pytest.raises(DatasetError, match=r"none of its pictures can be read: 1 .*broken\.png"):
        detect_folder(folder, tmp_path / "out.jsonl", settings)


def test_folders_and_files_that_cannot_be(
    folder: Path, settings: DetectorSettings, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="absent: expected a folder"):
        detect_folder(tmp_path / "absent", tmp_path / "o", settings)
    with pytest.raises(DatasetError, match="no picture in it"):
        detect_folder(folder, tmp_path / "o", settings)
    Image.new("RGB", (64, 64), GREY).save(folder / "a.png")
    with pytest.raises(ConfigError, match=r"no/where\.jsonl: cannot be written"):
        detect_folder(folder, tmp_path / "no" / "where.jsonl", settings)
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        detect_folder(folder, tmp_path / "o", DetectorSettings(model="absent.onnx"))
    assert not (tmp_path / "o").exists()  # nothing was begun
