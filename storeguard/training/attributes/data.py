"""Labelled crops of people for attribute classifiers: two layouts of a folder, read.

- Crops: `DATA/<label>/**/*.jpg|png`. A picture's group is the first folder below its label, such as
  a person, a store or a day; where there is none, its file's name without the trailing number.
- KITTI boxes: `DATA/images` (or `image_2`) with a file for each picture in `DATA/labels` (or
  `label_2`), a line a box: type, truncated, occluded, alpha, left, top, right, bottom, and seven
  columns or more of which nothing is read. The type is the label, and a picture's group its name
  without the trailing number: `cam1_000123` is of the group `cam1`. A picture without people has an
  empty label file: a missing one is more often a mistake than a statement.

All crops are kept in memory, up to 200 KB each.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from storeguard.classification.attributes.crop import Crop, person_crop, shrunk
from storeguard.config.zones import Id
from storeguard.errors import DatasetError
from storeguard.training.detector.data import IMAGE_SUFFIXES
from storeguard.training.progress import step_bar

DONT_CARE: Final = "DontCare"
"""KITTI's type of regions in which nothing was labelled."""
MIN_HEIGHT_PX: Final = 24
"""Boxes lower than this show too little to learn from."""
_PICTURES: Final = ("images", "image_2")
_BOXES: Final = ("labels", "label_2")
_NUM_COLUMNS: Final = 15
_LABEL: Final[TypeAdapter[str]] = TypeAdapter(Id)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCrop:
    """One person's picture and what it shows.

    Attributes:
        name: the file, relative to the data folder; with KITTI boxes followed by `:line`.
        frame: what else shares the moment: the file's path, less the label's folder.
        label: such as "basket".
        group: what must not be on both sides of a split.
        pixels: as serving cuts it.
        sha256: of the pixels, hexadecimal.
    """

    name: str
    frame: str
    label: str
    group: str
    pixels: Crop
    sha256: str


class PassedOver(BaseModel):
    """What of a folder is not used, counted.

    Attributes:
        too_small: boxes lower than MIN_HEIGHT_PX.
        dont_care: KITTI's DontCare regions.
        other_labels: boxes or pictures with a label that was not requested.
        duplicates: pictures whose pixels are another's with the same label.
    """

    model_config = ConfigDict(frozen=True)

    too_small: int = 0
    dont_care: int = 0
    other_labels: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AttributeData:
    """A folder's crops.

    Attributes:
        labels: two or more, in the order of the model's scores: as requested, else sorted.
        crops: sorted by name.
        passed_over: what was left out.
    """

    labels: tuple[str, ...]
    crops: tuple[LabelledCrop, ...]
    passed_over: PassedOver


class LabelChoice(BaseModel):
    """Which of a folder's labels are used, and under which names.

    Attributes:
        labels: used as they are.
        renamed: (found, called) pairs, each used under its new name; several may share one. Where
            both are empty, all labels are used as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()

    @property
    def requested(self) -> tuple[str, ...]:
        """The labels in the order of the request, each once; empty for all."""
        return tuple(dict.fromkeys([*self.labels, *(called for _, called in self.renamed)]))

    def of(self, found: str) -> str | None:
        """What a label of the folder is called; None if it is not requested."""
        if not self.requested:
            return found
        return dict(self.renamed).get(found, found if found in self.labels else None)


def read_crops(folder: Path, choice: LabelChoice, *, progress: bool = False) -> AttributeData:
    """Read a folder in either layout.

    Args:
        folder: with label folders, or with KITTI boxes.
        choice: which labels are used.
        progress: whether a bar shows it.

    Raises:
        DatasetError: fewer than two labels are there, or a picture, a box or a label is wrong; the
            message names file, line, value and what was expected.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder with pictures and labels, found none")
    pictures, boxes = _kitti_folders(folder)
    seen: Counter[str] = Counter()
    passed_over: Counter[str] = Counter()
    reader = (
        _KittiReader(folder, pictures, boxes, choice, seen, passed_over)
        if pictures and boxes
        else _FolderReader(folder, choice, seen, passed_over)
    )
    files = reader.files()
    found: list[LabelledCrop] = []
    with step_bar("crops", len(files), shown=progress) as bar:
        for path in files:
            found += reader.crops(path)
            bar(path)
    crops = _without_duplicates(found, passed_over)
    labels = choice.requested or tuple(sorted({one.label for one in crops}))
    _check_labels(folder, labels, crops, seen)
    return AttributeData(labels, crops, PassedOver(**passed_over))


