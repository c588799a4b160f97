"""`storeguard bench` on this checkout, and where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storeguard.cli.bench import FOLDER, benchmarks
from storeguard.errors import NotFoundError


def storeguard(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "storeguard.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_all_benchmarks_are_listed_with_what_they_measure() -> None:
    found = benchmarks(FOLDER)
    assert {"throughput", "latency", "failover", "accuracy"} <= set(found)
    assert "machine" not in found  # a part of others
    assert found["latency"].startswith("From a frame's capture to its event")


def test_options_are_passed_on_and_the_status_comes_back() -> None:
    helped = storeguard("bench", "latency", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--seconds" in helped.stdout
    assert storeguard("bench", "latency", "--no-such-option").returncode == 2


def test_one_that_there_is_not(tmp_path: Path) -> None:
    asked = storeguard("bench", "speed")
    assert asked.returncode != 0
    assert "there is no benchmark 'speed'; there are: accuracy" in asked.stderr
    with pytest.raises(NotFoundError, match="part of a checkout"):
        benchmarks(tmp_path / "benchmarks")
