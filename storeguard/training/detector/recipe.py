"""How the bundled person detector was made.

    python -m storeguard.training.detector.recipe DATA OUT

DATA is the development data's folder (`detection/`, `videos/`, `weights/`); it is not part of the
project. Only films with a licence that allows it are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

from storeguard.training.detector.data import DetectorSource
from storeguard.training.detector.distill import IGNORE_CLASS, DistillSettings, label_films
from storeguard.training.detector.evaluate import onnx_forward
from storeguard.training.detector.export import export_detector
from storeguard.training.detector.model import PersonDetector, load_weights
from storeguard.training.detector.splits import cctv_validation_names, coco_validation_names
from storeguard.training.detector.train import (
    MODEL_FILE,
    DetectorTrainResult,
    DetectorTrainSettings,
    train_detector,
)

FILMS = (
    "one_by_one_table.mp4",
    "grocery_checkout_hevc.mp4",
    "store_aisle.mp4",
    "worker_zone.mp4",
)


def bundled_settings(
    data: Path, *, films: Path, published: Path, out: Path
) -> tuple[DetectorTrainSettings, DetectorTrainSettings]:
    """Return the settings of the bundled detector's two runs.

    The second starts from the first, at a lower rate, with larger pictures and a firmer hold on
    everyday ones.

    Args:
        data: the development data's folder.
        films: the labelled film frames, from `label_films`.
        published: the published yolox_nano.onnx.
        out: where to write; the second run's model is the result.
    """
    first = DetectorTrainSettings(
        sources=_sources(data, films, shares=(0.55, 0.27, 0.18)),
        out=out / "first",
        start=published,
        num_steps=450,
        batch_size=12,
        sizes_px=(256, 288, 320, 352, 384, 416),
        learning_rate=5e-4,
        retain_weight=0.7,
        num_threads=2,
    )
    second = DetectorTrainSettings(
        sources=_sources(data, films, shares=(0.5, 0.3, 0.2)),
        out=out / "second",
        start=first.out / MODEL_FILE,
        retain_from=published,
        num_steps=220,
        learning_rate=3e-4,
        num_threads=2,
        trained_from="YOLOX-nano (Megvii, Apache-2.0), COCO train2017",
        dataset="Roboflow 'cctv' (CC BY 4.0), 85 pictures of COCO train2017, own labels on 4 films",
    )
    return first, second


def _sources(
    data: Path, films: Path, *, shares: tuple[float, float, float]
) -> tuple[DetectorSource, ...]:
    cctv, coco = data / "detection" / "cctv_rooms", data / "detection" / "coco_people"
    return (
        DetectorSource(path=cctv, share=shares[0], val_names=cctv_validation_names(cctv)),
        DetectorSource(
            path=coco, share=shares[1], retain=True, val_names=coco_validation_names(coco)
        ),
        DetectorSource(
            path=films, share=shares[2], retain=True, ignore_class=IGNORE_CLASS, val_names=()
        ),
    )


def train_bundled(data: Path, out: Path) -> DetectorTrainResult:
    """Label the films, then train the bundled detector; everything is written under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    published = data / "weights" / "yolox_nano.onnx"
    teacher, films = out / "teacher.onnx", out / "films"
    model = PersonDetector()
    load_weights(model, published)
    export_detector(model, teacher)
    if not films.exists():
        label_films(
            onnx_forward(teacher),
            [data / "videos" / name for name in FILMS],
            films,
            DistillSettings(),
        )
    first, second = bundled_settings(data, films=films, published=published, out=out)
    train_detector(first)
    return train_detector(second)


if __name__ == "__main__":
    made = train_bundled(Path(sys.argv[1]), Path(sys.argv[2]))
    print(made.model_dump_json(indent=2, exclude={"losses"}))  # noqa: T201
