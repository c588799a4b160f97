"""Reading picture files and folders of them: content decides, and every loss is named."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from storeguard.errors import DatasetError, SourceError
from storeguard.video.display import Turn
from storeguard.video.frame import Frame

_NAMED: Final = frozenset(
    {
        *{".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"},
        *{".heic", ".heif", ".avif"},
    }
)
"""Endings of pictures: a file with one of these counts as lost if it cannot be read."""
_FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
_AS_IT_IS: Final = {"JPEG": "mjpeg", "MPO": "mjpeg", "PNG": "png", "BMP": "bmp"}
"""FFmpeg's codecs for files in plain 8-bit colour, by Pillow's names of their formats."""
_SIDECAR: Final = "._"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LossOfPicture(StrEnum):
    """Why a file in a folder of pictures gave no picture."""

    EMPTY = "empty_file"
    SIDECAR = "macos_sidecar"
    NOT_A_PICTURE = "not_a_picture"
    DAMAGED = "damaged"


class PictureError(SourceError):
    """A file is no picture that can be read.

    Args:
        path: the file.
        cause: why.
        detail: the cause in words.
    """

    def __init__(self, path: Path, cause: LossOfPicture, detail: str) -> None:
        super().__init__(f"{path}: cannot read the picture: {detail}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture for FFmpeg's decoders.

    Attributes:
        codec: FFmpeg's name of the codec.
        content: the encoded picture.
        wh: width and height in pixels, as stored.
        turn: how it is shown.
    """

    codec: str
    content: bytes
    wh: tuple[int, int]
    turn: Turn


class PictureFolder:
    """The pictures of one folder, in natural order of their names (2.jpg comes before 10.jpg).

    A file is a picture if its content begins like one, and is expected to be one if its name ends
    like one. All others are passed over; a `._NAME` that macOS wrote next to a picture is lost.

    Args:
        folder: where they are.

    Attributes:
        files: the files to read; some of them may turn out to be unreadable.
        lost: the names of the files that gave no picture so far, with the error that says why.

    Raises:
        DatasetError: the folder is missing or cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.lost: dict[str, PictureError] = {}
        if not folder.is_dir():
            raise DatasetError(f"{folder}: expected a folder of pictures")
        try:
            found = sorted(folder.iterdir(), key=_natural)
        except OSError as error:
            raise DatasetError(f"{folder}: cannot be listed: {error.strerror}") from None
        for path in found:
            if not path.is_file():
                continue
            named = path.suffix.lower() in _NAMED
            if _begins_like_picture(path) or (named and not path.name.startswith(_SIDECAR)):
                self.files.append(path)
            elif named:
                detail = "macOS's notes on a picture, not the picture"
                self.lost[path.name] = PictureError(path, LossOfPicture.SIDECAR, detail)

    def frames(self) -> Iterator[tuple[Path, Frame]]:
        """Each file that can be read, with its picture; the others are added to `lost`."""
        for path in self.files:
            try:
                yield path, read_picture(path)
            except PictureError as error:
                self.lost[path.name] = error

    def encoded(self, path: Path) -> EncodedPicture | None:
        """One of its files for FFmpeg's decoders; None if it cannot be read: it is in `lost`."""
        try:
            return encode_picture(path)
        except PictureError as error:
            self.lost[path.name] = error
            return None

    def losses(self) -> Counter[str]:
        """How many files gave no picture so far, by cause."""
        # list() copies at once, while the reading thread may be adding a file.
        return Counter(str(error.cause) for error in list(self.lost.values()))

    def describe_losses(self, *, names: int = 5) -> str:
        """The losses in words: each cause with its number of files and the first names."""
        parts = []
        for cause, count in self.losses().items():
            lost = [name for name, error in self.lost.items() if error.cause == cause]
            more = ", ..." if count > names else ""
            parts.append(f"{count} {cause} ({', '.join(lost[:names])}{more})")
        return "; ".join(parts) or "none"


def find_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, in natural order.

    Raises:
        DatasetError: the folder is missing or holds no picture.
    """
    pictures = PictureFolder(folder)
    if not pictures.files:
        raise DatasetError(f"{folder}: no picture in it; lost: {pictures.describe_losses()}")
    return pictures.files


def read_picture(path: Path) -> Frame:
    """One picture file as a frame, turned as its EXIF orientation says; its time is 1970-01-01.

    Raises:
        PictureError: it cannot be read.
    """
    with _opened(path) as picture:
        rgb = _rgb(picture)
    return Frame(
        camera_id=path.name,
        index=0,
        captured_at=_EPOCH,
        time_s=0.0,
        picture=av.VideoFrame.from_ndarray(rgb, format="rgb24"),
        scene_cut=False,
        decode_ms=0.0,
        received_s=0.0,
    )


def encode_picture(path: Path) -> EncodedPicture:
    """One picture file for FFmpeg's decoders: its own bytes, or those of a PNG of its pixels.

    Raises:
        PictureError: it cannot be read.
    """
    with _opened(path) as picture:
        codec = _AS_IT_IS.get(picture.format or "")
        if codec is not None and picture.mode in {"RGB", "L"}:
            turn = Turn.from_exif(picture.getexif().get(ExifTags.Base.Orientation))
            return EncodedPicture(codec, path.read_bytes(), picture.size, turn)
        rgb = _rgb(picture)
        content = io.BytesIO()
        Image.fromarray(rgb).save(content, "PNG", compress_level=1)
    return EncodedPicture("png", content.getvalue(), (rgb.shape[1], rgb.shape[0]), Turn())


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, with all its pixels read; whatever fails in the block is damage to it."""
    try:
        if path.stat().st_size:
            with _identified(path) as picture:
                picture.load()
                yield picture
            return
    except UnidentifiedImageError:
        detail = f"expected the content of a picture ({', '.join(_FORMATS)})"
        raise PictureError(path, LossOfPicture.NOT_A_PICTURE, detail) from None
    except Exception as error:  # noqa: BLE001  # Pillow raises anything on damaged content
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(path, LossOfPicture.DAMAGED, reason) from None
    raise PictureError(path, LossOfPicture.EMPTY, "the file is empty (0 bytes)")


def _rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB, upright."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "I" or upright.mode.startswith("I;16"):  # Pillow would clip at 255
        grey = np.clip(np.asarray(upright) // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    return np.asarray(upright.convert("RGB"))


def _identified(path: Path) -> Image.Image:
    Image.init()  # does nothing the second time; without it Pillow knows some formats only
    return Image.open(path, formats=_FORMATS)


def _begins_like_picture(path: Path) -> bool:
    try:
        with _identified(path):
            return True
    except Exception:  # noqa: BLE001  # Pillow raises anything on damaged content
        return False


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Order of names in which a number counts as a whole; equal ones by the exact name."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], path.name
