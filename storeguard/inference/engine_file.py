"""Engine files: what each was built from, what it runs on, and its sidecar.

An engine is a model compiled for one GPU (TensorRT), or converted to one precision for a backend
that compiles while it loads (an ONNX file). Its sidecar, `<engine>.json`, lies in the same folder.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storeguard.config.models import Precision
from storeguard.errors import ModelError
from storeguard.inference.backend import sha256_of

ENGINE_ENDINGS = frozenset({".engine", ".plan"})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineTarget(_Record):
    """The library and device that an engine runs with, and with no other.

    Attributes:
        library: tensorrt, tensorrt_rtx, or onnx for a converted model.
        version: the library's.
        device: the GPU's name; "any" where the compute capability or nothing decides.
        compute_capability: the GPU's, such as "8.9"; "any" without a GPU.
    """

    library: str
    version: str
    device: str
    compute_capability: str


class InputProfile(_Record):
    """The shapes an engine takes: least, most usual and greatest. The first number is the batch."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    greatest: tuple[int, ...]


class EngineKey(_Record):
    """Everything that decides whether an engine may be used; any difference makes it stale."""

    model_sha256: str
    target: EngineTarget
    precision: Precision
    profile: InputProfile

    def path(self, folder: Path) -> Path:
        """The engine's file in a folder of engines."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
        ending = ".onnx" if self.target.library == "onnx" else ".engine"
        return folder / f"{self.model_sha256[:12]}-{self.precision}-{digest}{ending}"


class Calibration(_Record):
    """What an INT8 engine was calibrated on."""

    method: str
    num_pictures: int = Field(ge=1)


class EngineCard(_Record):
    """An engine's sidecar.

    Attributes:
        key: which model, target, precision and shapes it is for.
        engine_sha256: hash of the engine file, hex.
        model: the model file's name.
        metadata: the ONNX model's own, which engines do not carry.
        build_s: seconds that the build took.
        calibration: None unless it is INT8.
    """

    key: EngineKey
    engine_sha256: str
    model: str
    metadata: dict[str, str]
    built_at: datetime
    build_s: float
    calibration: Calibration | None = None


def card_path(engine: Path) -> Path:
    """An engine's sidecar."""
    return engine.with_name(engine.name + ".json")


def read_card(engine: Path) -> EngineCard:
    """The sidecar of an engine, checked against the engine file.

    Raises:
        ModelError: the sidecar is missing, cannot be read, or belongs to another file.
    """
    path = card_path(engine)
    try:
        card = EngineCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{engine}: an engine needs its sidecar {path.name} in the same folder: "
            f"{error.strerror}; build it with `storeguard engine build`"
        ) from None
    except ValidationError as error:
        raise ModelError(f"{path}: not an engine's sidecar: {error}") from None
    try:
        found = sha256_of(engine)
    except OSError as error:
        raise ModelError(f"{engine}: cannot be read: {error.strerror}") from None
    if found != card.engine_sha256:
        raise ModelError(
            f"{engine}: its sidecar names sha256 {card.engine_sha256}, the file has {found}: "
            "build it again"
        )
    return card
