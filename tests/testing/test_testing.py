"""The clock that fault runs set, and the videos that tests make."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storeguard.testing import SteppedClock

PROGRAM = """
import sys, pathlib
from storeguard.testing import SteppedClock
print(SteppedClock(pathlib.Path(sys.argv[1])).now().isoformat())
"""


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0, 0.0, 0.25])
def test_the_wall_clock_is_set_and_monotonic_time_is_not(tmp_path: Path, ahead_s: float) -> None:
    clock = SteppedClock(tmp_path / "clock")
    before, before_s = datetime.now(UTC), clock.monotonic()
    assert before <= clock.now() <= datetime.now(UTC)
    clock.set(ahead_s)
    ahead = timedelta(seconds=ahead_s)
    assert before + ahead <= clock.now() <= datetime.now(UTC) + ahead
    assert clock.monotonic() >= before_s


def test_other_processes_follow_the_file(tmp_path: Path) -> None:
    clock = SteppedClock(tmp_path / "clock")
    clock.set(86_400.0)
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            str(tmp_path / "clock"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert datetime.fromisoformat(printed) > datetime.now(UTC) + timedelta(hours=23)
