"""Pictures with person boxes: reading data sets, and making training batches of them.

Two layouts of a folder are read:

- YOLO: `images/*.jpg|png` and, for each picture, `labels/<same name>.txt` with lines of
  `class cx cy w h`, the last four as fractions of the picture's width and height. A picture without
  people has an empty label file: a missing one is more often a mistake than a statement.
- COCO: one `*.json` in the folder (or in `annotations/`): `images`, `annotations`, `categories`;
  the pictures lie next to it or under `images/`. Crowd boxes are ignored in the loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from storeguard.errors import DatasetError

PAD_VALUE = 114
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MIN_VISIBLE = 0.3
"""A box of which less than this fraction is left after cropping is ignored, not taught."""
MIN_SIDE_PX = 4.0

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class LabelledImage:
    """One picture of a data set.

    Attributes:
        path: the picture's file.
        size_wh: its width and height, pixels.
        persons: float32 (n, 4), xyxy in pixels.
        ignored: float32 (m, 4), xyxy in pixels; where the loss and the score ignore boxes.
    """

    path: Path
    size_wh: tuple[int, int]
    persons: Boxes
    ignored: Boxes


class DetectorSource(BaseModel):
    """A data set and its part in training.

    Attributes:
        path: a folder in YOLO or COCO layout.
        share: how often it is drawn from, relative to other sources; 0 to only validate with it.
        retain: also keep the start model's outputs for these pictures, cell by cell. For
            everyday pictures next to a special data set: a few hundred labels alone would make the
            model forget most of what it was first trained with.
        person_class: class number of a person (YOLO), or category name (COCO, always "person").
        ignore_class: class number of boxes to ignore; None for none.
        val_names: file names held out for validation; None holds out the last `val_fraction` of the
            sorted names, so that neighbouring frames of a film stay on one side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    share: float = Field(default=1.0, ge=0)
    retain: bool = False
    person_class: int = Field(default=0, ge=0)
    ignore_class: int | None = None
    val_names: tuple[str, ...] | None = None
    val_fraction: float = Field(default=0.2, ge=0, lt=1)

    def split(self) -> tuple[list[LabelledImage], list[LabelledImage]]:
        """Read the folder and return its training and its validation part."""
        images = read_boxes(
            self.path, person_class=self.person_class, ignore_class=self.ignore_class
        )
        if self.val_names is None:
            # At least one picture each way, as long as there are two.
            held_out = math.ceil(len(images) * self.val_fraction) if len(images) > 1 else 0
            border = len(images) - min(held_out, len(images) - 1)
            return images[:border], images[border:]
        names = frozenset(self.val_names)
        if unknown := names - {image.path.name for image in images}:
            raise DatasetError(
                f"{self.path}: {len(unknown)} validation names are not in the data set, "
                f"such as {min(unknown)}"
            )
        train = [image for image in images if image.path.name not in names]
        return train, [image for image in images if image.path.name in names]


