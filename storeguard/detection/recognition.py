"""Which layout a detector's outputs have: from their shapes and values and the exporter's notes."""

from __future__ import annotations

import numpy as np

from storeguard.config.models import LayoutName
from storeguard.detection.export import ExportMetadata
from storeguard.detection.layouts.distances import DISTRIBUTION, ppyoloe_names
from storeguard.detection.layouts.grid import STRIDE_SETS, STRIDES, grid, num_places, strides_of
from storeguard.detection.layouts.outputs import (
    Float32,
    Outputs,
    describe_shapes,
    shapes_of,
)
from storeguard.detection.layouts.selected import mmdet_names, ssd_names
from storeguard.detection.layouts.yolo import COCO_POSE_ROWS
from storeguard.errors import ModelLayoutError

_COCO_CLASSES = 80
_MAX_SELECTED = 1000
"""Models that select their boxes give up to so many."""
_ANCHORS = 3
"""Boxes a place in YOLOv5 and YOLOv7."""
_PICODET_STRIDES = (8, 16, 32, 64)


def recognise(outputs: Outputs, input_wh: tuple[int, int], export: ExportMetadata) -> LayoutName:
    """Which layout a model's outputs have.

    Args:
        outputs: of any picture, a batch of one.
        input_wh: the input width and height in pixels.
        export: what the model's exporter noted.

    Raises:
        ModelLayoutError: none fits, or more than one does; the message lists the shapes seen.
    """
    layout = None
    flat = [array for array in outputs.values() if array.ndim == 3]
    masks = [array.shape[1] for array in outputs.values() if array.ndim == 4]
    if len(flat) == 1 and len(flat) + len(masks) == len(outputs) <= 2:
        layout = _of_one(flat[0], sum(masks), input_wh, export)
    elif len(outputs) == 2:
        layout = _of_two(outputs, input_wh)
    elif len(outputs) in (3, 4):
        layout = _of_named(outputs)
    if layout is None and len(outputs) in (4, 6, 8, 10):
        layout = _of_heads(outputs, input_wh)
    if layout is None:
        raise _unknown(outputs, input_wh)
    return layout


def is_places_first(raw: Float32, input_wh: tuple[int, int]) -> bool:
    """Whether (N, a, b) has its places or boxes along a, each with b numbers."""
    a, b = int(raw.shape[1]), int(raw.shape[2])
    known = {num_places(input_wh, strides) for strides in STRIDE_SETS}
    known |= {_ANCHORS * places for places in known}
    if (a in known) != (b in known):
        return a in known
    return a > b


