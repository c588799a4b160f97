"""The folder in which engines are kept: finding a fresh one, keeping a new one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from storeguard.config.models import EngineSettings, Precision
from storeguard.errors import ModelError, StorageError
from storeguard.files import write_atomically
from storeguard.inference.engine_file import EngineCard, EngineKey, card_path, read_card


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which engine of a model is requested.

    Attributes:
        settings: where engines are kept, and whether `auto` may build one.
        precision: None takes fp16 with TensorRT, and the model as it is elsewhere.
        max_batch: the greatest batch that it takes.
        size_wh: width and height in pixels of its input, where the model leaves them open.
    """

    settings: EngineSettings = field(default_factory=EngineSettings)
    precision: Precision | None = None
    max_batch: int = 8
    size_wh: tuple[int, int] = (320, 320)

    @property
    def folder(self) -> Path:
        """Where engines are kept."""
        return Path(self.settings.dir).expanduser()


def fresh_engine(folder: Path, key: EngineKey) -> Path | None:
    """The engine for this key, or None if there is none or what is there is stale or damaged."""
    path = key.path(folder)
    if not path.is_file():
        return None
    try:
        return path if read_card(path).key == key else None
    except ModelError:
        return None


def keep_engine(folder: Path, engine: bytes, card: EngineCard) -> Path:
    """Write an engine and its sidecar, and remove those that it replaces.

    The sidecar is written last: an engine without one is never used.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = card.key.path(folder)
    card_path(path).unlink(missing_ok=True)
    write_whole(path, engine)
    write_whole(card_path(path), card.model_dump_json(indent=2).encode())
    _drop_superseded(folder, card.key)
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that others see the old one or the whole new one.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error


def _drop_superseded(folder: Path, key: EngineKey) -> None:
    """Remove engines that differ from this one in the library's version alone."""
    for sidecar in folder.glob(f"{key.model_sha256[:12]}-{key.precision}-*.json"):
        engine = sidecar.with_suffix("")
        try:
            old = EngineCard.model_validate_json(sidecar.read_bytes()).key
        except (OSError, ValidationError):
            continue
        same_version = old.target.model_copy(update={"version": key.target.version})
        if old != key and old.model_copy(update={"target": same_version}) == key:
            sidecar.unlink(missing_ok=True)
            engine.unlink(missing_ok=True)