def read_boxes(
    folder: Path, *, person_class: int = 0, ignore_class: int | None = None
) -> list[LabelledImage]:
    """Read a folder in YOLO or COCO layout, sorted by file name.

    Raises:
        DatasetError: nothing is there, a label is missing, or one is wrong; the message names file,
            line, value and what was expected.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder with pictures and labels, found none")
    if (folder / "labels").is_dir():
        images = _read_yolo(folder, person_class, ignore_class)
    elif files := [*sorted(folder.glob("*.json")), *sorted(folder.glob("annotations/*.json"))]:
        images = _read_coco(folder, files[0])
    else:
        raise DatasetError(
            f"{folder}: expected labels/ next to images/ (YOLO) or a *.json of annotations (COCO)"
        )
    if not images:
        raise DatasetError(
            f"{folder}: expected pictures ({', '.join(sorted(IMAGE_SUFFIXES))}), found none"
        )
    if not any(len(image.persons) for image in images):
        raise DatasetError(f"{folder}: none of the {len(images)} pictures has a person box")
    return images


def _read_yolo(folder: Path, person_class: int, ignore_class: int | None) -> list[LabelledImage]:
    pictures = folder / "images"
    if not pictures.is_dir():
        raise DatasetError(f"{folder}: expected images/ next to labels/")
    found = []
    for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        labels = folder / "labels" / f"{path.stem}.txt"
        if not labels.is_file():
            raise DatasetError(
                f"{path}: expected labels in {labels} (an empty file for a picture without people)"
            )
        size_wh = _picture_size(path)
        rows: dict[int, list[list[float]]] = {}
        for number, line in enumerate(labels.read_text().splitlines(), start=1):
            if line.strip():
                class_id, xyxy = _yolo_line(line, f"{labels}:{number}")
                rows.setdefault(class_id, []).append(xyxy)
        scale = np.array(size_wh * 2, np.float32)
        ignored = rows.get(ignore_class, []) if ignore_class is not None else []
        found.append(
            LabelledImage(
                path, size_wh, _boxes(rows.get(person_class, [])) * scale, _boxes(ignored) * scale
            )
        )
    return found


def _yolo_line(line: str, where: str) -> tuple[int, list[float]]:
    fields = line.split()
    if len(fields) != 5:
        raise DatasetError(f"{where}: expected 5 fields (class cx cy w h), found {line!r}")
    try:
        class_id, (cx, cy, w, h) = int(fields[0]), (float(f) for f in fields[1:])
    except ValueError:
        raise DatasetError(
            f"{where}: expected a whole number and 4 fractions, found {line!r}"
        ) from None
    if class_id < 0:
        raise DatasetError(f"{where}: class: expected 0 or more, found {class_id}")
    for name, value in (("cx", cx), ("cy", cy), ("w", w), ("h", h)):
        if not 0 <= value <= 1:
            raise DatasetError(f"{where}: {name}: expected a fraction in 0..1, found {value}")
    if w == 0 or h == 0:
        raise DatasetError(f"{where}: expected a box with an area, found w={w} h={h}")
    corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    return class_id, [min(max(value, 0.0), 1.0) for value in corners]


def _read_coco(folder: Path, file: Path) -> list[LabelledImage]:
    try:
        data = json.loads(file.read_text())
        person_ids = {c["id"] for c in data["categories"] if c["name"] == "person"}
        entries = {entry["id"]: entry for entry in data["images"]}
        boxes: dict[object, tuple[list[list[float]], list[list[float]]]] = {
            key: ([], []) for key in entries
        }
        for note in data["annotations"]:
            if note["category_id"] not in person_ids:
                continue
            x, y, w, h = (float(value) for value in note["bbox"])
            if w > 0 and h > 0:
                boxes[note["image_id"]][int(note.get("iscrowd", 0))].append([x, y, x + w, y + h])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DatasetError(
            f"{file}: expected COCO annotations (images, annotations, categories): {error!r}"
        ) from error
    found = []
    for key, entry in entries.items():
        name = str(entry["file_name"])
        candidates = [folder / name, folder / "images" / name]
        path = next((p for p in candidates if p.is_file()), None)
        if path is None:
            raise DatasetError(f"{file}: picture {name} is neither in {folder} nor in images/")
        persons, ignored = boxes[key]
        found.append(LabelledImage(path, _picture_size(path), _boxes(persons), _boxes(ignored)))
    return sorted(found, key=lambda image: image.path.name)


def _picture_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{path}: expected a picture: {error}") from error


def _boxes(rows: Sequence[Sequence[float]]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


class Augmentation(BaseModel):
    """How far training pictures stray from the originals. Probabilities are per picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(default=0.5, ge=0, le=1)
    min_scale: float = Field(default=0.6, gt=0, description="relative to filling the canvas")
    max_scale: float = Field(default=1.8, gt=0)
    mosaic: float = Field(default=0.25, ge=0, le=1)
    grey: float = Field(default=0.15, ge=0, le=1, description="infra-red cameras see no colour")
    brightness: float = Field(default=0.35, ge=0, lt=1)
    contrast: float = Field(default=0.3, ge=0, lt=1)
    tint: float = Field(default=0.12, ge=0, lt=1, description="gain of each channel")
    gamma: float = Field(default=0.35, ge=0, lt=1)
    blur: float = Field(default=0.1, ge=0, le=1)


@dataclass(frozen=True)
class Batch:
    """Training pictures with their boxes.

    Attributes:
        images: uint8 (N, 3, S, S), RGB.
        persons: N tensors float32 (n, 4), xyxy in pixels of the canvas.
        ignored: N tensors float32 (m, 4), likewise.
        retain: bool (N,), pictures of sources with `retain`.
    """

    images: Tensor
    persons: list[Tensor]
    ignored: list[Tensor]
    retain: Tensor


