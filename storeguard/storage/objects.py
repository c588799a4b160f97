"""Object storage for clips and snapshots: a local folder, S3 or Google Cloud Storage, by URI."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from pyarrow import fs
from pyarrow.lib import ArrowException

from storeguard.backoff import Backoff, BackoffSettings
from storeguard.clock import Clock, SystemClock
from storeguard.config.addresses import redact
from storeguard.config.store import StoreConfig
from storeguard.errors import NotFoundError, StorageError
from storeguard.files import TEMPORARY_PREFIX, replacing

_log = logging.getLogger(__name__)

T = TypeVar("T")

_KEY: Final = re.compile(r"[\w=+@-][\w.=+@-]*(/[\w=+@-][\w.=+@-]*)*")
_MAX_KEY: Final = 900
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A stored file.

    Attributes:
        uri: where it is; `ObjectStore.open` takes it.
        size: in bytes.
        sha256: checksum of the content, hexadecimal.
    """

    uri: str
    size: int
    sha256: str


class Reader(Protocol):
    """A seekable file opened for reading."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, position: int, whence: int = 0, /) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class UploadRetries:
    """How often, and after what waits, an upload is tried again.

    Attributes:
        attempts: tries in all.
        initial_s, max_s: wait after the first failure; doubles up to the second figure.
    """

    attempts: int = 4
    initial_s: float = 0.5
    max_s: float = 8.0


class ObjectStore:
    """Files under one URI, by key (``corner-shop/table/2026-01-31/clip.mp4``).

    An object is there whole or not at all: locally it is written under another name, fsynced
    and renamed; S3 and GCS work that way. What was written is read back and its checksum compared.

    Args:
        uri: ``file:///folder``, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or a plain path.
            Credentials come from where the cloud's own tools take them (``AWS_ACCESS_KEY_ID``...).
        s3_endpoint: address of an S3-compatible server, such as ``http://10.0.0.5:8333``.
        region: S3 region.
        retries: of uploads.
        clock: for the waits between them.

    Raises:
        StorageError: the URI is unusable.
    """

    def __init__(
        self,
        uri: str,
        *,
        s3_endpoint: str | None = None,
        region: str | None = None,
        retries: UploadRetries = UploadRetries(),
        clock: Clock | None = None,
    ) -> None:
        self._retries = retries
        self._clock = clock or SystemClock()
        scheme = urlsplit(uri).scheme if "://" in uri else "file"
        try:
            match scheme:
                case "file":
                    path = unquote(urlsplit(uri).path) if "://" in uri else uri
                    folder = Path(path).expanduser().resolve()
                    self._fs: Any = fs.LocalFileSystem()
                    self._root, self.uri = str(folder), folder.as_uri()
                case "s3":
                    self._fs = _s3(s3_endpoint, region)
                    self._root, self.uri = _bucket_and_prefix(uri)
                case "gs" | "gcs":
                    self._fs = fs.GcsFileSystem()
                    self._root, self.uri = _bucket_and_prefix(uri)
                case _:
                    raise StorageError(
                        f"storage {redact(uri)}: expected file://, s3://, gs:// or a path, "
                        f"found {scheme!r}"
                    )
        except (ArrowException, OSError, ValueError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"storage {redact(uri)}: {_cause(error)}") from error
        self._is_local = scheme == "file"

    def put_file(self, local: Path, key: str) -> StoredObject:
        """Store a local file under a key, replacing what was there.

        Raises:
            StorageError: it could not be stored, also after retries, or the file is unreadable.
        """
        try:
            sha256, size = _digest(local.open("rb"))
        except OSError as error:
            raise StorageError(f"{local}: cannot be read for upload: {error}") from error
        return self._put(key, local, sha256, size)

    def open(self, key_or_uri: str) -> Reader:
        """A seekable reader of an object; the caller closes it.

        Raises:
            NotFoundError: there is no such object, or the URI is not below this store's.
            StorageError: it cannot be read, or the key is malformed.
        """
        path = self._path(key_or_uri)
        return cast("Reader", self._do(path, lambda: self._fs.open_input_file(path)))

    def uri_of(self, key: str) -> str:
        """The address that an object of this key has, whether it exists or not."""
        return self._uri_of(self._path(key))

    def holds(self, key_or_uri: str) -> bool:
        """Whether there is such an object.

        Raises:
            StorageError: the storage does not answer.
        """
        try:
            self.size(key_or_uri)
        except NotFoundError:
            return False
        return True

    def remove_leftovers(self, *, older_than_s: float) -> int:
        """Remove what killed uploads left in a local folder and no later upload has replaced.

        Args:
            older_than_s: seconds by the wall clock since a leftover was last written.

        Returns:
            How many there were. Other storages show no unfinished object.
        """
        if not self._is_local:
            return 0
        before_s, removed = time.time() - older_than_s, 0
        for path in Path(self._root).rglob(f"{TEMPORARY_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime < before_s:
                    path.unlink()
                    removed += 1
        return removed

    def size(self, key_or_uri: str) -> int:
        """Size of an object in bytes. Raises as `open` does."""
        path = self._path(key_or_uri)
        info = self._do(path, lambda: self._fs.get_file_info(path))
        if info.type != fs.FileType.File:
            raise NotFoundError(f"{self._uri_of(path)}: there is no such object")
        return int(info.size)

    def delete(self, key_or_uri: str) -> bool:
        """Remove an object; False if there was none."""
        path = self._path(key_or_uri)
        try:
            self.size(key_or_uri)  # S3 confirms deleting what is not there
            self._do(path, lambda: self._fs.delete_file(path))
        except NotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys below a folder (not a part of a name), each with its size in bytes, in order.

        Raises:
            StorageError: the store cannot be reached.
        """
        path = self._path(prefix) if prefix else self._root
        selector = fs.FileSelector(path, allow_not_found=True, recursive=True)
        infos = self._do(path, lambda: self._fs.get_file_info(selector))
        for info in sorted(infos, key=lambda info: str(info.path)):
            if info.type == fs.FileType.File and TEMPORARY_PREFIX not in info.path:
                yield info.path[len(self._root) :].lstrip("/"), int(info.size)

    # ------------------------------------------------------------------ inside

    def _put(self, key: str, local: Path, sha256: str, size: int) -> StoredObject:
        path = self._path(key)
        retries = self._retries
        backoff = Backoff(BackoffSettings(initial_s=retries.initial_s, max_s=retries.max_s))
        for attempt in range(1, retries.attempts + 1):
            try:
                with local.open("rb") as content:
                    if self._is_local:
                        _write_whole(Path(path), content)
                    else:
                        self._stream(path, content, sha256)
                found, found_size = _digest(self._fs.open_input_file(path))
                if found == sha256:
                    return StoredObject(uri=self._uri_of(path), size=size, sha256=sha256)
                fault = f"read back {found_size} bytes with checksum {found}, expected {sha256}"
            except (ArrowException, OSError) as error:
                fault = _cause(error)
            if attempt < retries.attempts:
                _log.warning("%s: upload %d failed: %s", self._uri_of(path), attempt, fault)
                self._clock.sleep(backoff.next_s())
        raise StorageError(
            f"{self._uri_of(path)}: cannot be stored, tried {retries.attempts} times: {fault}"
        )

    def _stream(self, path: str, content: IO[bytes], sha256: str) -> None:
        out = self._fs.open_output_stream(path, metadata={"sha256": sha256})
        try:
            shutil.copyfileobj(content, out, _COPY_BYTES)
        except BaseException:
            out.abort() if hasattr(out, "abort") else out.close()
            raise
        out.close()

    def _path(self, key_or_uri: str) -> str:
        key = key_or_uri
        if "://" in key_or_uri:
            base = f"{self.uri}/"
            if not key_or_uri.startswith(base):
                raise NotFoundError(f"{redact(key_or_uri)}: not in this storage, {self.uri}")
            key = unquote(key_or_uri[len(base) :]) if self._is_local else key_or_uri[len(base) :]
        if len(key) > _MAX_KEY or not _KEY.fullmatch(key):
            raise StorageError(
                f"{self.uri}: expected a key of letters, digits, and any of _ . = + @ - in parts "
                f"joined by '/', none beginning with '.', found {key[:100]!r}"
            )
        return f"{self._root}/{key}"

    def _uri_of(self, path: str) -> str:
        return self.uri + path[len(self._root) :]

    def _do(self, path: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except FileNotFoundError:
            raise NotFoundError(f"{self._uri_of(path)}: there is no such object") from None
        except (ArrowException, OSError) as error:
            raise StorageError(f"{self._uri_of(path)}: {_cause(error)}") from error


def _s3(endpoint: str | None, region: str | None) -> Any:
    options: dict[str, Any] = {"connect_timeout": 5.0, "request_timeout": 30.0}
    if endpoint is not None:
        scheme, _, rest = endpoint.rpartition("://")
        options |= {"endpoint_override": rest.rstrip("/"), "scheme": scheme or "https"}
    if region is not None or endpoint is not None:
        options["region"] = region or "us-east-1"
    # Retries are ours: with a bound, a wait that grows, and a line in the log.
    return fs.S3FileSystem(retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1), **options)


