"""How the bundled person detector was made.

    python -m storeguard.training.detector_recipe DATA OUT

DATA is the development data's folder (`detection/`, `videos/`, `weights/`); it is not part of the
project. Only films with a licence that allows it are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

from storeguard.training.detector_data import DetectorSource
from storeguard.training.detector_distill import IGNORE_CLASS, DistillSettings, label_films
from storeguard.training.detector_evaluate import onnx_forward
from storeguard.training.detector_export import export_detector
from storeguard.training.detector_model import PersonDetector, load_weights
from storeguard.training.detector_splits import cctv_validation_names, coco_validation_names
from storeguard.training.detector_train import (
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


def bundled_settings(data: Path, *, films: Path, start: Path, out: Path) -> DetectorTrainSettings:
    """Return the settings of the bundled detector.

    Args:
        data: the development data's folder.
        films: the labelled film frames, from `label_films`.
        start: the published yolox_nano.onnx.
        out: where to write.
    """
    cctv, coco = data / "detection" / "cctv_rooms", data / "detection" / "coco_people"
    return DetectorTrainSettings(
        sources=(
            DetectorSource(path=cctv, share=0.5, val_names=cctv_validation_names(cctv)),
            DetectorSource(
                path=coco, share=0.3, retain=True, val_names=coco_validation_names(coco)
            ),
            DetectorSource(
                path=films, share=0.2, retain=True, ignore_class=IGNORE_CLASS, val_names=()
            ),
        ),
        out=out,
        start=start,
        num_steps=550,
        learning_rate=4e-4,
        num_threads=2,
        trained_from="YOLOX-nano (Megvii, Apache-2.0), COCO train2017",
        dataset="Roboflow 'cctv' (CC BY 4.0), 85 pictures of COCO train2017, own labels on 4 films",
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
    return train_detector(
        bundled_settings(data, films=films, start=published, out=out / "detector")
    )


if __name__ == "__main__":
    made = train_bundled(Path(sys.argv[1]), Path(sys.argv[2]))
    print(made.model_dump_json(indent=2, exclude={"losses"}))  # noqa: T201
