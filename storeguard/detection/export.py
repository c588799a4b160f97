"""What a model's exporter noted in its metadata: the task, the classes' names and the stride."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import yaml

from storeguard.errors import ModelLayoutError

PERSON_NAMES = frozenset(
    {"person", "persons", "people", "pedestrian", "pedestrians", "human", "humans"}
)
"""Names, in lower case, of classes that are people."""
_OTHER_TASKS = frozenset({"classify", "classification", "image-classification"})


@dataclass(frozen=True, slots=True)
class ExportMetadata:
    """A detector's own description, as Ultralytics and others write it into the ONNX file.

    Attributes:
        task: ``detect``, ``pose``, ``segment``, ``obb`` or another; None where it is not stated.
        names: the classes' names by index; None where they are not stated.
        stride: the input's width and height must be multiples of it, pixels; None if not stated.
        keypoint_values: numbers that a pose model gives beside each box; None if not stated.
    """

    task: str | None = None
    names: Mapping[int, str] | None = None
    stride: int | None = None
    keypoint_values: int | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """Read it from a model's metadata; what cannot be read counts as not stated.

        Raises:
            ModelLayoutError: the task is one that gives no boxes.
        """
        task = metadata.get("task", "").strip().lower() or None
        if task in _OTHER_TASKS:
            raise ModelLayoutError(f"expected a detector; its metadata states the task {task!r}")
        shape = _parsed(metadata.get("kpt_shape"))
        stride = _parsed(metadata.get("stride"))
        return cls(
            task=task,
            names=_names(metadata.get("names") or metadata.get("classes")),
            stride=stride if isinstance(stride, int) and 0 < stride <= 256 else None,
            keypoint_values=math.prod(shape)
            if isinstance(shape, list) and all(isinstance(size, int) for size in shape)
            else None,
        )

    @property
    def num_classes(self) -> int | None:
        """How many classes are named; None where none are."""
        return None if self.names is None else len(self.names)

    def person_classes(self) -> frozenset[int] | None:
        """Indices of the classes that are people; None where no names are stated.

        Raises:
            ModelLayoutError: names are stated, and none is a person's.
        """
        if self.names is None:
            return None
        people = {index for index, name in self.names.items() if name.lower() in PERSON_NAMES}
        if not people:
            raise ModelLayoutError(
                f"its metadata names the classes {describe_names(self.names)}, expected one of "
                f"{', '.join(sorted(PERSON_NAMES))}; if one of its classes is people, give its "
                "index as detector.person_class"
            )
        return frozenset(people)


def describe_names(names: Mapping[int, str]) -> str:
    """``0: bag, 1: box`` for messages; the first ten."""
    shown = ", ".join(f"{index}: {name}" for index, name in list(names.items())[:10])
    return shown + (", ..." if len(names) > 10 else "")


def _names(text: str | None) -> dict[int, str] | None:
    """Names from a mapping, a list, lines or a comma-separated line."""
    if not text or not text.strip():
        return None
    parsed = _parsed(text)
    if isinstance(parsed, dict):
        try:
            names = {int(index): str(name).strip() for index, name in parsed.items()}
        except ValueError:
            return None
    elif isinstance(parsed, list):
        names = {index: str(name).strip() for index, name in enumerate(parsed)}
    elif text.lstrip()[0] in "[{":  # cut off or malformed
        return None
    else:
        parts = text.splitlines() if "\n" in text.strip() else text.split(",")
        names = dict(enumerate(part.strip() for part in parts if part.strip()))
    placeholders = {f"{stem}{index}" for index in names for stem in ("", "class", "class_")}
    # an exporter that knows no names writes class0, class1, ...
    return None if not names or set(names.values()) <= placeholders else names


def _parsed(text: str | None) -> object:
    """Python's, JSON's and YAML's literals alike: ``{0: 'person'}``, ``["person"]``, ``32``."""
    try:
        return yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError):
        return None
