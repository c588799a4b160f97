"""Rotation, flips and pixel aspect are applied once, to everything that sees a frame."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from storeguard.config.store import CameraConfig, Container
from storeguard.errors import EmptySourceError, SourceError
from storeguard.recording.muxer import ClipWriter
from storeguard.testing.video import make_audio
from storeguard.video.display import Display, Turn, plausible_aspect
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames
from tests.conftest import MakeVideo
from tests.video.clips import probe, read_packets
from tests.video.remuxing import encoded, remuxed

TURNS = [Turn(*values) for values in product((False, True), repeat=3)]
ROTATED = Turn(transposed=True, mirrored=True)  # shown a quarter turn clockwise


def camera(source: object, **settings: object) -> CameraConfig:
    return CameraConfig(id="till", source=str(source), pace="fast", **settings)


def scene(wh: tuple[int, int] = (160, 96)) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB: a different colour in each corner."""
    width, height = wh
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 220, 40, 40
    image[: height // 2, width // 2 :] = 40, 220, 40
    image[height // 2 :, : width // 2] = 40, 40, 220
    image[height // 2 :, width // 2 :] = 220, 220, 220
    return image


def stored(shown: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """The picture that `turn` shows as `shown`."""
    lying = shown[::-1] if turn.flipped else shown
    lying = lying[:, ::-1] if turn.mirrored else lying
    return np.ascontiguousarray(lying.swapaxes(0, 1) if turn.transposed else lying)


def first_frame(path: Path) -> Frame:
    return next(iter(read_frames(camera(path))))


def assert_same_picture(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_matrix_says_how_a_picture_is_turned(turn: Turn):
    assert Turn.from_matrix(turn.matrix()) == turn
    assert_same_picture(Display(turn).upright(stored(scene(), turn)), scene())


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_stream_of_pictures_with_exif_is_turned(tmp_path: Path, orientation: int):
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "one.jpg", exif=exif, quality=95)
    path = tmp_path / "stream.mjpeg"
    path.write_bytes((tmp_path / "one.jpg").read_bytes() * 5)
    frame = first_frame(path)
    assert_same_picture(
        frame.rgb(), np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "one.jpg")))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_those_of_pillow(orientation: int):
    image = Image.fromarray(scene())
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert_same_picture(Display(Turn.from_exif(orientation)).upright(scene()), expected)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (None, None),
        (Fraction(0), None),  # not declared
        (Fraction(2), Fraction(2)),
        (Fraction(8, 9), Fraction(8, 9)),
        (Fraction(65535), None),
        (Fraction(1, 500), None),
    ],
)
def test_pixel_aspects_that_cannot_be_right_are_ignored(
    ratio: Fraction | None, expected: Fraction | None
):
    assert plausible_aspect(ratio) == expected


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_turned_film_is_shown_upright(tmp_path: Path, suffix: str, turn: Turn):
    lying = encoded([stored(scene(), turn)] * 5, tmp_path / "lying.mp4")
    path = remuxed(lying, tmp_path / f"turned.{suffix}", turn=turn)

    frames = list(read_frames(camera(path)))

    assert [frame.wh for frame in frames] == [(160, 96)] * 5
    assert_same_picture(frames[0].rgb(), scene())
    assert_same_picture(frames[0].rgb((80, 48)), scene((80, 48)))


@pytest.mark.parametrize("declared_by", ["codec", "container"])
@pytest.mark.parametrize(
    ("aspect", "wh"),
    [(Fraction(2), (320, 96)), (Fraction(1, 2), (80, 96)), (Fraction(4, 3), (213, 96))],
)
def test_pixels_are_stretched_to_squares(
    tmp_path: Path, declared_by: str, aspect: Fraction, wh: tuple[int, int]
):
    inside = aspect if declared_by == "codec" else None
    path = encoded([scene()] * 5, tmp_path / "squeezed.mp4", pixel_aspect=inside)
    if declared_by == "container":
        path = remuxed(path, tmp_path / "declared.mp4", pixel_aspect=aspect)

    frame = first_frame(path)

    assert frame.wh == wh
    assert_same_picture(frame.rgb(), scene(wh))


def test_the_container_overrules_the_codec(tmp_path: Path):
    path = encoded([scene()] * 5, tmp_path / "codec.mp4", pixel_aspect=Fraction(2))
    path = remuxed(path, tmp_path / "container.mp4", pixel_aspect=Fraction(1))
    assert first_frame(path).wh == (160, 96)


def test_pixels_become_squares_before_the_picture_is_turned(tmp_path: Path):
    squeezed = np.ascontiguousarray(stored(scene(), ROTATED)[:, ::2])  # 48 wide, 160 high
    path = encoded([squeezed] * 5, tmp_path / "lying.mp4", pixel_aspect=Fraction(2))
    frame = first_frame(remuxed(path, tmp_path / "turned.mp4", turn=ROTATED))
    assert frame.wh == (160, 96)
    assert_same_picture(frame.rgb(), scene())