def _of_one(
    raw: Float32, masks: int, input_wh: tuple[int, int], export: ExportMetadata
) -> LayoutName | None:
    """Of one output of rows, beside which there may be a number of masks."""
    if not is_places_first(raw, input_wh):
        return LayoutName.YOLOV8 if raw.shape[1] >= 5 and raw.shape[2] > raw.shape[1] else None
    places, columns = raw.shape[1:]
    strides = strides_of(places, input_wh)
    anchored = places % _ANCHORS == 0 and strides_of(places // _ANCHORS, input_wh) is not None
    in_grid = anchored or strides is not None
    if columns == 6 and _are_corners(raw[0], empty=not in_grid):
        many = in_grid or places > _MAX_SELECTED
        layout = LayoutName.DEEPSTREAM if many else LayoutName.END2END
    elif anchored and columns >= 6:
        layout = LayoutName.YOLOV5
    elif strides is None:
        return _of_selected(raw, masks, export)
    elif _is_nanodet(places, columns, input_wh, export):
        layout = LayoutName.NANODET
    elif masks:
        layout = LayoutName.YOLOV8
    else:
        return _of_places(raw, strides, input_wh, export)
    return layout


def _of_selected(raw: Float32, masks: int, export: ExportMetadata) -> LayoutName | None:
    """Of boxes that stand in no grid."""
    columns = raw.shape[2]
    if export.task == "obb":
        return LayoutName.END2END
    others = {masks} if masks else {export.keypoint_values, COCO_POSE_ROWS - 5}
    if columns - 6 in others and _are_corners(raw[0], empty=True):
        return LayoutName.END2END
    if columns < 5:
        return None
    return LayoutName.YOLOV8 if (raw[..., :4] > 2).any() else LayoutName.DETR


def _of_places(
    raw: Float32, strides: tuple[int, ...], input_wh: tuple[int, int], export: ExportMetadata
) -> LayoutName | None:
    """Of one row a place: with an objectness before its classes or not, decoded or not."""
    columns, named = raw.shape[2], export.num_classes
    without = {4 + (named or _COCO_CLASSES)}
    if named is None:
        without |= {5, COCO_POSE_ROWS}
    if columns in without or export.task in ("pose", "obb", "segment"):
        return LayoutName.YOLOV8
    if columns < 6:
        return None
    if not _is_decoded(raw[0], strides, input_wh):
        return LayoutName.YOLOX
    if columns != 5 + (named or _COCO_CLASSES):
        raise ModelLayoutError(
            f"{columns} numbers a place are {columns - 5} classes with an objectness or "
            f"{columns - 4} without: name the layout as detector.layout, "
            f"{LayoutName.YOLOX_DECODED}, {LayoutName.YOLOV5} or {LayoutName.YOLOV8}"
        )
    # YOLOv6 keeps the column of an objectness that it has not
    return LayoutName.YOLOV5 if (raw[..., 4] == 1).all() else LayoutName.YOLOX_DECODED


def _of_two(outputs: Outputs, input_wh: tuple[int, int]) -> LayoutName | None:
    shapes = shapes_of(outputs)
    if mmdet_names(shapes) is not None:
        return LayoutName.MMDET
    a, b = sorted(shapes.values(), key=lambda shape: (len(shape), shape))
    if len(a) == len(b) == 4 and a[2:] == b[2:] and 4 * min(a[1], b[1]) == max(a[1], b[1]):
        return LayoutName.DETECTNET_V2
    names = ppyoloe_names(shapes)
    if names is not None:
        places, scores = shapes[names[0]][1], shapes[names[1]]
        if num_places(input_wh, _PICODET_STRIDES) == places:
            return LayoutName.PICODET
        if num_places(input_wh, STRIDES) == places or scores[1] != places:
            return LayoutName.PPYOLOE
    if len(a) == len(b) == 3 and a[1] == b[1] and 4 in (a[2], b[2]):
        return LayoutName.DETR
    return None


def _of_named(outputs: Outputs) -> LayoutName | None:
    """Of boxes, scores and classes in outputs of their own, recognised by their names."""
    shapes = shapes_of(outputs)
    names = ssd_names(shapes)
    if names is not None:
        count = any(name.startswith("num") for name in shapes if name not in names)
        tensorrt = count and "detection_boxes" not in names[0]
        return LayoutName.EFFICIENT_NMS if tensorrt else LayoutName.SSD
    flat = {
        name: shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
        for name, shape in shapes.items()
    }
    return LayoutName.DEEPSTREAM if len(flat) == 3 and ssd_names(flat) is not None else None


def _of_heads(outputs: Outputs, input_wh: tuple[int, int]) -> LayoutName | None:
    """Of raw heads: a pair of scores and distances for each stride."""
    ranks = {array.ndim for array in outputs.values()}
    half = len(outputs) // 2
    if ranks == {4} and sum(array.shape[1] == 4 for array in outputs.values()) >= half:
        return LayoutName.RTMDET
    if ranks == {3} and sum(a.shape[2] == DISTRIBUTION for a in outputs.values()) >= half:
        places = sum(array.shape[1] for array in outputs.values()) // 2
        coarse = places == num_places(input_wh, _PICODET_STRIDES)
        return LayoutName.PICODET if coarse else LayoutName.NANODET
    return None


def _is_nanodet(
    places: int, columns: int, input_wh: tuple[int, int], export: ExportMetadata
) -> bool:
    """Whether each place has its classes, COCO's where none are named, and four distributions."""
    if export.task is not None or places not in (
        num_places(input_wh, _PICODET_STRIDES),
        num_places(input_wh, STRIDES),
    ):
        return False
    return columns == DISTRIBUTION + (export.num_classes or _COCO_CLASSES) or (
        # one class: 33 numbers
        export.num_classes is None and columns == DISTRIBUTION + 1
    )


def _are_corners(rows: Float32, *, empty: bool) -> bool:
    """Whether rows (A, 6 or more) are x1, y1, x2, y2 in pixels, score, class.

    Args:
        rows: of one image.
        empty: the answer where all are zero.
    """
    used = rows[(rows[:, :4] != 0).any(axis=1)]
    if not len(used):
        return empty
    ordered = (used[:, 2] >= used[:, 0]) & (used[:, 3] >= used[:, 1])
    whole = rows[:, 5] == np.rint(rows[:, 5])
    return bool(whole.all() and ordered.all() and (used[:, :4] > 2).any())


def _is_decoded(rows: Float32, strides: tuple[int, ...], input_wh: tuple[int, int]) -> bool:
    """Whether centres lie near their cells in pixels, rather than near 0 in cells."""
    cells, steps = grid(input_wh, strides)
    in_pixels = np.median(np.abs(rows[:, :2] / steps - cells - 0.5))
    in_cells = np.median(np.abs(rows[:, :2] - 0.5))
    return bool(in_pixels < in_cells)


def _unknown(outputs: Outputs, input_wh: tuple[int, int]) -> ModelLayoutError:
    known = ", ".join(name for name in LayoutName if name is not LayoutName.AUTO)
    return ModelLayoutError(
        f"the outputs fit no known detector layout ({known}): saw "
        f"{describe_shapes(shapes_of(outputs))} for an input of {input_wh[0]}x{input_wh[1]}; "
        "if it is one of them, name it with detector.layout"
    )
