"""How models of each layout are fed, and how their outputs are decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from storeguard.config.models import Channels, LayoutName, Pixels
from storeguard.detection.export import ExportMetadata
from storeguard.detection.layouts.detr import decode_detr
from storeguard.detection.layouts.distances import (
    decode_detectnet_v2,
    decode_nanodet,
    decode_ppyoloe,
    decode_rtmdet,
)
from storeguard.detection.layouts.outputs import Decoder, Outputs
from storeguard.detection.layouts.selected import (
    decode_deepstream,
    decode_mmdet,
    decode_rows,
    decode_ssd,
)
from storeguard.detection.layouts.yolo import (
    decode_objectness,
    decode_yolov8,
    decode_yolox,
    main_output,
    yolov8_classes,
)
from storeguard.detection.recognition import is_places_first
from storeguard.errors import ModelLayoutError

_COCO_IDS = 91


@dataclass(frozen=True, slots=True)
class Feeding:
    """How models of one layout are usually fed, and which class is a person.

    Attributes:
        pixels, channels: of the input.
        person_class: index of the class person.
        centred: padding on both sides, or right and below only.
        needs_nms: whether one person may get several boxes.
    """

    pixels: Pixels
    channels: Channels
    person_class: int = 0
    centred: bool = True
    needs_nms: bool = True


_YOLO = Feeding(Pixels.UNIT, Channels.RGB)
_YOLOX = Feeding(Pixels.BYTES, Channels.BGR, centred=False)
_OPENMMLAB = Feeding(Pixels.IMAGENET, Channels.BGR, centred=False)
_FEEDING: Mapping[LayoutName, Feeding] = {
    LayoutName.YOLOX: _YOLOX,
    LayoutName.YOLOX_DECODED: _YOLOX,
    LayoutName.YOLOV5: _YOLO,
    LayoutName.YOLOV8: _YOLO,
    LayoutName.END2END: replace(_YOLO, needs_nms=False),
    LayoutName.DEEPSTREAM: _YOLO,
    LayoutName.EFFICIENT_NMS: replace(_YOLO, needs_nms=False),
    LayoutName.DETR: replace(_YOLO, needs_nms=False),
    LayoutName.DETECTNET_V2: _YOLO,
    LayoutName.SSD: replace(_YOLO, person_class=1, needs_nms=False),
    LayoutName.MMDET: replace(_OPENMMLAB, needs_nms=False),
    LayoutName.RTMDET: _OPENMMLAB,
    LayoutName.PPYOLOE: _YOLO,
    LayoutName.PICODET: Feeding(Pixels.IMAGENET, Channels.RGB),
    LayoutName.NANODET: Feeding(Pixels.IMAGENET, Channels.BGR),
}
_DECODERS: Mapping[LayoutName, Decoder] = {
    LayoutName.YOLOX: decode_yolox,
    LayoutName.END2END: decode_rows,
    LayoutName.DEEPSTREAM: decode_deepstream,
    LayoutName.EFFICIENT_NMS: decode_ssd,
    LayoutName.DETR: decode_detr,
    LayoutName.DETECTNET_V2: decode_detectnet_v2,
    LayoutName.SSD: decode_ssd,
    LayoutName.MMDET: decode_mmdet,
    LayoutName.RTMDET: decode_rtmdet,
    LayoutName.PPYOLOE: decode_ppyoloe,
    LayoutName.PICODET: decode_ppyoloe,
    LayoutName.NANODET: decode_nanodet,
}


def feeding_of(layout: LayoutName, outputs: Outputs) -> Feeding:
    """How models like this are fed. 91 classes are COCO's own ids, where a person is 1: RF-DETR."""
    feeding = _FEEDING[layout]
    if layout is LayoutName.DETR and any(
        array.shape[-1] == _COCO_IDS for array in outputs.values()
    ):
        return replace(feeding, pixels=Pixels.IMAGENET, person_class=1)
    return feeding


def decoder_of(
    layout: LayoutName, outputs: Outputs, input_wh: tuple[int, int], export: ExportMetadata
) -> Decoder:
    """The decoder of a model's outputs.

    Args:
        layout: from the settings or `recognise`; not `auto`.
        outputs: as seen on a batch of one.
        input_wh: width and height of the model's input, pixels.
        export: what the model's exporter noted.

    Raises:
        ModelLayoutError: the outputs do not fit the layout or the exporter's notes.
    """
    match layout:
        case LayoutName.YOLOV8:
            places_first = is_places_first(main_output(outputs), input_wh)
            return partial(
                decode_yolov8,
                num_classes=yolov8_classes(outputs, export, places_first=places_first),
                rotated=export.task == "obb",
                places_first=places_first,
            )
        case LayoutName.YOLOV5 | LayoutName.YOLOX_DECODED:
            columns = main_output(outputs).shape[2]
            masks = sum(array.shape[1] for array in outputs.values() if array.ndim == 4)
            num_classes = columns - 5 - masks
            if export.num_classes not in (None, num_classes):
                raise ModelLayoutError(
                    f"its metadata names {export.num_classes} classes: expected "
                    f"{5 + (export.num_classes or 0) + masks} numbers a box, got {columns}"
                )
            return partial(decode_objectness, num_classes=num_classes)
        case LayoutName.END2END if export.task == "obb":
            raise ModelLayoutError(
                "rotated boxes (task obb) are read before their selection only: export the model "
                "without NMS or end-to-end head"
            )
        case _:
            return _DECODERS[layout]