def without_number(stem: str) -> str:
    """A file's name without its trailing number: `cam1_000123` is of `cam1`."""
    return re.sub(r"[\W_]*\d+$", "", stem) or "(numbers)"


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB.

    Raises:
        DatasetError: the file is no picture, or not a whole one.
    """
    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path}: expected a picture: {error}") from None


def _kitti_folders(folder: Path) -> tuple[Path | None, Path | None]:
    pictures = next((folder / name for name in _PICTURES if (folder / name).is_dir()), None)
    boxes = next((folder / name for name in _BOXES if (folder / name).is_dir()), None)
    if boxes and not pictures:
        raise DatasetError(f"{folder}: expected {' or '.join(_PICTURES)} next to {boxes.name}")
    return pictures, boxes


def _pictures_in(folder: Path, pattern: str) -> list[Path]:
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@dataclass(frozen=True, slots=True)
class _FolderReader:
    folder: Path
    choice: LabelChoice
    seen: Counter[str]
    passed_over: Counter[str]

    def files(self) -> list[Path]:
        if loose := _pictures_in(self.folder, "*"):
            raise DatasetError(
                f"{loose[0]}: expected pictures in folders named after their labels, "
                f"{self.folder}/LABEL/"
            )
        if not (found := _pictures_in(self.folder, "*/**/*")):
            raise DatasetError(
                f"{self.folder}: expected pictures in LABEL/ folders, or images/ with labels/ "
                "(KITTI), found neither"
            )
        return found

    def crops(self, path: Path) -> Iterator[LabelledCrop]:
        parts = path.relative_to(self.folder).parts
        self.seen[parts[0]] += 1
        label = self.choice.of(parts[0])
        if label is None:
            self.passed_over["other_labels"] += 1
            return
        yield _crop(
            shrunk(read_picture(path)),
            name="/".join(parts),
            frame="/".join(parts[1:]),
            label=label,
            group=parts[1] if len(parts) > 2 else without_number(path.stem),
        )


@dataclass(frozen=True, slots=True)
class _KittiReader:
    folder: Path
    pictures: Path
    boxes: Path
    choice: LabelChoice
    seen: Counter[str]
    passed_over: Counter[str]

    def files(self) -> list[Path]:
        if not (found := _pictures_in(self.pictures, "*")):
            raise DatasetError(f"{self.pictures}: expected pictures, found none")
        stems = {path.stem for path in found}
        for lines in sorted(self.boxes.glob("*.txt")):
            if lines.stem not in stems:
                raise DatasetError(f"{lines}: expected a picture {lines.stem} in {self.pictures}")
        return found

    def crops(self, path: Path) -> Iterator[LabelledCrop]:
        lines = self.boxes / f"{path.stem}.txt"
        if not lines.is_file():
            raise DatasetError(
                f"{path}: expected boxes in {lines} (an empty file for a picture without people)"
            )
        if not (rows := list(self._chosen_rows(lines))):
            return
        picture = read_picture(path)
        for number, label, xyxy in rows:
            try:
                pixels = person_crop(picture, xyxy)
            except ValueError as error:
                raise DatasetError(f"{lines}:{number}: {error}") from None
            name = path.relative_to(self.folder).as_posix()
            yield _crop(
                pixels,
                name=f"{name}:{number}",
                frame=path.name,
                label=label,
                group=without_number(path.stem),
            )

    def _chosen_rows(self, lines: Path) -> Iterator[tuple[int, str, NDArray[np.float32]]]:
        """Each used box's line number, label and corners."""
        try:
            text = lines.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{lines}: expected KITTI boxes: {error}") from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            found, xyxy = _kitti_line(line, f"{lines}:{number}")
            if found == DONT_CARE:
                self.passed_over["dont_care"] += 1
                continue
            self.seen[found] += 1
            label = self.choice.of(found)
            if label is None:
                self.passed_over["other_labels"] += 1
            elif xyxy[3] - xyxy[1] < MIN_HEIGHT_PX:
                self.passed_over["too_small"] += 1
            else:
                yield number, label, xyxy


def _kitti_line(line: str, where: str) -> tuple[str, NDArray[np.float32]]:
    fields = line.split()
    if len(fields) < _NUM_COLUMNS:
        raise DatasetError(
            f"{where}: expected {_NUM_COLUMNS} columns or more (KITTI: type truncated occluded "
            f"alpha left top right bottom ...), found {len(fields)}: {line!r}"
        )
    corners = []
    for key, text in zip(("left", "top", "right", "bottom"), fields[4:8], strict=True):
        try:
            corners.append(float(text))
        except ValueError:
            corners.append(math.nan)
        if not math.isfinite(corners[-1]):
            raise DatasetError(f"{where}: {key}: expected pixels, found {text!r}")
    left, top, right, bottom = corners
    if fields[0] != DONT_CARE and not (right > left and bottom > top):
        raise DatasetError(
            f"{where}: expected left < right and top < bottom, found {' '.join(fields[4:8])}"
        )
    return fields[0], np.array(corners, np.float32)


def _crop(pixels: Crop, *, name: str, frame: str, label: str, group: str) -> LabelledCrop:
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return LabelledCrop(name, frame, label, group, pixels, digest)


def _without_duplicates(
    found: list[LabelledCrop], passed_over: Counter[str]
) -> tuple[LabelledCrop, ...]:
    """Each picture once: a copy in another group would be on both sides of a split."""
    first: dict[str, LabelledCrop] = {}
    for one in found:
        known = first.setdefault(one.sha256, one)
        if known.label != one.label:
            raise DatasetError(
                f"{one.name}: the same picture as {known.name}, but labelled {one.label!r} instead "
                f"of {known.label!r}"
            )
        passed_over["duplicates"] += known is not one
    return tuple(first.values())


def _check_labels(
    folder: Path, labels: tuple[str, ...], crops: tuple[LabelledCrop, ...], seen: Counter[str]
) -> None:
    there = ", ".join(f"{name} ({count})" for name, count in sorted(seen.items())) or "none"
    used = Counter(one.label for one in crops)
    for label in labels:
        try:
            _LABEL.validate_python(label)
        except ValidationError:
            raise DatasetError(
                f"{folder}: label {label!r}: expected letters, digits and _ . - (at most 63): "
                f"rename it with --map {label!r}=NAME"
            ) from None
        if not used[label]:
            raise DatasetError(
                f"{folder}: label {label!r}: expected pictures of it, found none that are large "
                f"enough; the folder has {there}"
            )
    if len(labels) < 2:
        raise DatasetError(
            f"{folder}: expected two labels or more, found "
            f"{', '.join(labels) or 'none'}; the folder has {there}"
        )
