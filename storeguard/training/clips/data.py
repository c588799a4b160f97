"""Labelled videos for the clip classifier: the list, splits by group, people followed, and a cache.

The list is a `videos.csv` (or `labels.csv`) with the columns `file`, `label` (`normal` or another
word, which is then the positive class) and `group` or `actor`: the people or places that must not
be on both sides of a split. Pictures are decoded once and kept as memory-mapped arrays.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from storeguard.classification.clips.clip import (
    Clip,
    Jitter,
    boxes_at,
    clip_times,
    nearest_frames,
    person_clip,
    stays,
)
from storeguard.config.models import DetectorSettings, TrackerSettings
from storeguard.config.zones import CLIP_S
from storeguard.engines.loading import load_detector
from storeguard.errors import SourceError, StoreguardError
from storeguard.offline.following import file_camera, follow

NORMAL: Final = "normal"
LISTS: Final = ("videos.csv", "labels.csv")
VALIDATION_CLIPS: Final = 8
_MAX_SIDE_PX: Final = 960
_FORMAT: Final = 2
_ROUNDING_S: Final = 1e-6


class ClipDatasetError(StoreguardError, ValueError):
    """The list or its videos cannot be trained on; names the file and the line."""


@dataclass(frozen=True, slots=True)
class ClipVideo:
    """One labelled video.

    Attributes:
        name: as the list has it.
        path: the file.
        positive: whether goods are concealed in it.
        group: the people in it, joined by "+", who are never on both sides of a split.
    """

    name: str
    path: Path
    positive: bool
    group: str

    @property
    def groups(self) -> frozenset[str]:
        """The names in `group`."""
        return frozenset(self.group.split("+"))


def read_list(folder: Path) -> list[ClipVideo]:
    """The videos that a folder's list names.

    Raises:
        ClipDatasetError: no list, a missing column or file, or an empty or one-class list.
    """
    lists = [folder / name for name in LISTS if (folder / name).is_file()]
    if not lists:
        raise ClipDatasetError(f"{folder}: expected a list named {' or '.join(LISTS)}")
    with lists[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    videos = [_video(lists[0], number, row) for number, row in enumerate(rows, start=2)]
    classes = Counter(video.positive for video in videos)
    if not classes[True] or not classes[False]:
        raise ClipDatasetError(
            f"{lists[0]}: expected videos labelled {NORMAL!r} and others, got {classes[False]} and "
            f"{classes[True]}"
        )
    return videos


def _video(listed_in: Path, number: int, row: dict[str, str | None]) -> ClipVideo:
    where = f"{listed_in}, line {number}"
    group = row.get("group") or row.get("actor")
    name, label = row.get("file"), row.get("label")
    if not name or not label or not group:
        raise ClipDatasetError(f"{where}: expected file, label and group (or actor), got {row}")
    path = listed_in.parent / name
    if not path.is_file():
        raise ClipDatasetError(f"{where}: there is no file {path}")
    return ClipVideo(name, path, label != NORMAL, group)


# ---------------------------------------------------------------------- splits


@dataclass(frozen=True, slots=True)
class Fold:
    """A split into what is trained on and what is tested on."""

    name: str
    train: tuple[ClipVideo, ...]
    test: tuple[ClipVideo, ...]


def leave_one_group_out(videos: Sequence[ClipVideo]) -> list[Fold]:
    """One fold a group: tested on its videos, trained on those that share none of its names."""
    folds = []
    for group in sorted({video.group for video in videos}):
        test = tuple(video for video in videos if video.group == group)
        out = frozenset(group.split("+"))
        train = tuple(video for video in videos if not video.groups & out)
        fold = Fold(group, train, test)
        check_leakage(fold)
        folds.append(fold)
    return folds


def random_folds(videos: Sequence[ClipVideo], *, num_folds: int, seed: int) -> list[Fold]:
    """Folds that ignore groups, with each class spread evenly. Their scores are too high: use them
    only to show by how much.
    """
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    for positive in (False, True):
        names = [video.name for video in videos if video.positive == positive]
        for i, name in enumerate(rng.permutation(names)):
            fold_of[str(name)] = i % num_folds
    return [
        Fold(
            f"random {number}",
            tuple(video for video in videos if fold_of[video.name] != number),
            tuple(video for video in videos if fold_of[video.name] == number),
        )
        for number in range(num_folds)
    ]


def check_leakage(fold: Fold) -> None:
    """Check that no name is on both sides.

    Raises:
        ClipDatasetError: one is; names it and two of the videos.
    """
    for test in fold.test:
        for train in fold.train:
            if shared := test.groups & train.groups:
                raise ClipDatasetError(
                    f"fold {fold.name!r}: {', '.join(sorted(shared))} is trained on in "
                    f"{train.name} and tested on in {test.name}"
                )


# ---------------------------------------------------------------------- people, followed


@dataclass(frozen=True, slots=True, eq=False)
class FollowedVideo:
    """A decoded video and its main person: whose box, times how long, is the largest.

    Attributes:
        video: what it is.
        pictures: (n, height, width, 3) uint8 RGB, mapped into memory.
        frame_s: (n,) stream seconds of the pictures.
        seen_s: (m,) stream seconds at which the person was seen; empty without a person.
        xyxy: (m, 4) their boxes then, in pixels of the pictures.
    """

    video: ClipVideo
    pictures: NDArray[np.uint8]
    frame_s: NDArray[np.float64]
    seen_s: NDArray[np.float64]
    xyxy: NDArray[np.float32]

    @property
    def has_person(self) -> bool:
        """Whether a person was in view for the length of a clip."""
        return bool(_long_stays(self.seen_s))

    def uniform_ends(self, count: int = VALIDATION_CLIPS) -> list[float]:
        """Clip ends spread evenly over the person's stays."""
        return self._ends(np.linspace(0.0, self._room_s(), count))

    def random_ends(self, count: int, rng: np.random.Generator) -> list[float]:
        """Clip ends anywhere in the person's stays."""
        return self._ends(rng.uniform(0.0, self._room_s(), size=count))

    def clip(self, end_s: float, jitter: Jitter | None = None) -> Clip:
        """The clip of the person that ends at a moment of a stay.

        Raises:
            ClipDatasetError: pictures are missing around it, or the person was out of view.
        """
        moments_s = clip_times(end_s)
        if not any(
            first <= moments_s[0] + _ROUNDING_S and end_s <= last + _ROUNDING_S
            for first, last in stays(self.seen_s)
        ):
            raise ClipDatasetError(
                f"{self.video.name}: the person was out of view before {end_s:.2f} s"
            )
        chosen = nearest_frames(self.frame_s, moments_s)
        if chosen is None:
            raise ClipDatasetError(f"{self.video.name}: has a gap before {end_s:.2f} s")
        boxes = boxes_at(self.seen_s, self.xyxy, self.frame_s[chosen])
        return person_clip([self.pictures[i] for i in chosen], boxes, jitter)

    def _room_s(self) -> float:
        """Seconds in which clips may end, of all stays together."""
        return sum(last - first for first, last in self._end_ranges())

    def _ends(self, offsets_s: NDArray[np.float64]) -> list[float]:
        """Clip ends at seconds of the room, counted from its start."""
        return [self._end(float(offset_s)) for offset_s in offsets_s]

    def _end(self, offset_s: float) -> float:
        *before, (start, _) = self._end_ranges()
        for first, last in before:
            if offset_s <= last - first:
                return first + offset_s
            offset_s -= last - first
        return start + offset_s

    def _end_ranges(self) -> list[tuple[float, float]]:
        return [(first - clip_times(0.0)[0], last) for first, last in _long_stays(self.seen_s)]


