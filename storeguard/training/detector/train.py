"""Fine-tunes the person detector: settings, data, model, optimiser, loop, export.

Read it from top to bottom. Everything random derives from one seed; the settings that made a model
are written next to it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from storeguard.errors import TrainingDivergedError
from storeguard.files import write_atomically
from storeguard.training.detector.data import (
    PAD_VALUE,
    Augmentation,
    Batch,
    BatchMaker,
    DetectorSource,
    LabelledImage,
)
from storeguard.training.detector.evaluate import PersonScores, evaluate, onnx_forward
from storeguard.training.detector.export import export_detector
from storeguard.training.detector.loss import detector_loss, retention_loss
from storeguard.training.detector.model import PersonDetector, load_weights

BUNDLED_DETECTOR = Path(__file__).parents[2] / "models" / "person_yolox_nano.onnx"
MODEL_FILE = "person_detector.onnx"
CHECKPOINT_FILE = "checkpoint.onnx"
SETTINGS_FILE = "settings.json"
RESULT_FILE = "result.json"


class DetectorTrainSettings(BaseModel):
    """Everything that decides a training run.

    Attributes:
        sources: the data sets.
        out: folder for the model, the settings and the scores; made if it is not there.
        start: .onnx to start from: one that was trained here, or a published yolox_nano.onnx;
            None starts from random weights.
        num_steps: batches to train with.
        batch_size: pictures in a batch.
        sizes_px: sides of the square training canvas, multiples of 32, chosen again for each batch.
        learning_rate: the highest; it rises for `warmup_steps`, then falls along a cosine to 2 %.
        warmup_steps: batches over which it rises.
        weight_decay: AdamW's, on weights but not biases.
        ema_decay: of the running mean of weights that is exported.
        max_gradient_norm: longer gradients are shortened to this.
        retain_weight: of the loss that holds on to the start model's answers, on sources with
            `retain`.
        retain_from: .onnx whose answers those are; None means `start`.
        start_blend: part of the start weights in the exported model (Wortsman et al. 2021,
            https://arxiv.org/abs/2109.01903): trades the new scenes against everyday pictures.
        freeze_early: leave the first two stages as they are: faster, and safe for small data sets.
        augmentation: how pictures are varied.
        eval_sizes_px: input sides to score the validation pictures with.
        eval_every: steps between scorings, each of which also leaves `checkpoint.onnx`, from which
            another run can start; None scores at the end only.
        num_threads: for torch; None leaves it to torch.
        seed: of all choices.
        trained_from: noted in the model's metadata: where the start weights came from.
        dataset: noted in the model's metadata: the data's names.
        score_threshold: noted in the model's metadata: the score to take a box for a person from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[DetectorSource, ...] = Field(min_length=1)
    out: Path
    start: Path | None = BUNDLED_DETECTOR
    num_steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=16, ge=1)
    sizes_px: tuple[int, ...] = (256, 288, 320, 352, 384, 416, 448)
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    max_gradient_norm: float = Field(default=10.0, gt=0)
    retain_weight: float = Field(default=1.0, ge=0)
    retain_from: Path | None = None
    start_blend: float = Field(default=0.0, ge=0, lt=1)
    freeze_early: bool = True
    augmentation: Augmentation = Augmentation()
    eval_sizes_px: tuple[int, ...] = (320, 416)
    eval_every: int | None = Field(default=None, ge=1)
    num_threads: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    trained_from: str = "a YOLOX-nano person detector"
    dataset: str = ""
    score_threshold: float = Field(default=0.3, gt=0, lt=1)

    @model_validator(mode="after")
    def _blend_needs_start(self) -> Self:
        if self.start_blend and self.start is None:
            raise ValueError(
                "start_blend: expected 0 where start is null, there is nothing to blend"
            )
        return self

    @field_validator("sizes_px", "eval_sizes_px")
    @classmethod
    def _multiples_of_32(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or any(size <= 0 or size % 32 for size in sizes):
            raise ValueError(f"expected positive multiples of 32, got {sizes}")
        return sizes


class ScoredSource(BaseModel):
    """A data set's validation score at one input side; see `PersonScores`."""

    model_config = ConfigDict(frozen=True)

    path: Path
    input_px: int
    ap50: float
    ap50_95: float
    recall50: float
    precision50: float
    num_images: int
    num_persons: int


class DetectorTrainResult(BaseModel):
    """What a run made.

    Attributes:
        model: the exported .onnx.
        sha256: of that file, hexadecimal.
        losses: of every step.
        scores: of the validation pictures, per source and input side; empty where there are none.
    """

    model_config = ConfigDict(frozen=True)

    model: Path
    sha256: str
    losses: tuple[float, ...]
    scores: tuple[ScoredSource, ...]


@dataclass(frozen=True)
class _Split:
    source: DetectorSource
    train: list[LabelledImage]
    val: list[LabelledImage]


def train_detector(
    settings: DetectorTrainSettings, *, progress: bool = True
) -> DetectorTrainResult:
    """Fine-tune the person detector and write it to `settings.out`.

    Writes `person_detector.onnx`, `settings.json` and `result.json`, each whole or not at all, and
    only once training has ended well; `checkpoint.onnx` before that where `eval_every` is set.

    Args:
        settings: everything that decides the run.
        progress: show a progress bar on the terminal.

    Raises:
        DatasetError: a data set is empty, lacks labels or has wrong ones.
        WeightsError: the start file is no YOLOX-nano person detector.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    # Data
    splits = [_Split(source, *source.split()) for source in settings.sources]
    maker = BatchMaker(
        [(split.source, split.train) for split in splits],
        augmentation=settings.augmentation,
        batch_size=settings.batch_size,
        sizes_px=settings.sizes_px,
        seed=settings.seed,
    )

    # Model
    torch.manual_seed(settings.seed)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    model = PersonDetector()
    if settings.start is not None:
        load_weights(model, settings.start)
    if settings.freeze_early:
        model.freeze_early()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = copy.deepcopy(model).requires_grad_(requires_grad=False)
    average = copy.deepcopy(start)
    teacher = _teacher(start, settings)

    # Optimiser
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )

    # Loop
    losses: list[float] = []
    with _bar(shown=progress) as bar:
        task = bar.add_task("training", total=settings.num_steps, loss=math.nan)
        for step, batch in enumerate(_prefetched(maker, settings.num_steps)):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(step, settings)
            images = batch.images.float().contiguous(memory_format=torch.channels_last)
            raw = model(images)
            loss = detector_loss(raw, batch).total
            if teacher is not None and batch.retain.any():
                loss += settings.retain_weight * retention_loss(
                    raw[batch.retain], teacher(images[batch.retain])
                )
            losses.append(float(loss.detach()))
            _check_finite(losses, settings)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(trained, settings.max_gradient_norm)
            optimiser.step()
            _follow(average, model, step, settings.ema_decay)
            bar.update(task, advance=1, loss=sum(losses[-20:]) / len(losses[-20:]))
            if settings.eval_every and (step + 1) % settings.eval_every == 0:
                settings.out.mkdir(parents=True, exist_ok=True)
                export_detector(average, settings.out / CHECKPOINT_FILE)
                for score in _score(average, splits, settings):
                    bar.console.print(
                        f"step {step + 1} loss {sum(losses[-50:]) / len(losses[-50:]):.3f} "
                        f"{score.path.name}@{score.input_px} AP50 {score.ap50:.4f}"
                    )

    # Export
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / MODEL_FILE
    _blend(average, start, settings.start_blend)
    scores = _score(average, splits, settings)
    export_detector(average, path, metadata=_metadata(settings))
    result = DetectorTrainResult(
        model=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        losses=tuple(losses),
        scores=tuple(scores),
    )
    write_atomically(settings.out / SETTINGS_FILE, settings.model_dump_json(indent=2))
    write_atomically(settings.out / RESULT_FILE, result.model_dump_json(indent=2))
    return result


def rate_factor(step: int, settings: DetectorTrainSettings) -> float:
    """Return a step's learning rate relative to the highest: a ramp, then a cosine to 0.02."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    rest = max(settings.num_steps - settings.warmup_steps, 1)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step - settings.warmup_steps) / rest)) / 2


def _teacher(start: PersonDetector, settings: DetectorTrainSettings) -> PersonDetector | None:
    """The model whose outputs are kept; None where there is none, or no data set requests it."""
    if settings.retain_weight == 0 or not any(source.retain for source in settings.sources):
        return None
    if settings.retain_from is None:
        return start if settings.start is not None else None
    teacher = copy.deepcopy(start)
    load_weights(teacher, settings.retain_from)
    return teacher


def _check_finite(losses: list[float], settings: DetectorTrainSettings) -> None:
    if not math.isfinite(losses[-1]):
        raise TrainingDivergedError(
            f"step {len(losses) - 1}: loss is {losses[-1]} (expected a finite number); last losses "
            f"{[round(loss, 3) for loss in losses[-6:-1]]}; try a lower learning rate than "
            f"{settings.learning_rate:g}"
        )


@torch.no_grad()
def _follow(average: PersonDetector, model: PersonDetector, step: int, decay: float) -> None:
    """Move the running mean towards the model; faster at first, so that a short run counts."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, weight)


@torch.no_grad()
def _blend(model: PersonDetector, start: PersonDetector, part: float) -> None:
    """Move the weights of `model` towards `start` by `part` of the way."""
    for mine, its in zip(model.parameters(), start.parameters(), strict=True):
        mine.lerp_(its, part)


def _prefetched(maker: BatchMaker, num_steps: int) -> Iterator[Batch]:
    """Make the next two batches in a thread while one is trained with."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque()
        steps = iter(range(num_steps))
        for step in itertools.islice(steps, 2):
            waiting.append(pool.submit(maker.batch, step))
        try:
            while waiting:
                batch = waiting.popleft().result()
                for step in itertools.islice(steps, 1):
                    waiting.append(pool.submit(maker.batch, step))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _score(
    model: PersonDetector, splits: list[_Split], settings: DetectorTrainSettings
) -> list[ScoredSource]:
    """Score the model as users will run it: exported, through onnxruntime."""
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        export_detector(model, path)
        forward = onnx_forward(path, num_threads=settings.num_threads or 0)
        for split in splits:
            if not any(len(image.persons) for image in split.val):
                continue
            for side in settings.eval_sizes_px:
                found: PersonScores = evaluate(forward, split.val, input_wh=(side, side))
                scores.append(ScoredSource(path=split.source.path, input_px=side, **vars(found)))
    return scores


def _metadata(settings: DetectorTrainSettings) -> dict[str, str]:
    names = settings.dataset or ", ".join(source.path.name for source in settings.sources)
    return {
        "layout": "yolox",
        "classes": "person",
        "input": "uint8 NHWC RGB 0..255, H and W multiples of 32",
        "input_sizes": ",".join(map(str, settings.eval_sizes_px)),
        "resize": "letterbox",
        "pad": "topleft",
        "pad_value": str(PAD_VALUE),
        "score_threshold": f"{settings.score_threshold:g}",
        "trained_from": settings.trained_from,
        "dataset": names,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _bar(*, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        disable=not shown,
    )
