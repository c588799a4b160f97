"""How the bundled clip classifier was made.

    python -m storeguard.training.clips.recipe DATA OUT

DATA is a folder with the list and the videos of the MNNIT Allahabad shoplifting set (labels.csv
with file, label and actor); they are not part of the project. All actors are trained on: how good
such a model is on people it never saw is what benchmarks/classifier.py measures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from storeguard.training.clips.heads import BackboneName, HeadName
from storeguard.training.clips.train import ClipTrainResult, ClipTrainSettings, train_classifier

NO_SHOPPER = "no_shopper"
"""The group of videos without a shopper: a shortcut to "normal", so not trained on."""


def bundled_settings(data: Path, out: Path) -> ClipTrainSettings:
    """The settings of the bundled classifier's run."""
    return ClipTrainSettings(
        data=data,
        out=out,
        backbone=BackboneName.EFFICIENTNET_LITE0_CLOSEUP,
        head=HeadName.TAP,
        passed_over_groups=(NO_SHOPPER,),
        dataset="MNNIT Allahabad shoplifting set, 71 videos with a shopper, 5 actors, one room",
    )


def train_bundled(data: Path, out: Path) -> ClipTrainResult:
    """Train it; everything is written under `out`."""
    return train_classifier(bundled_settings(data, out))


if __name__ == "__main__":
    made = train_bundled(Path(sys.argv[1]), Path(sys.argv[2]))
    print(made.model_dump_json(indent=2))  # noqa: T201
