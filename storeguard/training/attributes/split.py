"""Which crops a classifier is trained on and which validate it: split by group, never at random.

Pictures of one person, or of one camera a moment apart, are nearly the same picture. Dealt out at
random they flatter a model that has learnt them by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Final

import numpy as np

from storeguard.errors import DatasetError
from storeguard.training.attributes.data import LabelledCrop

_PART: Final = 0.2
_DRAWS: Final = 500
_FEW_FILES: Final = 5
_BLOCKS_WARNING: Final = (
    "NOT split by group: no choice of groups was found with every label on both sides, so the last "
    "fifth of each group's names validates; neighbours in time leak, and on new people and cameras "
    "the model does worse than these figures show"
)


class SplitBy(StrEnum):
    """What keeps the two sides apart; blocks of neighbouring names are the weaker way."""

    GROUPS = "groups"
    BLOCKS = "blocks of names"


@dataclass(frozen=True, slots=True, eq=False)
class CropSplit:
    """Two sides of a data set.

    Attributes:
        by: groups, or blocks where some label has one group alone.
        train, validation: the crops.
        warnings: what makes the scores too high; empty if nothing is known to.
    """

    by: SplitBy
    train: tuple[LabelledCrop, ...]
    validation: tuple[LabelledCrop, ...]
    warnings: tuple[str, ...]


def split_crops(
    crops: Sequence[LabelledCrop], validation_groups: Sequence[str], *, seed: int
) -> CropSplit:
    """Keep groups for validation: those named, else about a fifth, every label on both sides.

    Where no choice of groups puts every label on both sides, the last fifth of each label's names
    in each group is kept instead, which `warnings` names.

    Args:
        crops: of two labels or more.
        validation_groups: to keep; none chooses them.
        seed: of the choice.

    Raises:
        DatasetError: a named group is not there, or a label cannot be trained on.
    """
    groups = sorted({one.group for one in crops})
    if unknown := sorted(set(validation_groups) - set(groups)):
        raise DatasetError(
            f"validation group {unknown[0]!r}: no picture is of it; there are {', '.join(groups)}"
        )
    chosen = frozenset(validation_groups) or _choose_groups(crops, groups, seed)
    if chosen is None:
        return _by_blocks(crops)
    split = CropSplit(
        SplitBy.GROUPS,
        tuple(one for one in crops if one.group not in chosen),
        tuple(one for one in crops if one.group in chosen),
        _warnings(crops),
    )
    _check_trainable(crops, split)
    check_leakage(split)
    return split


def check_leakage(split: CropSplit) -> None:
    """Make sure that nothing is on both sides.

    Raises:
        DatasetError: a picture is, or, where groups were to keep them apart, a group.
    """
    pictures = {one.sha256: one for one in split.train}
    groups = {one.group for one in split.train}
    for one in split.validation:
        if twin := pictures.get(one.sha256):
            raise DatasetError(
                f"{one.name}: the same picture as {twin.name}, which is trained on: one of them "
                "has to be removed"
            )
        if split.by is SplitBy.GROUPS and one.group in groups:
            raise DatasetError(f"{one.name}: group {one.group!r} is on both sides of the split")


def _choose_groups(
    crops: Sequence[LabelledCrop], groups: Sequence[str], seed: int
) -> frozenset[str] | None:
    """Draw groups until every label is on both sides; more groups if a fifth never is enough."""
    labels_of: dict[str, set[str]] = {}
    for one in crops:
        labels_of.setdefault(one.group, set()).add(one.label)
    every = set().union(*labels_of.values())
    if any(sum(label in there for there in labels_of.values()) < 2 for label in every):
        return None
    rng = np.random.default_rng(seed)
    for count in range(max(1, round(len(groups) * _PART)), len(groups)):
        for _ in range(_DRAWS):
            drawn = frozenset(rng.permutation(np.array(groups))[:count].tolist())
            kept = set().union(*(labels_of[group] for group in drawn))
            rest = set().union(*(labels_of[group] for group in groups if group not in drawn))
            if kept == rest == every:
                return drawn
    return None


def _by_blocks(crops: Sequence[LabelledCrop]) -> CropSplit:
    frames_of: dict[tuple[str, str], set[str]] = {}
    for one in crops:
        frames_of.setdefault((one.group, one.label), set()).add(one.frame)
    kept = set()
    for (group, _), frames in frames_of.items():
        # At least one, as long as there are two.
        count = max(1, round(len(frames) * _PART)) if len(frames) > 1 else 0
        kept |= {(group, frame) for frame in sorted(frames)[len(frames) - count :]}
    split = CropSplit(
        SplitBy.BLOCKS,
        tuple(one for one in crops if (one.group, one.frame) not in kept),
        tuple(one for one in crops if (one.group, one.frame) in kept),
        (_BLOCKS_WARNING,),
    )
    _check_trainable(crops, split)
    _check_validated(crops, split)
    check_leakage(split)
    return split


def _warnings(crops: Sequence[LabelledCrop]) -> tuple[str, ...]:
    """A crop's number behind the picture's, `cam1_000123_2`, makes each picture a group."""
    named = sorted({(one.group, one.frame) for one in crops if "/" not in one.frame})
    groups = {group for group, _ in named}
    if len(named) >= _FEW_FILES * len(groups):
        return ()
    warning = (
        f"{len(named)} files fall into {len(groups)} groups: if names such as "
        f"{PurePath(named[0][1]).stem!r} do not end in the picture's number alone, neighbours in "
        "time are on both sides; sort the pictures into folders by person or camera"
    )
    return (warning,)


def _check_trainable(crops: Sequence[LabelledCrop], split: CropSplit) -> None:
    if missing := {one.label for one in crops} - {one.label for one in split.train}:
        label = min(missing)
        count = sum(one.label == label for one in crops)
        raise DatasetError(
            f"label {label!r}: all its {count} pictures are kept for validation, none is left to "
            "train on"
        )


def _check_validated(crops: Sequence[LabelledCrop], split: CropSplit) -> None:
    if missing := {one.label for one in crops} - {one.label for one in split.validation}:
        label = min(missing)
        count = sum(one.label == label for one in crops)
        raise DatasetError(
            f"label {label!r}: expected two pictures or more of it in some group, to train on and "
            f"to validate with, found {count}"
        )
