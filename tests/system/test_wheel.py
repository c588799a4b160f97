"""The wheel, installed into an empty environment: `storeguard demo` and `storeguard models verify`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("storeguard", "actors", "serve")
WHERE = (
    "import actors, serve, storeguard; print(actors.__file__, serve.__file__, storeguard.__file__)"
)


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that holds the wheel.

    Attributes:
        folder: the environment.
        wheel: the wheel that was installed.
        sources: files of the packages that the wheel was built from, relative to the project.
    """

    folder: Path
    wheel: Path
    sources: frozenset[str]

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs outside the checkout."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*command, *map(str, arguments)], check=True, timeout=600)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from a copy, as setuptools also packs what an earlier build left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    project = folder / "project"
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, project)
    sources = {
        str(path.relative_to(project))
        for name in PACKAGES
        for path in (project / name).rglob("*")
        if path.is_file()
    }
    pip("wheel", "--no-build-isolation", "--no-deps", "-w", folder, project)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    # Dependencies come from the environment that runs the tests. A folder named in a .pth file has
    # its own .pth files ignored, and with them an editable install of the project.
    packages = Path(sysconfig.get_path("purelib"))
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{packages}\n", encoding="utf-8")
    return Installed(environment, wheel, frozenset(sources))


def test_the_wheel_holds_every_file_of_the_packages(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        held = set(archive.namelist())
    assert sorted(installed.sources - held) == []


def test_the_packages_come_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    found = installed.run("python", "-c", WHERE, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    paths = found.stdout.split()
    assert len(paths) == len(PACKAGES)
    assert all(Path(path).is_relative_to(installed.folder) for path in paths), paths


def test_models_verify(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("storeguard", "models", "verify", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": ok, ") == len(list((ROOT / "storeguard/models").glob("*.onnx")))


@pytest.mark.usefixtures("bikes")
def test_demo_in_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("storeguard", "demo", "--seconds", "10", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "street: " in done.stderr
    assert "cabin: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["storeguard-data"]
