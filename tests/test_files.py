"""Files are replaced whole or stay as they were."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storeguard.files import TEMPORARY_PREFIX, replacing, write_atomically


@pytest.fixture
def umask() -> None:
    before = os.umask(0o022)
    yield
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("data", "content"), [("Käse\n", "Käse\n".encode()), (b"\x00\xff", b"\x00\xff")]
)
def test_a_new_file_and_a_replaced_one(
    tmp_path: Path, sync: bool, data: bytes | str, content: bytes
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old", sync=sync)
    assert path.read_text() == "old"
    write_atomically(path, data, sync=sync)
    assert path.read_bytes() == content
    assert names(tmp_path) == ["file.json"]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.touch(0o666)
    write_atomically(path, b"content", mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_new_file_has_its_permissions_before_it_has_content(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=0o600) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        part.write_text("secret")


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["model.onnx"]


def test_the_old_file_is_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with replacing(path) as part:
        assert part.suffix == ".onnx"
        assert part.name.startswith(TEMPORARY_PREFIX)
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


FULL = """
import signal, sys
from pathlib import Path
from storeguard.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    write_atomically(Path(sys.argv[1]), bytes(10_000))
except OSError as error:
    print(error.errno)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip(), done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"")


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([n]) * 100_000 for n in range(4)]
    threads = [
        threading.Thread(target=write_atomically, args=(path, one), kwargs={"sync": False})
        for one in contents
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["file"]


KILLED = """
import sys
from pathlib import Path
from storeguard.files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    left = [name for name in names(tmp_path) if name != "file"]
    assert [name.startswith(TEMPORARY_PREFIX) for name in left] == [True]
