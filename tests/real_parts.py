"""Real parts that a test needs and a machine may lack: skipped by hand, required in CI."""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test for want of a real part; with `CI=true` fail it instead.

    Args:
        reason: which part is missing and where it comes from.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true requires every real part: {reason}", pytrace=False)
    pytest.skip(reason)


def required_program(*names: str) -> str:
    """Path of the first of these programs that is installed; `missing` if none is."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    missing(f"no {' or '.join(names)} on PATH; .ci/run installs it")


def required_module(name: str) -> ModuleType:
    """The module of a package that the test extra brings; `missing` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is not installed; pip install storeguard[test] brings it")
