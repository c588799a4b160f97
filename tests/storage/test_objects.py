from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any

import pytest

from storeguard.errors import NotFoundError, StorageError
from storeguard.storage.objects import ObjectStore, UploadRetries
from storeguard.testing import FakeClock
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Process, running_s3
from tests.storage.objects import put

CLIP = os.urandom(300_000)
KEY = "shop/table/2026-01-31/clip_1.mp4"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with running_s3(tmp_path_factory.mktemp("s3")) as server:
            yield server


@pytest.fixture(params=["folder", "file uri", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    match request.param:
        case "folder":
            return ObjectStore(str(tmp_path / "clips"))
        case "file uri":
            return ObjectStore((tmp_path / "with space").as_uri())
        case _:
            server: S3Process = request.getfixturevalue("s3")
            return ObjectStore(f"s3://{BUCKET}/{tmp_path.name}", s3_endpoint=server.endpoint)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "spool.mp4"
    path.write_bytes(CLIP)
    return path


def test_what_was_put_is_found_by_key_and_uri(store: ObjectStore, clip: Path) -> None:
    stored = store.put_file(clip, KEY)
    assert stored.uri == f"{store.uri}/{KEY}"
    assert (stored.size, stored.sha256) == (len(CLIP), hashlib.sha256(CLIP).hexdigest())
    for name in (KEY, stored.uri):
        assert store.size(name) == len(CLIP)
        reader = store.open(name)
        assert reader.read(10) == CLIP[:10]
        reader.seek(123_456)
        assert reader.read() == CLIP[123_456:]
        reader.close()


def test_keys_may_be_of_any_script(store: ObjectStore, clip: Path) -> None:
    stored = store.put_file(clip, "가게/문_1.mp4")
    for name in ("가게/문_1.mp4", stored.uri):
        assert store.size(name) == len(CLIP)


def test_putting_again_replaces(store: ObjectStore) -> None:
    put(store, b"one", KEY)
    put(store, b"another", KEY)
    assert store.size(KEY) == 7
    assert list(store.list()) == [(KEY, 7)]


def test_nothing_at_all_can_be_stored(store: ObjectStore) -> None:
    assert put(store, b"", "empty").size == 0
    assert store.size("empty") == 0


def test_listing_by_folder(store: ObjectStore) -> None:
    assert list(store.list()) == []
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        put(store, key.encode(), key)
    assert list(store.list()) == [("a/1", 3), ("a/b/2", 5), ("ab/3", 4), ("c", 1)]
    assert list(store.list("a")) == [("a/1", 3), ("a/b/2", 5)]
    assert list(store.list("nothing")) == []


def test_deleting(store: ObjectStore) -> None:
    stored = put(store, b"x", KEY)
    assert store.delete(stored.uri)
    assert not store.delete(KEY)
    for read in (store.open, store.size):
        with pytest.raises(NotFoundError, match=r"clip_1\.mp4"):
            read(KEY)


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a\x00b", "a b", "x" * 901],
)
def test_keys_that_could_lead_elsewhere(store: ObjectStore, key: str) -> None:
    with pytest.raises(StorageError, match="expected a key"):
        put(store, b"x", key)


def test_addresses_of_other_stores_lead_nowhere(store: ObjectStore) -> None:
    for uri in ("file:///etc/passwd", "s3://other/x", f"{store.uri}-more/x", "http://10.0.0.1/x"):
        with pytest.raises(NotFoundError, match="not in this storage"):
            store.open(uri)
    for uri in (f"{store.uri}/../x", f"{store.uri}/%2e%2e/x"):
        with pytest.raises(StorageError):
            store.open(uri)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/x", "found 'ftp'"),
        ("s3://", "bucket"),
        ("s3://key:secret@bucket/x", "without credentials"),
    ],
)
def test_unusable_addresses(uri: str, words: str) -> None:
    with pytest.raises(StorageError, match=words) as caught:
        ObjectStore(uri)
    assert "secret" not in str(caught.value)