class VideoCache:
    """Decodes videos and tracks the people in them, once; the results are kept in a folder.

    Args:
        folder: where to; made if it is not there.
        detector: finds the people.
        tracker: follows them.
    """

    def __init__(
        self,
        folder: Path,
        detector: DetectorSettings | None = None,
        tracker: TrackerSettings | None = None,
    ) -> None:
        self._folder = folder
        self._detector = load_detector(detector or DetectorSettings())
        self._tracker = tracker or TrackerSettings()
        folder.mkdir(parents=True, exist_ok=True)

    def open(
        self, videos: Iterable[ClipVideo], *, progress: Callable[[str], None] = lambda _: None
    ) -> list[FollowedVideo]:
        """Each video, decoded and followed.

        Raises:
            ClipDatasetError: a video cannot be read.
        """
        followed = []
        for video in videos:
            followed.append(self._open(video))
            progress(video.name)
        return followed

    def _open(self, video: ClipVideo) -> FollowedVideo:
        path = self._folder / f"{video.path.stem}-{self._key(video)}"
        if not (path / "done").exists():
            self._fill(path, video)
        return FollowedVideo(
            video,
            np.load(path / "pictures.npy", mmap_mode="r"),
            np.load(path / "frame_s.npy"),
            np.load(path / "seen_s.npy"),
            np.load(path / "xyxy.npy"),
        )

    def _key(self, video: ClipVideo) -> str:
        """Changes with the video's content, the detector and the tracker's settings."""
        with video.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        rest = [_FORMAT, self._detector.info.sha256, self._detector.info.input_wh]
        settings = json.dumps([content, *rest, self._tracker.model_dump(mode="json")])
        return hashlib.sha256(settings.encode()).hexdigest()[:12]

    def _fill(self, path: Path, video: ClipVideo) -> None:
        pictures: list[NDArray[np.uint8]] = []
        frame_s: list[float] = []
        trails: dict[int, list[tuple[float, NDArray[np.float32]]]] = {}
        try:
            for followed in follow(file_camera(video.path), self._detector, self._tracker):
                frame, tracks = followed.frame, followed.tracks
                shrink = min(1.0, _MAX_SIDE_PX / max(frame.wh))
                wh = (round(frame.wh[0] * shrink), round(frame.wh[1] * shrink))
                pictures.append(frame.rgb(wh))
                frame_s.append(frame.time_s)
                for person, box in zip(tracks.track_id, tracks.xyxy, strict=True):
                    trails.setdefault(int(person), []).append((frame.time_s, box * shrink))
        except SourceError as error:
            raise ClipDatasetError(f"{video.path}: cannot be read: {error}") from None
        seen_s, xyxy = _main_person(trails)
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "pictures.npy", np.stack(pictures))
        np.save(path / "frame_s.npy", np.array(frame_s))
        np.save(path / "seen_s.npy", seen_s)
        np.save(path / "xyxy.npy", xyxy)
        (path / "done").touch()  # a half-filled folder is filled again


def _main_person(
    trails: dict[int, list[tuple[float, NDArray[np.float32]]]],
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    best, best_size = None, 0.0
    for trail in trails.values():
        if not _long_stays(np.array([at for at, _ in trail])):
            continue
        boxes = np.stack([box for _, box in trail])
        size = float(np.median(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)) * len(trail))
        if size > best_size:
            best, best_size = trail, size
    if best is None:
        return np.zeros(0), np.zeros((0, 4), np.float32)
    return np.array([at for at, _ in best]), np.stack([box for _, box in best])


def _long_stays(seen_s: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(first, last) for first, last in stays(seen_s) if last - first >= CLIP_S]
