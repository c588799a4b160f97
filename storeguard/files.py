"""Files that are replaced whole: a reader, and a machine after a crash, sees the old or the new."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TEMPORARY_PREFIX: Final = ".part-"
"""Begins the names of unfinished files; what a killed process left behind may be removed."""


def write_atomically(
    path: Path, data: bytes | str, *, mode: int = 0o644, sync: bool = True
) -> None:
    """Write a file whole or not at all.

    Args:
        path: the file; its folder must exist.
        data: the content; text is written as UTF-8.
        mode: permissions of the file, less the process's umask.
        sync: have the file and its name on disk when this returns. Without it a crash of the
            machine may bring back the old file, or lose the new one's content.

    Raises:
        OSError: it could not be written; `path` is as it was before.
    """
    content = data.encode() if isinstance(data, str) else data
    with replacing(path, mode=mode, sync=sync) as part:
        part.write_bytes(content)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, sync: bool = True) -> Iterator[Path]:
    """The path of an empty file in the same folder, which replaces `path` at the block's end.

    Its name ends like that of `path`, for writers that choose a format by suffix. If the block
    raises, the new file is removed and `path` is as it was before.

    Args:
        path: the file to replace; its folder must exist.
        mode, sync: as in `write_atomically`.

    Raises:
        OSError: it could not be written.
    """
    part = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield part
        if sync:
            _fsync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on disk when this returns.

    Raises:
        OSError: it could not be written.
    """
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