def test_a_half_written_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(str(tmp_path), retries=UploadRetries(attempts=1))
    put(store, b"old", KEY)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        put(store, b"new", KEY)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["clip_1.mp4"]
    assert store.size(KEY) == 3


def test_uploads_are_retried_with_growing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = ObjectStore(str(tmp_path), clock=clock)
    real, failures = os.fsync, [OSError(5, "I/O error")] * 3

    def flaky(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", flaky)
    assert put(store, b"x", KEY).size == 1
    assert 0.7 * 3.5 <= clock.monotonic() <= 1.3 * 3.5  # 0.5 + 1 + 2 s
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3


class StillWritten(PosixPath):
    """A file that grows each time it was opened."""

    def open(self, *how: Any, **more: Any) -> Any:
        with super().open(*how, **more) as file:
            content = file.read()
        with Path(self).open("ab") as file:
            file.write(b"y")
        return io.BytesIO(content)


def test_content_that_changed_on_the_way_is_noticed(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path / "objects"), clock=FakeClock())
    local = tmp_path / "clip.mp4"
    local.write_bytes(b"x")
    with pytest.raises(StorageError, match="checksum"):
        store.put_file(StillWritten(local), KEY)


def test_an_unreadable_file_is_named(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"missing\.mp4"):
        store.put_file(tmp_path / "missing.mp4", KEY)


def test_a_server_that_comes_back_gets_its_upload(s3: S3Process, clip: Path) -> None:
    class RestartingClock(FakeClock):
        """Starts the server again during the second wait."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            waits.append(seconds)
            if len(waits) == 2:
                s3.start()

    waits: list[float] = []
    store = ObjectStore(f"s3://{BUCKET}/back", s3_endpoint=s3.endpoint, clock=RestartingClock())
    s3.kill()
    with pytest.raises(StorageError, match="back/x"):
        store.size("x")
    stored = store.put_file(clip, KEY)
    assert len(waits) == 2
    assert store.size(stored.uri) == len(CLIP)


def test_wrong_credentials_are_told(s3: S3Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = ObjectStore(f"s3://{BUCKET}/x", s3_endpoint=s3.endpoint, clock=FakeClock())
    with pytest.raises(
        StorageError, match=r"SIGNATURE|ACCESS_DENIED|denied|[Ss]ignature"
    ) as caught:
        put(store, b"x", KEY)
    assert SECRET_KEY not in str(caught.value)


KILLED = """
import os, sys
from pathlib import Path
import storeguard.files
from storeguard.storage.objects import ObjectStore
# Killed when all is written and nothing has its name yet.
storeguard.files._fsync = lambda path: os.kill(os.getpid(), 9)
ObjectStore(sys.argv[1]).put_file(Path(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def after_a_kill(tmp_path: Path, clip: Path) -> ObjectStore:
    """A folder in which an upload was killed in the middle."""
    folder = tmp_path / "objects"
    words = [sys.executable, "-c", KILLED, str(folder), str(clip), KEY]
    assert subprocess.run(words, check=False, cwd=Path(__file__).parents[2]).returncode == -9
    assert [path.name.startswith(".part-") for path in files_below(folder)] == [True]
    return ObjectStore(str(folder))


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_next_upload_of_a_killed_one_leaves_one_file(
    after_a_kill: ObjectStore, tmp_path: Path, clip: Path
) -> None:
    """Found as a stored file that no event links, on a machine under heavy load."""
    stored = after_a_kill.put_file(clip, KEY)
    assert [path.as_uri() for path in files_below(tmp_path / "objects")] == [stored.uri]


def test_what_no_upload_replaces_is_removed_in_time(
    after_a_kill: ObjectStore, tmp_path: Path
) -> None:
    assert after_a_kill.remove_leftovers(older_than_s=3600) == 0  # it may be under way
    assert after_a_kill.remove_leftovers(older_than_s=-3600) == 1
    assert files_below(tmp_path / "objects") == []