def _bucket_and_prefix(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if not parts.netloc or "@" in parts.netloc or parts.query:
        raise StorageError(
            f"storage {redact(uri)}: expected {parts.scheme}://bucket/prefix without credentials "
            "or options"
        )
    root = f"{parts.netloc}{parts.path}".rstrip("/")
    return root, f"{parts.scheme}://{root}"


def _write_whole(target: Path, content: IO[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f"{TEMPORARY_PREFIX}*-{glob.escape(target.name)}"):
        leftover.unlink(missing_ok=True)  # of an uploader that was killed before it was done
    with replacing(target) as part, part.open("wb") as out:
        shutil.copyfileobj(content, out, _COPY_BYTES)


def _digest(reader: Any) -> tuple[str, int]:
    """SHA-256 and size of what a reader holds; closes it."""
    digest, size = hashlib.sha256(), 0
    with reader:
        while chunk := reader.read(_COPY_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _cause(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__


def object_store(config: StoreConfig, *, retries: UploadRetries = UploadRetries()) -> ObjectStore:
    """The store's place for clips and snapshots; `embedded` is a folder in its data folder."""
    storage = config.storage
    embedded = storage.uri == "embedded"
    uri = str(config.data_dir / "objects") if embedded else storage.uri
    return ObjectStore(
        uri, s3_endpoint=storage.s3_endpoint, region=storage.s3_region, retries=retries
    )
