"""The store that `storeguard demo` runs."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from storeguard.config.addresses import Address, resolve_source
from storeguard.config.loading import load_config, parse
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.errors import ConfigError

_CONFIG = Path(__file__).with_name("demo.yaml")
_WHOLE_PICTURE = {
    "id": "picture",
    "polygon": [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
    "rules": [{"type": "intrusion", "anchor": "hit_ratio"}, {"type": "loitering"}],
}


def demo_config(source: str | None) -> StoreConfig:
    """The demo's store, or a store with one camera for a source of the user's own.

    Args:
        source: a file, folder, device or address; None takes the demo's own cameras.

    Raises:
        ConfigError: the source is no address, or the demo's videos are not installed.
    """
    config = load_config(_CONFIG)
    if source is not None:
        return config.model_copy(update={"cameras": (_camera_of(source),)})
    for camera in config.cameras:
        try:
            resolve_source(camera.source)
        except ConfigError as error:
            raise ConfigError(
                f"camera {camera.id!r}: {error}; install storeguard[demo], or give a video with "
                "--source"
            ) from None
    return config


def _camera_of(source: str) -> CameraConfig:
    address = Address.parse(source)
    document = {
        "id": _name_of(address),
        "source": source,
        "loop": address.is_path and not address.opens.startswith("/dev/"),
        "recording": {"max_duration_s": 20},
        "zones": [_WHOLE_PICTURE],
    }
    return parse(CameraConfig, document, where="--source")


def _name_of(address: Address) -> str:
    """`aisle` for /videos/aisle.mp4, and `10.0.0.7` for rtsp://user:secret@10.0.0.7:554/s."""
    if address.is_path:
        path = Path(address.opens)
        name = path.stem or path.absolute().name
    else:
        name = urlsplit(address.opens).hostname or address.scheme
    return re.sub(r"[^\w.-]+|^[\W_]+", "-", name).strip("-_.")[:63] or "camera"