class BatchMaker:
    """Makes the batch of any step, the same one every time for the same seed.

    Pictures are kept in memory, scaled down to `cache_side_px`.

    Args:
        sources: each data set's settings and its training pictures.
        augmentation: how pictures are varied.
        batch_size: pictures in a batch.
        sizes_px: canvas sides to choose from, multiples of 32.
        seed: of all choices.
    """

    cache_side_px = 720

    def __init__(
        self,
        sources: Sequence[tuple[DetectorSource, Sequence[LabelledImage]]],
        *,
        augmentation: Augmentation,
        batch_size: int,
        sizes_px: Sequence[int],
        seed: int,
    ) -> None:
        used = [(source, images) for source, images in sources if source.share > 0 and images]
        if not used:
            raise DatasetError("expected pictures to train with, found none after the split")
        self._sources = [images for _, images in used]
        self._retain = [source.retain for source, _ in used]
        shares = np.array([source.share for source, _ in used])
        self._shares = shares / shares.sum()
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._sizes_px = tuple(sizes_px)
        self._seed = seed
        self._cache: dict[Path, Image.Image] = {}

    def batches(self, num_steps: int) -> Iterator[Batch]:
        """Yield the batches of steps 0 to `num_steps` - 1."""
        for step in range(num_steps):
            yield self.batch(step)

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""
        rng = np.random.default_rng((self._seed, step))
        side = int(rng.choice(self._sizes_px))
        canvases, persons, ignored = [], [], []
        chosen = rng.choice(len(self._sources), size=self._batch_size, p=self._shares)
        for source in chosen.tolist():
            canvas, seen, hidden = self._sample(self._sources[source], side, rng)
            canvases.append(canvas)
            persons.append(torch.from_numpy(seen))
            ignored.append(torch.from_numpy(hidden))
        images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2)
        retain = torch.tensor([self._retain[source] for source in chosen.tolist()])
        return Batch(images, persons, ignored, retain)

    def _sample(
        self, source: Sequence[LabelledImage], side: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Boxes, Boxes]:
        settings = self._augmentation
        canvas = Image.new("RGB", (side, side), (PAD_VALUE,) * 3)
        tiles = [(0, 0, side, side)]
        if rng.random() < settings.mosaic:
            x, y = (int(v) for v in rng.uniform(0.35, 0.65, 2) * side)
            tiles = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        persons, ignored = [], []
        for tile in tiles:
            labelled = source[int(rng.integers(len(source)))]
            seen, hidden = self._place(labelled, canvas, tile, rng)
            persons.append(seen)
            ignored.append(hidden)
        pixels = np.asarray(canvas)
        boxes, hidden = np.concatenate(persons), np.concatenate(ignored)
        if rng.random() < settings.flip:
            pixels = pixels[:, ::-1]
            for rows in (boxes, hidden):
                rows[:, [0, 2]] = side - rows[:, [2, 0]]
        return np.ascontiguousarray(pixels), boxes, hidden

    def _place(
        self,
        labelled: LabelledImage,
        canvas: Image.Image,
        tile: tuple[int, int, int, int],
        rng: np.random.Generator,
    ) -> tuple[Boxes, Boxes]:
        """Paint a picture into a tile at a random scale and place; return its boxes there."""
        picture = self._load(labelled.path)
        left, top, right, bottom = tile
        fill = min((right - left) / picture.width, (bottom - top) / picture.height)
        low, high = math.log(self._augmentation.min_scale), math.log(self._augmentation.max_scale)
        scale = fill * math.exp(rng.uniform(low, high))
        # Where the picture's corner falls: anywhere between flush with one edge and with the other.
        x = left + rng.uniform(0, 1) * (right - left - picture.width * scale)
        y = top + rng.uniform(0, 1) * (bottom - top - picture.height * scale)
        # Whole pixels of the canvas that the picture covers, and the part of the picture they show.
        x1, y1 = max(left, round(x)), max(top, round(y))
        x2 = min(right, round(x + picture.width * scale))
        y2 = min(bottom, round(y + picture.height * scale))
        if x2 - x1 < 2 or y2 - y1 < 2:
            return _boxes([]), _boxes([])
        part = (
            max(0.0, (x1 - x) / scale),
            max(0.0, (y1 - y) / scale),
            min(float(picture.width), (x2 - x) / scale),
            min(float(picture.height), (y2 - y) / scale),
        )
        piece = picture.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, box=part)
        canvas.paste(_jitter(piece, self._augmentation, rng), (x1, y1))

        to_canvas = scale * picture.width / labelled.size_wh[0]
        corner = np.array([x, y, x, y], np.float32)
        window = np.array([x1, y1, x2, y2], np.float32)
        persons, cut = _clip(labelled.persons * to_canvas + corner, window)
        ignored, _ = _clip(labelled.ignored * to_canvas + corner, window)
        return persons, np.concatenate([ignored, cut])

    def _load(self, path: Path) -> Image.Image:
        if path not in self._cache:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            picture.thumbnail((self.cache_side_px, self.cache_side_px), Image.Resampling.BOX)
            self._cache[path] = picture
        return self._cache[path]


def _clip(boxes: Boxes, window: Boxes) -> tuple[Boxes, Boxes]:
    """Cut boxes to a window; return those to learn from and those to ignore."""
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    inside = np.concatenate(
        [np.maximum(boxes[:, :2], window[:2]), np.minimum(boxes[:, 2:], window[2:])], 1
    )
    left = np.maximum(inside[:, 2:] - inside[:, :2], 0)
    visible = left.prod(1) / size.prod(1)
    good = (visible >= MIN_VISIBLE) & (left.min(1) >= MIN_SIDE_PX)
    return inside[good], inside[~good & (visible > 0)]


def _jitter(piece: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Vary brightness, contrast, gamma and tint by a table; sometimes make it grey or blurred."""
    spread = rng.uniform(-1, 1, 6)
    grey = rng.random() < settings.grey
    blurred = rng.random() < settings.blur
    levels = np.linspace(0, 1, 256) ** (1 + settings.gamma * spread[0])
    levels = (levels - 0.5) * (1 + settings.contrast * spread[1]) + 0.5
    levels = levels * (1 + settings.brightness * spread[2])
    gains = 1 + settings.tint * (np.zeros(3) if grey else spread[3:])
    table = np.clip(levels[None] * gains[:, None] * 255, 0, 255).astype(np.uint8)
    if grey:
        piece = piece.convert("L").convert("RGB")
    piece = piece.point(table.reshape(-1).tolist())
    return piece.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.0))) if blurred else piece
