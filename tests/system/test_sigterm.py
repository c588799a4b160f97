"""SIGTERM, as systemd and `docker stop` send it, ends a running store in order."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.valkey import free_port
from tests.waiting import wait_for

STOP_S = 60.0  # on a busy machine; a few seconds on an idle one


@pytest.mark.parametrize("command", ["run", "demo"])
def test_sigterm_ends_a_store_in_order(command: str, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "store.yaml"
    config.write_text(yaml.safe_dump({"store": "term", "api": {"port": port}}))
    words = ["run", str(config)] if command == "run" else ["demo", "--port", str(port)]
    shown = tmp_path / "shown.txt"
    with shown.open("w") as output:
        store = subprocess.Popen(
            [sys.executable, "-m", "storeguard.cli.main", *words],
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(
            lambda: " up after " in shown.read_text() or store.poll() is not None,
            found=shown.read_text,
        )
        store.send_signal(signal.SIGTERM)
        code = store.wait(STOP_S)
    finally:
        store.kill()

    text = shown.read_text()
    assert code == 0, text
    assert text.rstrip().endswith("stopped")
    for trace in ("SIGTERM received", "Traceback", "PC: @"):
        assert trace not in text
