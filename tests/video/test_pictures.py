"""Folders of pictures: one reader for `process` and `detect`, whatever lies in the folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from storeguard.config.models import DetectorSettings
from storeguard.config.store import CameraConfig
from storeguard.errors import DatasetError, EmptySourceError, SourceError
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.pictures import detect_folder
from storeguard.offline.process import ProcessOptions, VideoProcessor
from storeguard.testing.video import number_of, picture
from storeguard.tracking.mot import read_tracks
from storeguard.video.frame import Frame
from storeguard.video.pictures import PictureFolder, find_pictures, read_picture
from storeguard.video.reader import CameraReader, read_frames
from tests.video.clips import PATIENCE_S

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(40)


def camera(source: Path, **settings: object) -> CameraConfig:
    return CameraConfig(id="till", source=str(source), pace="fast", **settings)


def save(path: Path, number: int = 0, *, kind: str | None = None, **options: object) -> None:
    Image.fromarray(picture(number, (160, 96))).save(path, kind, **options)


def upright_frames(folder: Path) -> list[tuple[Frame, Frame]]:
    """Each picture as `process` and as `detect` read it."""
    played = list(read_frames(camera(folder)))
    found = [frame for _, frame in PictureFolder(folder).frames()]
    return list(zip(played, found, strict=True))


def test_numbers_in_names_count_as_numbers(tmp_path: Path):
    names = ["1.jpg", "2.jpg", "10.jpg", "a2b10.jpg", "a10b2.jpg", "B1.jpg", "shot 9.png"]
    for number, name in enumerate(names):
        save(tmp_path / name, number)
    assert [path.name for path in find_pictures(tmp_path)] == names
    assert [number_of(f.picture) for f in read_frames(camera(tmp_path))] == list(range(7))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", "PNG"),
        ("a.png", "JPEG"),
        ("a.jpeg", "WEBP"),
        ("a.bmp", "TIFF"),
        ("a.tif", "BMP"),
        ("a.heic", "JPEG"),
        ("no ending", "PNG"),
        ("a.txt", "JPEG"),
    ],
)
def test_the_content_decides_what_a_file_is(tmp_path: Path, name: str, kind: str):
    save(tmp_path / name, 5, kind=kind)
    ((played, found),) = upright_frames(tmp_path)
    assert number_of(played.picture) == number_of(found.picture) == 5


def _converted(mode: str) -> Image.Image:
    return Image.fromarray(picture(5, (160, 96))).convert(mode)


def _grey16() -> Image.Image:
    return Image.fromarray(picture(5, (160, 96))[:, :, 0].astype(np.uint16) * 256)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (_converted("CMYK"), "a.jpg"),
        (_converted("CMYK"), "a.tif"),
        (_converted("P"), "a.png"),
        (_converted("P"), "a.gif"),
        (_converted("P"), "a.bmp"),
        (_converted("L"), "a.jpg"),
        (_converted("L"), "a.bmp"),
        (_converted("LA"), "a.png"),
        (_converted("RGBA"), "a.webp"),
        (_converted("RGBA"), "a.tif"),
        (_converted("1"), "a.png"),
        (_converted("RGB"), "a.ppm"),
        (_grey16(), "a.png"),
        (_grey16(), "a.tif"),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else value,
)
def test_both_commands_see_the_same_pixels_in_any_kind_of_picture(
    tmp_path: Path, image: Image.Image, name: str
):
    image.save(tmp_path / name)
    ((played, found),) = upright_frames(tmp_path)
    assert played.wh == found.wh == (160, 96)
    assert number_of(found.picture) == 5
    assert_alike(played.rgb(), found.rgb())


def assert_alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_both_commands_turn_pictures_as_exif_says(tmp_path: Path, name: str, orientation: int):
    image = Image.fromarray(picture(5, (160, 96)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / name, exif=exif)

    ((played, found),) = upright_frames(tmp_path)

    assert played.wh == found.wh == ((160, 96) if orientation < 5 else (96, 160))
    assert_alike(played.rgb(), found.rgb())


def test_the_resolution_of_a_print_does_not_stretch_a_picture(tmp_path: Path):
    save(tmp_path / "fax.jpg", dpi=(204, 98))
    save(tmp_path / "fax.png", dpi=(204, 98))
    assert [frame.wh for frame in read_frames(camera(tmp_path))] == [(160, 96)] * 2


def spoil(folder: Path) -> dict[str, int]:
    """Add files that give no picture; returns how many, by cause."""
    (folder / "3.jpg").touch()
    (folder / "5.jpg").write_text("no picture")
    (folder / "6.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(12))
    whole = (folder / "1.jpg").read_bytes()
    (folder / "7.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "._1.jpg").write_bytes(APPLE_DOUBLE)
    (folder / "._2.jpg").touch()
    (folder / ".DS_Store").write_bytes(bytes(100))
    (folder / "notes.txt").write_text("no picture, and not called one")
    (folder / "album.jpg").mkdir()
    return {"empty_file": 1, "not_a_picture": 2, "damaged": 1, "macos_sidecar": 2}


def test_losses_are_counted_by_cause_and_leave_gaps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for number in (1, 2, 4, 8):
        save(tmp_path / f"{number}.jpg", number)
    expected = spoil(tmp_path)
    dropped: Counter[str] = Counter()

    frames = list(read_frames(camera(tmp_path, image_fps=2), dropped=dropped))

    assert [number_of(frame.picture) for frame in frames] == [1, 2, 4, 8]
    assert [frame.time_s for frame in frames] == [0.0, 0.5, 1.5, 3.5]
    assert dropped == expected
    (message,) = [record.getMessage() for record in caplog.records]
    for name in ("3.jpg", "5.jpg", "6.heic", "7.jpg", "._1.jpg", "._2.jpg"):
        assert name in message


def test_a_camera_counts_them_at_each_pass_and_process_in_its_metrics(tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (1, 2, 4, 8):
        save(folder / f"{number}.jpg", number)
    expected = spoil(folder)
    with CameraReader(camera(folder), on_frame=lambda _: None) as reader:
        assert reader.join(PATIENCE_S)
        assert dict(reader.stats().dropped) == expected

    report = VideoProcessor(DetectorSettings()).process(folder, ProcessOptions())

    frames = report.document()["frames"]
    assert frames == {"in": 10, "processed": 4, "dropped_by_cause": expected}


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 torn", APPLE_DOUBLE])
def test_a_folder_without_a_readable_picture_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / "._1.jpg").write_bytes(APPLE_DOUBLE)
    with pytest.raises(EmptySourceError, match=r"no images in the folder; lost: 1 macos_sidecar"):
        list(read_frames(camera(tmp_path)))
    with pytest.raises(DatasetError, match="no picture in it; lost: 1 macos_sidecar"):
        find_pictures(tmp_path)
    (tmp_path / "1.jpg").write_bytes(content)
    with pytest.raises(EmptySourceError, match=r"none of its 1 images can be read: .*1\.jpg"):
        list(read_frames(camera(tmp_path)))
    with pytest.raises(SourceError, match=r"1\.jpg: cannot read the picture"):
        read_picture(tmp_path / "1.jpg")


def test_process_and_detect_find_the_same_people_in_turned_pictures(bikes: Path, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for frame in read_frames(camera(bikes)):
        if frame.index in range(110, 135, 5):  # a cyclist in all of them
            lying = Image.fromarray(frame.rgb()).transpose(Image.Transpose.ROTATE_90)
            lying.save(folder / f"{frame.index}.jpg", exif=exif, quality=95)

    detect_folder(folder, tmp_path / "boxes.jsonl", DetectorSettings())
    VideoProcessor(DetectorSettings()).process(
        folder, ProcessOptions(), ProcessOutputs(tracks=tmp_path / "tracks.txt")
    )

    lines = (tmp_path / "boxes.jsonl").read_text().splitlines()
    best = [json.loads(line)["boxes_xyxy"][0] for line in lines]
    tracks = read_tracks(tmp_path / "tracks.txt")
    assert list(tracks) == [1, 2, 3, 4, 5]
    for box, people in zip(best, tracks.values(), strict=True):
        assert people.track_id[0] == 1
        np.testing.assert_allclose(people.xyxy[0], box, atol=4)
