"""What the person detector is taught: which cells answer for which person, and the loss.

Assignment is SimOTA as in the YOLOX paper (https://arxiv.org/abs/2107.08430, section 2.3): each
person takes the cells that already predict it best, as many as the best overlaps add up to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from storeguard.training.detector.data import Batch
from storeguard.training.detector.model import decode_boxes, grid_cells

CENTRE_RADIUS = 1.5  # cells around a person's centre that may answer for it
MAX_CELLS = 10  # most cells for one person
IOU_COST = 3.0
OUTSIDE_COST = 1e5
BOX_WEIGHT = 5.0
IGNORED_OVERLAP = 0.5  # fraction of a prediction inside an ignored box that silences its objectness


@dataclass(frozen=True)
class DetectorLoss:
    """The loss and its parts, scalars; `total` carries the gradient."""

    total: Tensor
    box: float
    objectness: float
    person: float
    num_cells: int


def detector_loss(raw: Tensor, batch: Batch) -> DetectorLoss:
    """Compare predictions with a batch's boxes.

    Args:
        raw: float32 (N, A, 6), the model's output for `batch.images`.
        batch: the pictures and boxes.

    Returns:
        `BOX_WEIGHT` * (1 - IoU^2) + objectness + person cross-entropy, each summed and divided by
        the number of answering cells.
    """
    corners, strides = grid_cells(*batch.images.shape[2:])
    boxes = to_xyxy(decode_boxes(raw, corners, strides))
    objectness_target = torch.zeros(raw.shape[:2])
    counted = torch.ones(raw.shape[:2])
    predicted, targets, person_logits, overlaps = [], [], [], []
    for i, persons in enumerate(batch.persons):
        cells, owners, iou = assign(
            boxes[i].detach(), raw[i, :, 4:].detach(), persons, corners, strides
        )
        objectness_target[i, cells] = 1.0
        if len(batch.ignored[i]):
            silent = contained_fraction(boxes[i].detach(), batch.ignored[i]) > IGNORED_OVERLAP
            counted[i, silent] = 0.0
            counted[i, cells] = 1.0
        predicted.append(boxes[i, cells])
        targets.append(persons[owners])
        person_logits.append(raw[i, cells, 5])
        overlaps.append(iou)
    num_cells = sum(len(rows) for rows in targets)
    scale = 1.0 / max(num_cells, 1)
    iou = paired_iou(torch.cat(predicted), torch.cat(targets))
    box = (1 - iou.square()).sum() * scale
    objectness = (
        binary_cross_entropy_with_logits(raw[..., 4], objectness_target, counted, reduction="sum")
        * scale
    )
    person = (
        binary_cross_entropy_with_logits(
            torch.cat(person_logits), torch.cat(overlaps), reduction="sum"
        )
        * scale
    )
    return DetectorLoss(
        total=BOX_WEIGHT * box + objectness + person,
        box=float(box.detach()),
        objectness=float(objectness.detach()),
        person=float(person.detach()),
        num_cells=num_cells,
    )


def retention_loss(raw: Tensor, start: Tensor) -> Tensor:
    """How far predictions strayed from the start model's, cell by cell; a scalar.

    Cross-entropy to its objectness everywhere, to its person probability where it saw an object,
    and the distance of boxes (in cells) where it saw a person; per object that it saw.

    Args:
        raw: float32 (N, A, 6), the model's output.
        start: float32 (N, A, 6), the start model's output for the same pictures, without gradient.
    """
    seen = start[..., 4:].sigmoid()
    score = seen.prod(-1)
    objectness = binary_cross_entropy_with_logits(raw[..., 4], seen[..., 0], reduction="sum")
    person = binary_cross_entropy_with_logits(
        raw[..., 5], seen[..., 1], seen[..., 0], reduction="sum"
    )
    boxes = ((raw[..., :4] - start[..., :4]).abs().clamp(max=4).sum(-1) * score).sum()
    # What remains at best is the start model's own entropy: it is left out, so that 0 is perfect.
    floor = (_entropy(seen[..., 0]) + seen[..., 0] * _entropy(seen[..., 1])).sum()
    return (objectness + person + boxes - floor) / score.sum().clamp(min=1.0)


def _entropy(probability: Tensor) -> Tensor:
    p = probability.clamp(1e-7, 1 - 1e-7)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def assign(
    boxes: Tensor, logits: Tensor, persons: Tensor, corners: Tensor, strides: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the cells that answer for each person of one picture.

    Args:
        boxes: (A, 4) predicted xyxy in pixels.
        logits: (A, 2) of objectness and person.
        persons: (n, 4) xyxy in pixels.
        corners: (A, 2), from `grid_cells`.
        strides: (A, 1), likewise.

    Returns:
        int64 (k,) cells, int64 (k,) the person each answers for, float32 (k,) their overlap (IoU).
    """
    none = torch.zeros(0, dtype=torch.int64)
    if not len(persons):
        return none, none, torch.zeros(0)
    centres = (corners + 0.5) * strides
    in_box = ((centres[None] > persons[:, None, :2]) & (centres[None] < persons[:, None, 2:])).all(
        -1
    )
    middles = (persons[:, :2] + persons[:, 2:]) / 2
    near = ((centres[None] - middles[:, None]).abs() < CENTRE_RADIUS * strides[None]).all(-1)
    candidates = (in_box | near).any(0).nonzero()[:, 0]
    if not len(candidates):
        return none, none, torch.zeros(0)

    iou = pairwise_iou(persons, boxes[candidates])
    score = (logits[candidates].sigmoid().prod(1)).sqrt().clamp(1e-6, 1 - 1e-6)
    cost = -score.log()[None] - IOU_COST * (iou + 1e-8).log()
    cost += OUTSIDE_COST * ~(in_box & near)[:, candidates]

    # Person i takes its k_i cheapest cells; a cell that several take is given to the cheapest.
    best = iou.topk(min(MAX_CELLS, len(candidates)), 1).values
    counts = best.sum(1).int().clamp(min=1)
    rank = cost.argsort(1).argsort(1)
    taken = rank < counts[:, None]
    contested = taken.sum(0) > 1
    if contested.any():
        winner = cost[:, contested].argmin(0)
        taken[:, contested] = False
        taken[winner, contested.nonzero()[:, 0]] = True
    owners, columns = taken.nonzero(as_tuple=True)
    return candidates[columns], owners, iou[owners, columns]


def to_xyxy(cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size to corners."""
    half = cxcywh[..., 2:] / 2
    return torch.cat([cxcywh[..., :2] - half, cxcywh[..., :2] + half], -1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m)."""
    shared = _shared_area(a[:, None], b[None])
    return shared / (_area(a)[:, None] + _area(b)[None] - shared + 1e-9)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of row i of `a` with row i of `b`: (n,)."""
    shared = _shared_area(a, b)
    return shared / (_area(a) + _area(b) - shared + 1e-9)


def contained_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """The largest fraction of each box (n, 4) that lies inside one of the regions (m, 4): (n,)."""
    shared = _shared_area(boxes[:, None], regions[None])
    return (shared / (_area(boxes)[:, None] + 1e-9)).max(1).values


def _shared_area(a: Tensor, b: Tensor) -> Tensor:
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return sides.clamp(min=0).prod(-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
