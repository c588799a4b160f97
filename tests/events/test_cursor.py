from __future__ import annotations

import logging
from pathlib import Path

import pytest

from storeguard.events.cursor import Cursor, CursorFile

CURSOR = Cursor(journal_id="a", seq=7)


def test_a_saved_cursor_is_loaded(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursor.json")
    assert file.load() is None
    file.save(CURSOR)
    file.save(CURSOR.model_copy(update={"seq": 8}))
    assert CursorFile(tmp_path / "cursor.json").load() == Cursor(journal_id="a", seq=8)
    assert [path.name for path in tmp_path.iterdir()] == ["cursor.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"journal_id": "a"}', b'{"seq": -1}', b"\xff"])
def test_a_corrupted_file_is_logged_and_no_cursor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "cursor.json"
    path.write_bytes(content)
    assert CursorFile(path).load() is None
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(path) in record.getMessage()
    CursorFile(path).save(CURSOR)
    assert CursorFile(path).load() == CURSOR


def test_a_cursor_that_cannot_be_saved_leaves_the_one_before(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursor.json")
    file.save(CURSOR)
    (tmp_path / ".cursor.json.tmp").mkdir()  # in the way of writing
    with pytest.raises(OSError, match=r"cursor\.json\.tmp"):
        file.save(Cursor(journal_id="b", seq=1))
    assert file.load() == CURSOR
