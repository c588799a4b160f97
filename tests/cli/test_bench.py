"""`storeguard bench` in this checkout, and without one."""

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
    assert "machine" not in found  # a module that benchmarks share
    assert found["latency"].startswith("From a frame's capture to its event")


def test_options_are_passed_on_and_the_exit_code_is_returned() -> None:
    helped = storeguard("bench", "latency", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--seconds" in helped.stdout
    assert storeguard("bench", "latency", "--no-such-option").returncode == 2


def test_an_unknown_benchmark_and_a_missing_folder(tmp_path: Path) -> None:
    done = storeguard("bench", "speed")
    assert done.returncode == 2
    assert "benchmark: expected one of accuracy" in done.stderr
    assert "found 'speed'" in done.stderr
    with pytest.raises(NotFoundError, match="expected the benchmarks of a checkout"):
        benchmarks(tmp_path / "benchmarks")
