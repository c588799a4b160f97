"""How well a person detector finds people: average precision as COCO counts it.

Matching and interpolation follow the COCO protocol (Lin et al. 2014,
https://arxiv.org/abs/1405.0312, and https://cocodataset.org/#detection-eval): detections of all
pictures by falling score, each takes the free person it overlaps most, precision is made monotone
and read at 101 recalls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from storeguard.detection.detections import Detections
from storeguard.detection.layouts.yolo import decode_yolox
from storeguard.detection.nms import iou_matrix, nms
from storeguard.errors import DatasetError, ModelError
from storeguard.training.detector.data import PAD_VALUE, Boxes, LabelledImage

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
RECALL_POINTS = np.linspace(0, 1, 101)
MIN_SCORE = 0.005
MAX_IOU = 0.65
MAX_DETECTIONS = 100


@dataclass(frozen=True)
class PersonScores:
    """Average precision of one data set, 0..1.

    Attributes:
        ap50: at an overlap (IoU) of 0.5.
        ap50_95: mean over overlaps 0.50, 0.55, ... 0.95.
        recall50: part of the persons found at 0.5 by detections scored 0.3 or more.
        precision50: part of those detections that are persons; 0 where there are none.
        num_images: pictures scored.
        num_persons: persons in them.
    """

    ap50: float
    ap50_95: float
    recall50: float
    precision50: float
    num_images: int
    num_persons: int


def average_precision(
    found: Sequence[Detections], truth: Sequence[Boxes], *, min_iou: float
) -> float:
    """Average precision of detections in several pictures, 0..1.

    Args:
        found: each picture's detections.
        truth: each picture's persons, float32 (n, 4), xyxy in the same pixels.
        min_iou: least overlap of a hit.

    Raises:
        DatasetError: there is no person in any picture, so precision means nothing.
    """
    num_truth = sum(len(boxes) for boxes in truth)
    if num_truth == 0:
        raise DatasetError(f"expected persons in {len(truth)} pictures to score by, found none")
    scores, hits = _matches(found, truth, min_iou)
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(hits[order])
    if not len(true):
        return 0.0
    recall = true / num_truth
    precision = true / np.arange(1, len(true) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, RECALL_POINTS, side="left")
    reached = index < len(precision)
    return float(np.where(reached, precision[np.minimum(index, len(precision) - 1)], 0).mean())


def score_persons(found: Sequence[Detections], images: Sequence[LabelledImage]) -> PersonScores:
    """Score each picture's detections, in its own pixels, against its labels."""
    truth = [image.persons for image in images]
    by_iou = [average_precision(found, truth, min_iou=iou) for iou in IOU_THRESHOLDS]
    scores, hits = _matches(found, truth, IOU_THRESHOLDS[0])
    sure = scores >= 0.3
    num_truth = sum(len(boxes) for boxes in truth)
    return PersonScores(
        ap50=by_iou[0],
        ap50_95=float(np.mean(by_iou)),
        recall50=float(hits[sure].sum() / num_truth),
        precision50=float(hits[sure].mean()) if sure.any() else 0.0,
        num_images=len(images),
        num_persons=num_truth,
    )


def _matches(
    found: Sequence[Detections], truth: Sequence[Boxes], min_iou: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The scores of all detections, and which of them hit a person that was still free."""
    scores, hits = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
    for detections, persons in zip(found, truth, strict=True):
        order = np.argsort(-detections.score, kind="stable")[:MAX_DETECTIONS]
        overlap = iou_matrix(detections.xyxy[order], persons)
        hit = np.zeros(len(order), np.bool_)
        free = np.ones(len(persons), np.bool_)
        for row in range(len(order) if len(persons) else 0):
            candidates = np.where(free, overlap[row], -1.0)
            best = int(candidates.argmax())
            if candidates[best] >= min_iou:
                hit[row], free[best] = True, False
        scores.append(detections.score[order])
        hits.append(hit)
    return np.concatenate(scores), np.concatenate(hits)


def letterbox(
    picture: Image.Image, input_wh: tuple[int, int], *, centred: bool
) -> tuple[NDArray[np.uint8], float, tuple[int, int]]:
    """Scale a picture into the input and pad it with grey.

    Returns:
        uint8 (H, W, 3) RGB, the scale, and where the picture's corner lies (x, y).
    """
    scale = min(input_wh[0] / picture.width, input_wh[1] / picture.height)
    inner = (
        max(1, min(input_wh[0], round(picture.width * scale))),
        max(1, min(input_wh[1], round(picture.height * scale))),
    )
    offset = ((input_wh[0] - inner[0]) // 2, (input_wh[1] - inner[1]) // 2) if centred else (0, 0)
    canvas = np.full((input_wh[1], input_wh[0], 3), PAD_VALUE, np.uint8)
    pixels = np.asarray(picture.convert("RGB").resize(inner, Image.Resampling.BILINEAR))
    canvas[offset[1] : offset[1] + inner[1], offset[0] : offset[0] + inner[0]] = pixels
    return canvas, scale, offset


Forward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (N, H, W, 3) RGB to float32 (N, A, 6) in the layout of `export_detector`."""


def detect(
    forward: Forward, picture: Image.Image, input_wh: tuple[int, int], *, centred: bool = False
) -> Detections:
    """Detections of one picture, in its own pixels, after non-maximum suppression."""
    canvas, scale, offset = letterbox(picture, input_wh, centred=centred)
    (rows,) = decode_yolox({"output": forward(canvas[None])}, input_wh, MIN_SCORE)
    rows = rows[nms(rows.xyxy, rows.score, MAX_IOU)]
    boxes = (rows.xyxy - np.array(offset * 2, np.float32)) / scale
    limit = np.array([picture.width, picture.height] * 2, np.float32)
    return Detections.of(np.clip(boxes, 0, limit), rows.score, rows.class_id)


def evaluate(
    forward: Forward,
    images: Sequence[LabelledImage],
    *,
    input_wh: tuple[int, int],
    centred: bool = False,
) -> PersonScores:
    """Run a detector over labelled pictures and score it."""
    found = []
    for image in images:
        with Image.open(image.path) as picture:
            found.append(detect(forward, picture, input_wh, centred=centred))
    return score_persons(found, images)


def onnx_forward(path: Path, *, num_threads: int = 0) -> Forward:
    """Open an exported detector on the CPU.

    Args:
        path: the .onnx file.
        num_threads: of one operator; 0 leaves it to onnxruntime.

    Raises:
        ModelError: onnxruntime cannot open the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises many classes of its own
        raise ModelError(f"{path}: onnxruntime cannot open it: {error}") from error

    def forward(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        (output,) = session.run(None, {"images": images})
        return np.asarray(output)

    return forward
