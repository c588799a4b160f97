"""Clips that a browser cannot play, converted to H.264 on request and kept for a while."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from serve.api.protocols import Objects
from storeguard.errors import OverloadedError
from storeguard.recording.browser_copy import write_browser_copy
from storeguard.video.codec_names import web_codec

_SUFFIX: Final = ".mp4"
_KNOWN_CODECS: Final = 1024


@dataclass(frozen=True, slots=True)
class ConversionLimits:
    """What converted clips may take.

    Attributes:
        max_bytes: of all converted clips on disk; the least recently requested are deleted.
        max_files: of these.
        max_age_s: a converted clip is deleted this long after its last request, so that it does
            not outlive by much an original that retention deletes.
        max_waiting: conversions that run or wait; one more is refused.
    """

    max_bytes: int = 2 << 30
    max_files: int = 200
    max_age_s: float = 24 * 3600.0
    max_waiting: int = 8


class ConvertedClips:
    """Converts clips one after the other; a clip that is requested twice is converted once.

    Args:
        folder: where converted clips are; nothing else may be in it.
        objects: where the originals are.
        limits: what they may take.
    """

    def __init__(
        self, folder: Path, objects: Objects, *, limits: ConversionLimits | None = None
    ) -> None:
        self._folder = folder
        self._objects = objects
        self._limits = limits or ConversionLimits()
        self._running: dict[Path, asyncio.Task[None]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="conversion")
        self._codecs: dict[str, str | None] = {}
        self.num_converted = 0
        """Conversions that were finished."""

    async def file_of(self, uri: str, sha256: str | None) -> Path:
        """The H.264 copy of a clip, made if there is none.

        Args:
            uri: of the clip.
            sha256: its checksum; None where it is unknown.

        Raises:
            NotFoundError: there is no such clip.
            StorageError: it cannot be read.
            RecordingError: it cannot be converted.
            OverloadedError: too many conversions wait.
        """
        # Retention deletes originals only: without one there is no clip, whatever was kept here.
        await asyncio.to_thread(self._objects.size, uri)
        key = hashlib.sha256(f"{uri}\n{sha256}".encode()).hexdigest()[:40]
        path = self._folder / f"{key}{_SUFFIX}"
        if path not in self._running and await asyncio.to_thread(_touched, path):
            return path
        task = self._running.get(path)
        if task is None:
            if len(self._running) >= self._limits.max_waiting:
                raise OverloadedError(
                    f"{len(self._running)} clips are being converted already; try again later"
                )
            task = asyncio.create_task(self._convert(uri, path))
            self._running[path] = task
            task.add_done_callback(lambda _: self._running.pop(path, None))
        await asyncio.shield(task)  # a client that leaves does not waste what is done
        return path

    async def codec_of(self, uri: str) -> str | None:
        """A clip's video codec as browsers name it, such as `hvc1.1.6.L93.B0`.

        Returns:
            None where the file has no video that is known to browsers by a name, or is unreadable.
        """
        if uri not in self._codecs:
            codec = await asyncio.to_thread(self._probe, uri)
            while len(self._codecs) >= _KNOWN_CODECS:
                self._codecs.pop(next(iter(self._codecs)))
            self._codecs[uri] = codec
        return self._codecs[uri]

    def _probe(self, uri: str) -> str | None:
        with contextlib.closing(self._objects.open(uri)) as reader:
            return web_codec(cast("IO[bytes]", reader))

    async def _convert(self, uri: str, path: Path) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._write, uri, path)
        self.num_converted += 1

    def _write(self, uri: str, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Several processes may share the folder: what is not finished has a name of its own.
        unfinished = path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex}.part")
        try:
            with contextlib.closing(self._objects.open(uri)) as reader:
                write_browser_copy(reader, unfinished, name=uri)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        self.prune(keep=path)

    def prune(self, *, keep: Path | None = None) -> None:
        """Delete what is over the limits, least recently requested first.

        Args:
            keep: a file that is not deleted.
        """
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    found.append((stat.st_mtime, stat.st_size, path))
        oldest = time.time() - self._limits.max_age_s
        num_files, num_bytes = 0, 0
        for modified, size, path in sorted(found, reverse=True):
            finished = path.suffix == _SUFFIX
            num_files += finished
            num_bytes += size if finished else 0
            over = num_files > self._limits.max_files or num_bytes > self._limits.max_bytes
            if path != keep and (modified < oldest or (finished and over)):
                path.unlink(missing_ok=True)
                num_files -= finished
                num_bytes -= size if finished else 0


def _touched(path: Path) -> bool:
    """Whether the file is there; marks it as requested now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
