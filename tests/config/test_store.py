"""Which settings are refused, and which are accepted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from storeguard.config.models import DetectorSettings
from storeguard.config.store import (
    ApiSettings,
    CameraConfig,
    RecordingSettings,
    SmartRecord,
    StoreConfig,
    is_loopback,
)
from storeguard.config.zones import ZoneConfig

SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
LINE = [[0.1, 0.5], [0.9, 0.5]]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        # exactly one shape, of the kind that its rules need
        ({}, "exactly one of 'polygon' and 'line'"),
        ({"polygon": SQUARE, "line": LINE}, "exactly one of 'polygon' and 'line'"),
        ({"line": LINE, "rules": [{"type": "loitering"}]}, "'loitering' needs a 'polygon'"),
        ({"polygon": SQUARE, "rules": [{"type": "line_crossing"}]}, "needs a 'line'"),
        # invalid shapes
        ({"polygon": SQUARE[:2]}, "at least 3 corners"),
        ({"polygon": [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]]}, "crosses itself"),
        ({"polygon": [[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]}, "no area"),
        ({"line": [[0.5, 0.5], [0.5, 0.5]]}, "no length"),
        # the same rule twice
        (
            {"polygon": SQUARE, "rules": [{"type": "intrusion"}, {"type": "intrusion"}]},
            "'intrusion' is given 2 times",
        ),
    ],
)
def test_invalid_zones_are_refused(zone: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ZoneConfig.model_validate({"id": "door", **zone})

    assert expected in str(caught.value)
    assert "zone 'door'" in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("127.example.com", False),  # a name that only resembles a loopback address
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_beyond_loopback_a_token_is_demanded() -> None:
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0.*STOREGUARD_API_TOKEN"):
        ApiSettings(host="0.0.0.0")
    with pytest.raises(ValidationError, match="at least 16"):
        ApiSettings(host="0.0.0.0", token="short")
    assert ApiSettings(host="0.0.0.0", token="0123456789abcdef").host == "0.0.0.0"
    assert ApiSettings(host="127.0.0.1").token is None


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        (None, True),
        (320, True),
        ((960, 544), True),
        (100, False),  # no multiple of 32
        (0, False),
        ((320, 100), False),
        ((320,), False),
    ],
)
def test_input_sizes(size: Any, fits: bool) -> None:
    if fits:
        assert DetectorSettings(input_size=size).input_size == size
    else:
        with pytest.raises(ValidationError):
            DetectorSettings(input_size=size)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("off", SmartRecord.OFF),
        (False, SmartRecord.OFF),  # an unquoted `off` in YAML
        ("events", SmartRecord.EVENTS),
        ("commands", SmartRecord.COMMANDS),
    ],
)
def test_smart_record(value: object, expected: SmartRecord) -> None:
    settings = RecordingSettings.model_validate({"smart_record": value})

    assert settings.smart_record is expected


def test_smart_record_is_not_simply_true() -> None:
    with pytest.raises(ValidationError):
        RecordingSettings.model_validate({"smart_record": True})


def test_settings_are_frozen_and_survive_json() -> None:
    camera = CameraConfig.model_validate(
        {
            "id": "table",
            "source": "rtsp://u:p@cam/s",
            "person": {"min_score": 0.5},
            "zones": [
                {
                    "id": "table",
                    "polygon": SQUARE,
                    "rules": [{"type": "loitering"}, {"type": "occupancy", "max_people": 2}],
                },
                {"id": "door", "line": LINE, "rules": [{"type": "line_crossing"}]},
            ],
        }
    )

    with pytest.raises(ValidationError, match="frozen"):
        camera.detect_fps = 3  # type: ignore[misc]
    assert CameraConfig.model_validate(camera.model_dump(mode="json")) == camera
    assert CameraConfig.model_validate_json(camera.model_dump_json()) == camera


def test_defaults_are_those_of_the_design() -> None:
    config = StoreConfig()
    zone = ZoneConfig.model_validate(
        {"id": "z", "polygon": SQUARE, "rules": [{"type": "intrusion"}, {"type": "loitering"}]}
    )

    intrusion, loitering = zone.rules
    assert (intrusion.anchor, intrusion.cooldown_s, intrusion.min_hit_ratio) == ("head", 2.0, 0.1)
    assert (loitering.loiter_s, loitering.pre_roll_s, loitering.post_roll_s) == (3.0, 10.0, 10.0)
    assert (config.api.host, config.events.url, config.storage.uri) == (
        "127.0.0.1",
        "embedded",
        "embedded",
    )
