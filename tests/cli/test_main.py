"""What the command shows of an error, and with which exit code it ends."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from storeguard.cli import main as command
from storeguard.offline import pictures


def ended_with(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["storeguard", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code


def test_an_expected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = ended_with(monkeypatch, "process", "rtps://admin:geheim@cam/s")

    shown = capfd.readouterr().err
    assert code == 2
    assert shown.startswith("error: expected a path or one of rtsp://")
    assert len(shown.splitlines()) == 1
    assert "geheim" not in shown


def test_an_unexpected_error_shows_no_credentials(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> int:
        raise RuntimeError("no answer of rtsp://admin:geheim@cam/s")

    monkeypatch.setattr(pictures, "detect_folder", fails)
    code = ended_with(monkeypatch, "detect", str(tmp_path), "--out", str(tmp_path / "o.jsonl"))

    shown = capfd.readouterr().err
    assert code == 1
    assert "unexpected, please report it: RuntimeError" in shown
    assert "rtsp://***@cam/s" in shown
    assert "geheim" not in shown


def test_the_log_shows_no_credentials() -> None:
    record = logging.LogRecord(
        "x", logging.WARNING, __file__, 1, "lost %s", ("rtsp://admin:geheim@cam/s",), None
    )

    assert command.RedactingFormatter().format(record) == "lost rtsp://***@cam/s"
