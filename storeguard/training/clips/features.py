"""A bank of features: a frozen backbone's features of clips, computed once for all heads.

The backbone stays as it is while heads are trained, so its features do not depend on the fold, the
head or the seed. Augmentation is part of the bank: each training clip is drawn again, moved,
zoomed, mirrored and recoloured, the same for all its pictures.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from storeguard.classification.clips.clip import CLIP_FRAMES, Clip, Jitter, to_input
from storeguard.files import replacing
from storeguard.training.clips.backbones import Backbone
from storeguard.training.clips.data import VALIDATION_CLIPS, FollowedVideo
from storeguard.training.clips.export import RunBackbone, backbone_runner

Features = NDArray[np.float32]


class ClipAugmentation(BaseModel):
    """How training clips are varied; each range is drawn from evenly, once a clip.

    Attributes:
        zoom: of the window around the person.
        shift: of the window, as a fraction of its side, both ways.
        flip: probability of mirroring.
        contrast, brightness: factor, and offset in levels of 255.
        tint: factor a colour channel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    zoom: tuple[float, float] = (0.92, 1.08)
    shift: float = Field(default=0.03, ge=0, le=0.5)
    flip: float = Field(default=0.5, ge=0, le=1)
    contrast: tuple[float, float] = (0.75, 1.25)
    brightness: float = Field(default=25.0, ge=0)
    tint: tuple[float, float] = (0.9, 1.1)

    def jitter(self, rng: np.random.Generator) -> Jitter:
        """How one clip's windows are moved."""
        return Jitter(
            zoom=float(rng.uniform(*self.zoom)),
            shift=(
                float(rng.uniform(-self.shift, self.shift)),
                float(rng.uniform(-self.shift, self.shift)),
            ),
            flip=bool(rng.random() < self.flip),
        )

    def recolour(self, clip: Clip, rng: np.random.Generator) -> Clip:
        """One clip under another light."""
        levels = clip.astype(np.float32)
        levels = (levels - 128) * rng.uniform(*self.contrast) + 128
        levels += rng.uniform(-self.brightness, self.brightness)
        levels *= rng.uniform(*self.tint, size=3)
        return levels.clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class VideoFeatures:
    """One video's features.

    Attributes:
        followed: the video.
        train: (k, CLIP_FRAMES, num_features) float32 of augmented clips at random moments.
        test: (VALIDATION_CLIPS, CLIP_FRAMES, num_features) float32 of plain clips, evenly spread.
            Both are empty without a person.
    """

    followed: FollowedVideo
    train: Features
    test: Features


def draw_clip(
    followed: FollowedVideo, rng: np.random.Generator, augmentation: ClipAugmentation
) -> Clip:
    """A training clip at a random moment."""
    (end_s,) = followed.random_ends(1, rng)
    return augmentation.recolour(followed.clip(end_s, augmentation.jitter(rng)), rng)


def compute_bank(
    backbone: Backbone,
    videos: Sequence[FollowedVideo],
    *,
    folder: Path,
    train_clips: int,
    augmentation: ClipAugmentation,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[VideoFeatures]:
    """The features of all videos; kept in `folder`, and taken from there if nothing has changed.

    Args:
        backbone: on the CPU or a GPU; used as it is, in evaluation mode.
        videos: decoded and followed.
        folder: where the bank is kept.
        train_clips: random clips a video.
        augmentation: of those.
        seed: of all choices.
        progress: called with each video's name.
    """
    settings = [
        *(_weights_hash(backbone), *backbone.geometry),
        *(train_clips, augmentation.model_dump(mode="json"), seed),
    ]
    place = folder / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    run = backbone_runner(backbone)
    bank = []
    for followed in videos:
        content = hashlib.sha256(
            followed.seen_s.tobytes() + followed.xyxy.tobytes() + followed.video.name.encode()
        ).hexdigest()[:12]
        path = place / f"{followed.video.path.stem}-{content}.npy"
        if not path.exists():
            rng = np.random.default_rng([seed, zlib.crc32(followed.video.name.encode())])
            features = _features_of(run, _clips_of(followed, train_clips, augmentation, rng))
            with replacing(path, sync=False) as part, part.open("wb") as file:
                np.save(file, features)
        features = np.load(path).astype(np.float32, copy=False)
        count = VALIDATION_CLIPS if followed.has_person else 0
        bank.append(VideoFeatures(followed, features[count:], features[:count]))
        progress(followed.video.name)
    return bank


def plain_features(run: RunBackbone, followed: FollowedVideo) -> VideoFeatures:
    """A video's features of plain clips alone, by a backbone as it is now."""
    ends = followed.uniform_ends() if followed.has_person else []
    found = _features_of(run, [followed.clip(end_s) for end_s in ends])
    return VideoFeatures(followed, found[:0], found)


def _clips_of(
    followed: FollowedVideo,
    train_clips: int,
    augmentation: ClipAugmentation,
    rng: np.random.Generator,
) -> list[Clip]:
    """The plain clips first, then the augmented ones."""
    if not followed.has_person:
        return []
    plain = [followed.clip(end_s) for end_s in followed.uniform_ends()]
    return plain + [draw_clip(followed, rng, augmentation) for _ in range(train_clips)]


def _features_of(run: RunBackbone, clips: Sequence[Clip]) -> Features:
    if not clips:
        return np.zeros((0, CLIP_FRAMES, 1), np.float32)
    return np.stack([run(to_input([clip])[0]) for clip in clips])


def _weights_hash(backbone: Backbone) -> str:
    digest = hashlib.sha256(type(backbone).__name__.encode())
    for name, value in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
