"""Values of options that several commands share."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from storeguard.errors import ConfigError


def moment(option: str, text: str) -> datetime:
    """An RFC 3339 time in UTC; one without an offset is UTC already.

    Args:
        option: named in the error.
        text: as typed.

    Raises:
        ConfigError: it is no time.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option}: expected a time such as 2026-01-31T09:30:00+09:00, found {text!r}"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def require_writable(option: str, path: Path | None) -> None:
    """Check that a file can be written, before the work whose result it will hold.

    Args:
        option: named in the error.
        path: the file; None is not checked.

    Raises:
        ConfigError: its folder is missing, or it cannot be written.
    """
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {path}: expected an existing folder, found none at {folder}")
    if path.is_dir():
        raise ConfigError(f"{option} {path}: expected a file, found a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{option} {path}: no permission to write it")