def test_a_change_of_pixel_aspect_in_mid_stream_is_followed(tmp_path: Path):
    both = tmp_path / "both.ts"
    with both.open("wb") as out:
        for name, aspect in (("a.ts", Fraction(1)), ("b.ts", Fraction(2))):
            part = encoded([scene()] * 5, tmp_path / name, pixel_aspect=aspect)
            out.write(part.read_bytes())
    sizes = [frame.wh for frame in read_frames(camera(both))]
    # Pictures that are inside the decoder when it changes may have either size.
    assert sizes[:2] + sizes[5:] == [(160, 96)] * 2 + [(320, 96)] * 5


@pytest.mark.parametrize("container", list(Container))
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])  # copied, and encoded again
def test_clips_are_shown_as_their_camera_is(tmp_path: Path, container: Container, codec: str):
    squeezed = np.ascontiguousarray(stored(scene(), ROTATED)[:, ::2])
    lying = encoded([squeezed] * 5, tmp_path / "lying.mp4", codec=codec, pixel_aspect=Fraction(2))
    packets = read_packets(remuxed(lying, tmp_path / "turned.mp4", turn=ROTATED))
    path = tmp_path / f"clip.{container}"
    writer = ClipWriter(path, container=container, video=packets[0].format)
    for packet in packets:
        writer.write(packet)
    writer.finish()

    frame = first_frame(path)

    assert frame.wh == (160, 96)
    assert_same_picture(frame.rgb(), scene())
    (stream,) = probe(path)["streams"]
    assert stream["sample_aspect_ratio"] == "2:1"
    assert [data["rotation"] for data in stream["side_data_list"]] == [-90]


def test_a_pixel_aspect_of_the_container_alone_reaches_mp4_clips(tmp_path: Path):
    film = encoded([scene()] * 5, tmp_path / "plain.mp4")
    packets = read_packets(remuxed(film, tmp_path / "declared.mp4", pixel_aspect=Fraction(2)))
    path = tmp_path / "clip.mp4"
    writer = ClipWriter(path, container=Container.MP4, video=packets[0].format)
    for packet in packets:
        writer.write(packet)
    writer.finish()
    assert first_frame(path).wh == (320, 96)


# ----------------------------------------------------------------------- which stream


def with_thumbnail(film: Path, target: Path, *, attached: bool = False) -> Path:
    """The film behind a track of one picture, 64x64."""
    thumbnail = encoded([scene((64, 64))], target.with_name("thumbnail.avi"), codec="mpeg4")
    with (
        av.open(str(thumbnail)) as first,
        av.open(str(film)) as second,
        av.open(str(target), "w") as out,
    ):
        copies = {}
        for source in (first, second):
            copies[source] = out.add_stream_from_template(source.streams.video[0], opaque=True)
        if attached:
            copies[first].disposition = av.stream.Disposition.attached_pic
        for source, copy in copies.items():
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.dts = packet.pts if packet.dts is None else packet.dts
                    packet.stream = copy
                    out.mux(packet)
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_thumbnail_ahead_of_the_film_is_not_the_film(
    video: MakeVideo, tmp_path: Path, suffix: str
):
    path = with_thumbnail(video("mp4"), tmp_path / f"both.{suffix}")
    frames = list(read_frames(camera(path)))
    assert [frame.wh for frame in frames] == [(160, 96)] * 30


def test_stream_index_names_another_stream(video: MakeVideo, tmp_path: Path):
    path = with_thumbnail(video("mp4"), tmp_path / "both.mp4")
    assert [frame.wh for frame in read_frames(camera(path, stream_index=0))] == [(64, 64)]
    assert len(list(read_frames(camera(path, stream_index=1)))) == 30
    with pytest.raises(
        SourceError, match=r"expected the index of a video stream \(0, 1\), found 7"
    ):
        list(read_frames(camera(path, stream_index=7)))


def test_a_cover_picture_is_no_video(tmp_path: Path):
    cover = tmp_path / "cover.jpg"
    Image.fromarray(scene((64, 64))).save(cover)
    path = tmp_path / "song.m4a"
    with (
        av.open(str(make_audio(tmp_path / "sound.mp4"))) as sound,
        av.open(str(cover)) as picture,
        av.open(str(path), "w", format="mp4") as out,
    ):
        audio = out.add_stream_from_template(sound.streams.audio[0])
        image = out.add_stream_from_template(picture.streams.video[0], opaque=True)
        image.disposition = av.stream.Disposition.attached_pic
        for stream, copy in ((picture.streams.video[0], image), (sound.streams.audio[0], audio)):
            for packet in stream.container.demux(stream):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
    with pytest.raises(EmptySourceError, match="expected a video stream, found audio, an attached"):
        list(read_frames(camera(path)))
