"""Zones that are too small for what their rules need, and what rules promise together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from storeguard.config.loading import load_config, load_zones
from storeguard.config.zones import MAX_GAP_S, Rule, ZoneConfig, longest_gap_s


def square(side: float) -> list[tuple[float, float]]:
    """A square in the middle of the picture; `side` in fractions of width and height."""
    low, high = 0.5 - side / 2, 0.5 + side / 2
    return [(low, low), (high, low), (high, high), (low, high)]


def zone(side: float, **rule: Any) -> dict[str, Any]:
    return {"id": "till", "polygon": square(side), "rules": [rule]}


HIT = {"anchor": "hit_ratio"}


@pytest.mark.parametrize(
    ("side", "rule"),
    [
        # a tenth of the smallest box of a person is 0.00001 of the frame
        (0.003, {"type": "loitering"}),
        (0.003, {"type": "intrusion", **HIT}),
        (0.003, {"type": "occupancy", "max_people": 1}),
        (0.003, {"type": "person"}),
        # the whole of it
        (0.009, {"type": "loitering", "min_hit_ratio": 1}),
    ],
)
def test_a_zone_that_no_person_can_fire_is_refused_with_numbers(
    side: float, rule: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        ZoneConfig.model_validate(zone(side, **rule))

    message = str(caught.value)
    assert (
        f"zone 'till': rule '{rule['type']}' needs {rule.get('min_hit_ratio', 0.1):.3g} " in message
    )
    assert f"the zone covers {side**2:.2g} of the frame" in message
    assert "at most" in message


@pytest.mark.parametrize(
    ("side", "rule", "doubted"),
    [
        (0.044, {"type": "loitering"}, True),
        (0.045, {"type": "loitering"}, False),
        (0.044, {"type": "person"}, True),
        (0.13, {"type": "intrusion", **HIT, "min_hit_ratio": 0.9}, True),
        (0.14, {"type": "intrusion", **HIT, "min_hit_ratio": 0.9}, False),
        # a point can be in a zone of any size
        (0.003, {"type": "intrusion", "anchor": "foot"}, False),
        (0.003, {"type": "loitering", "anchor": "head"}, False),
    ],
)
def test_a_zone_that_a_typical_person_cannot_fire_is_doubted(
    side: float, rule: dict[str, Any], doubted: bool
) -> None:
    found = ZoneConfig.model_validate(zone(side, **rule)).doubts()

    assert len(found) == doubted
    assert all("zone 'till'" in text and rule["type"] in text for text in found)


def test_a_line_has_no_doubts() -> None:
    line = {"id": "door", "line": [(0.5, 0.5), (0.5, 0.501)], "rules": [{"type": "line_crossing"}]}

    assert ZoneConfig.model_validate(line).doubts() == []


@pytest.mark.parametrize("kind", ["store", "zones"])
def test_loading_warns_of_a_zone_that_a_typical_person_cannot_fire(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    zones = [_plain(zone(0.02, type="loitering"))]
    cameras = [{"id": "front", "source": "rtsp://camera/1", "zones": zones}]
    document = zones if kind == "zones" else {"store": "shop", "cameras": cameras}
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")

    with caplog.at_level(logging.WARNING):
        load_zones(path) if kind == "zones" else load_config(path)

    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"{path}: ")
    assert ("camera 'front'" in message) is (kind == "store")
    for number in (
        "needs 0.1 ",
        "covers 0.0004 of the frame",
        "0.02 (a typical one)",
        "0.02 of it",
    ):
        assert number in message


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    return document | {"polygon": [list(corner) for corner in document["polygon"]]}


@pytest.mark.parametrize(
    ("rules", "expected_s"),
    [
        ([], MAX_GAP_S),
        ([{"type": "line_crossing"}], MAX_GAP_S),
        ([{"type": "intrusion", "max_gap_s": 3}], 3),
        ([{"type": "intrusion", "max_gap_s": 3}, {"type": "loitering", "max_gap_s": 40}], 40),
        ([{"type": "person", "max_gap_s": 3, "grace_s": 20}], 20),
    ],
)
def test_the_longest_gap_of_some_rules(rules: list[dict[str, Any]], expected_s: float) -> None:
    made = [TypeAdapter(Rule).validate_python(rule) for rule in rules]

    assert longest_gap_s(made) == expected_s
