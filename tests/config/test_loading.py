"""Errors in configuration files are reported with key, owner, expected and found value."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from storeguard.config.loading import (
    TOKEN_VARIABLE,
    load_config,
    load_zones,
    parse,
    resolve_camera,
    resolve_paths,
)
from storeguard.config.store import CameraConfig, StoreConfig
from storeguard.errors import ConfigError

ROOT = Path(__file__).parents[2]
SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
TOKEN = "an-environment-token"

GOOD: dict[str, Any] = {
    "store": "corner-shop",
    "detector": {"input_size": 320},
    "api": {"port": 8080},
    "cameras": [
        {"id": "front", "source": "rtsp://user:geheim@10.0.0.7/s"},
        {
            "id": "table",
            "source": "videos/table.mp4",
            "detect_fps": 5,
            "zones": [
                {"id": "till", "polygon": SQUARE, "rules": [{"type": "intrusion"}]},
                {"id": "shelf", "polygon": SQUARE, "rules": [{"type": "loitering", "loiter_s": 3}]},
            ],
        },
    ],
}
SHELF = ("cameras", 1, "zones", 1)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def with_value(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The valid configuration with one value replaced."""
    document = copy.deepcopy(GOOD)
    here: Any = document
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return document


def written(folder: Path, document: Any) -> Path:
    path = folder / "store.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_the_valid_configuration_is_read(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))

    assert [camera.id for camera in config.cameras] == ["front", "table"]
    assert config.cameras[1].zones[1].rules[0].type == "loitering"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        # out of range: key, owner, expectation, value
        (
            ("cameras", 1, "detect_fps"),
            -5,
            ["cameras[1].detect_fps in camera 'table'", "greater than 0", "(found -5)"],
        ),
        (("api", "port"), 70_000, ["api.port", "less than or equal to 65535", "(found 70000)"]),
        (
            (*SHELF, "rules", 0, "loiter_s"),
            0,
            ["cameras[1].zones[1].rules[0]", "loiter_s", "camera 'table', zone 'shelf'", "found 0"],
        ),
        # the wrong kind
        (
            ("cameras", 1, "detect_fps"),
            "often",
            ["detect_fps", "camera 'table'", "valid number", "(found 'often')"],
        ),
        (("cameras",), {"id": "x"}, ["cameras", "a list", "found a mapping"]),
        (("cameras", 1, "zones"), None, ["zones", "camera 'table'", "a list", "found nothing"]),
        (("detector",), "fast", ["detector", "(found 'fast')"]),
        # one of a few words
        (
            ("cameras", 1, "pace"),
            "quick",
            ["pace", "camera 'table'", "'realtime' or 'fast'", "(found 'quick')"],
        ),
        (
            (*SHELF, "rules", 0, "type"),
            "lingering",
            ["zone 'shelf'", "rules[0]", "'loitering'", "lingering"],
        ),
        # missing
        (("cameras", 1), {"id": "door"}, ["cameras[1].source in camera 'door'", "required"]),
        (
            (*SHELF, "rules", 0),
            {"type": "occupancy"},
            ["max_people", "zone 'shelf'", "required"],
        ),
        # unknown keys, with the most similar known key
        (
            ("cameras", 1, "detect_fsp"),
            5,
            ["cameras[1].detect_fsp in camera 'table'", "no such key", "'detect_fps'"],
        ),
        (
            (*SHELF, "rules", 0, "loiter_sec"),
            5,
            ["loiter_sec", "camera 'table', zone 'shelf'", "no such key", "'loiter_s'"],
        ),
        (("quux",), 1, ["quux", "no such key"]),
        # twice the same id
        (("cameras", 0, "id"), "table", ["cameras", "camera id 'table' is used 2 times"]),
        (
            ("cameras", 1, "zones", 0, "id"),
            "shelf",
            ["zones in camera 'table'", "zone id 'shelf' is used 2 times"],
        ),
        (
            ("cameras", 1, "id"),
            "my camera",
            ["cameras[1].id", "letters or digits of any script", "'my camera'"],
        ),
        # polygons
        (
            (*SHELF, "polygon"),
            [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]],
            ["camera 'table', zone 'shelf'", "crosses itself"],
        ),
        (
            (*SHELF, "polygon", 2, 0),
            1.4,
            ["polygon[2][0]", "zone 'shelf'", "less than or equal to 1", "(found 1.4)"],
        ),
        ((*SHELF, "polygon", 2), [0.5], ["polygon[2][1]", "zone 'shelf'", "required"]),
        (
            (*SHELF, "polygon"),
            [[320, 100], [400, 100], [400, 300]],  # pixels
            ["polygon[0][0]", "zone 'shelf'", "(found 320)"],
        ),
        # a zone without a shape is named all the same
        (SHELF, {"id": "bare"}, ["camera 'table', zone 'bare'", "'polygon' and 'line'"]),
        # models
        (("detector", "input_size"), 100, ["detector.input_size", "multiple of 32", "found 100"]),
        (("detector", "layout"), "yolo", ["detector.layout", "'yolox'", "(found 'yolo')"]),
        # beyond loopback
        (("api", "host"), "0.0.0.0", ["api", "'0.0.0.0'", "token", TOKEN_VARIABLE]),
    ],
)
def test_a_wrong_value_is_named(
    path: tuple[str | int, ...], value: Any, expected: list[str], tmp_path: Path
) -> None:
    file = written(tmp_path, with_value(path, value))

    text = complaint(file)

    for part in (str(file), *expected):
        assert part in text


def test_each_fault_has_a_separate_line(tmp_path: Path) -> None:
    document = with_value(("cameras", 1, "detect_fps"), 0)
    document["api"]["port"] = -1

    lines = complaint(written(tmp_path, document)).splitlines()

    assert len(lines) == 2
    assert all(line.startswith(f"{tmp_path}/store.yaml: ") for line in lines)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # an address of the wrong kind, a faulty neighbour, a key without its owner
        (("cameras", 0, "pace"), "quick"),
        (("cameras", 0, "id"), "rtsp://user:geheim@10.0.0.7/s"),
        (("detector", "layout"), "http://user:geheim@models/x"),
        (("cameras", 0), "rtsp://user:geheim@10.0.0.7/s"),
        (("cameras", 0, "source"), ["rtsp://user:geheim@10.0.0.7/s"]),
        (("api", "token"), "geheim"),
        (("api", "token"), ["geheim"]),
    ],
)
def test_messages_hold_no_secrets(path: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    assert "geheim" not in complaint(written(tmp_path, with_value(path, value)))


# --------------------------------------------------------------------------- invalid YAML


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"store: [a, b\ncameras: x\n", ["not valid YAML", "line 2, column 8"]),
        (b"store: shop\n  cameras: []\n", ["not valid YAML", "line 2"]),
        (b"store: shop\n\tapi: {}\n", ["not valid YAML", "line 2"]),
        # PyYAML would keep the second and drop the first
        (
            b"store: shop\ncameras: []\nstore: other\n",
            ["not valid YAML", "line 3", "'store' is given twice"],
        ),
        (b"store: \xff\xfe\n", ["cannot read", "utf-8"]),
        (b"a\x00b: 1\n", ["not valid YAML"]),
        (b"", ["expected a mapping", "found nothing"]),
        (b"- a\n- b\n", ["expected a mapping", "found a list"]),
        (b"hello\n", ["expected a mapping", "found 'hello'"]),
        (b"store: !!python/object:os.system {}\n", ["not valid YAML", "line 1"]),
        # the line at fault holds a password
        (b"cameras:\n - source: rtsp://u:geheim@cam/s: x: [\n", ["not valid YAML", "line 2"]),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(
    content: bytes, expected: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "store.yaml"
    file.write_bytes(content)

    text = complaint(file)

    for part in (str(file), *expected):
        assert part in text
    assert "geheim" not in text


def test_yaml_may_still_merge_mappings(tmp_path: Path) -> None:
    file = tmp_path / "store.yaml"
    file.write_text(
        "cameras:\n  - &first {id: a, source: a.mp4, detect_fps: 3}\n  - {<<: *first, id: b}\n"
    )

    assert [(c.id, c.detect_fps) for c in load_config(file).cameras] == [("a", 3), ("b", 3)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("cameras:\n- {id: a, source: {{ CAM_URL }}}\n", ["line 2", "${NAME}"]),
        ("cameras:\n- id: a\n  source: {{ CAM_URL }}\n", ["line 3", "${NAME}"]),
        ("cameras:\n- id: a\n  source: ${NO_SUCH_NAME}\n", ["NO_SUCH_NAME", "not set"]),
        ("cameras:\n- {id: a, source: !env NO_SUCH_NAME}\n", ["NO_SUCH_NAME", "not set"]),
        ("cameras:\n- {id: a, source: !secret door}\n", ["'door'", "secrets.yaml"]),
        # a password with ` #`, unquoted
        ("cameras:\n- id: a\n  source: rtsp://u:ge #heim@cam/s\n", ["line 3", "in quotes"]),
        ("cameras:\n- id: a\n  source: rtsp://cam/s #2\n", ["line 3", "in quotes"]),
        ("cameras:\n", ["cameras", "a list", "found nothing"]),
    ],
)
def test_what_people_write_is_explained(content: str, expected: list[str], tmp_path: Path) -> None:
    file = tmp_path / "store.yaml"
    file.write_text(content)

    text = complaint(file)

    for part in (str(file), *expected):
        assert part in text
    assert "heim" not in text


def test_what_people_write_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "p/[#@x")
    monkeypatch.setenv("CAM_URL", "rtsp://cam/3")
    (tmp_path / "secrets.yaml").write_text("door: rtsp://u:geheim@cam/4\n")
    (tmp_path / "fifth").write_text("rtsp://u:geheim@cam/5\n")
    file = tmp_path / "store.yaml"
    file.write_text(
        """
x-defaults: &defaults {detect_fps: 3}
store: 0815
cameras:
- {<<: *defaults, id: 001, source: 'rtsp://cam/1 #2', x-note: by the door}
- {id: 계산대, source: "rtsp://u:${CAM_PASSWORD}@cam/2", zones: [{id: 1.5, line: [[0, 0], [1, 1]]}]}
- id: no
  source: !env CAM_URL
- id: door
  source: !secret door  # in secrets.yaml
- id: fifth
  source: !secret ./fifth
- {id: sixth, source: "/videos/$${CAM_URL}.mp4"}
- id: seventh
  source: rtsp://cam/7  # a comment
"""
    )

    config = load_config(file)

    assert config.store == "0815"
    assert [(camera.id, camera.source) for camera in config.cameras] == [
        ("001", "rtsp://cam/1 #2"),
        ("계산대", "rtsp://u:p/[#@x@cam/2"),
        ("no", "rtsp://cam/3"),
        ("door", "rtsp://u:geheim@cam/4"),
        ("fifth", "rtsp://u:geheim@cam/5"),
        ("sixth", "/videos/${CAM_URL}.mp4"),
        ("seventh", "rtsp://cam/7"),
    ]
    assert config.cameras[0].detect_fps == 3
    assert config.cameras[1].zones[0].id == "1.5"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (1, "put it in quotes: '1'"),
        ("", "letters or digits of any script"),
        ("a/b", "letters or digits of any script"),
        ("..", "letters or digits of any script"),
        ("문" * 27, "at most 80 bytes"),
    ],
)
def test_names_that_are_refused_are_explained(name: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse(CameraConfig, {"id": name, "source": "rtsp://cam/s"}, where="request body")


def test_a_missing_file(tmp_path: Path) -> None:
    assert "absent.yaml: cannot read" in complaint(tmp_path / "absent.yaml")
    assert "cannot read" in complaint(tmp_path)


def test_the_shipped_configurations_are_valid() -> None:
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        if path.name != "serve.yaml":  # Ray Serve's own
            assert load_config(path).cameras


# --------------------------------------------------------------------------- the environment


@pytest.mark.parametrize("api", [None, {}, {"host": "0.0.0.0"}, {"token": None}])
def test_the_token_may_come_from_the_environment(
    api: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    assert load_config(written(tmp_path, {**GOOD, "api": api})).api.token == TOKEN


def test_the_files_token_takes_precedence_over_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    mine = "the-token-in-the-file"

    assert load_config(written(tmp_path, with_value(("api", "token"), mine))).api.token == mine


def test_a_too_short_token_of_the_environment_is_reported_but_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "geheim")

    text = complaint(written(tmp_path, GOOD))

    assert f"environment variable {TOKEN_VARIABLE}: token" in text
    assert "at least 16 characters (found 6 characters)" in text
    assert "geheim" not in text


def test_the_environment_is_read_in_one_place_only() -> None:
    found = subprocess.run(
        ["grep", "-rlE", r"os\.(environ|getenv)", "--include=*.py", "storeguard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["storeguard/config/loading.py"]


# --------------------------------------------------------------------------- zones, bodies, paths


def test_zones_come_as_a_list_or_under_their_key(tmp_path: Path) -> None:
    zones = GOOD["cameras"][1]["zones"]
    alone = load_zones(written(tmp_path, zones))
    keyed = load_zones(written(tmp_path, {"zones": zones}))

    assert alone == keyed
    assert [zone.id for zone in alone] == ["till", "shelf"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, "found nothing"),
        ({"zones": [], "cameras": []}, "found a mapping"),
        ([{"id": "a", "polygon": SQUARE}] * 2, "zone id 'a' is used 2 times"),
        (
            [{"id": "a", "polygon": SQUARE, "rules": [{"type": "x"}]}],
            "zones[0].rules[0] in zone 'a'",
        ),
        ([{"id": "a", "shape": SQUARE}], "zones[0].shape in zone 'a'"),
    ],
)
def test_wrong_zones_are_reported(document: Any, expected: str, tmp_path: Path) -> None:
    file = written(tmp_path, document)

    with pytest.raises(ConfigError) as caught:
        load_zones(file)

    assert str(file) in str(caught.value)
    assert expected in str(caught.value)


def test_a_request_body_is_named_as_such() -> None:
    body = {"id": "front", "source": "rtsp://cam/s", "zones": [{"id": "z", "polygon": SQUARE[:2]}]}

    with pytest.raises(ConfigError, match=r"request body: zones\[0\] in camera 'front', zone 'z':"):
        parse(CameraConfig, body, where="request body")


def test_paths_are_made_absolute_for_processes_that_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = {**GOOD, "detector": {"model": "m.onnx"}, "storage": {"uri": "clips"}}
    document["classifier"] = {"model": "c.onnx"}
    document["attributes"] = [{"name": "basket", "model": "b.onnx"}]
    config = resolve_paths(load_config(written(tmp_path, document)))

    assert config.classifier.model == str(tmp_path / "c.onnx")
    assert config.attributes[0].model == str(tmp_path / "b.onnx")
    assert config.data_dir == tmp_path / "storeguard-data"
    assert config.detector.model == str(tmp_path / "m.onnx")
    assert config.storage.uri == str(tmp_path / "clips")
    assert config.cameras[0].source == "rtsp://user:geheim@10.0.0.7/s"
    assert config.cameras[1].source == str(tmp_path / "videos" / "table.mp4")
    assert resolve_paths(config) == config


def test_keywords_that_are_not_paths_stay() -> None:
    for uri in ("embedded", "s3://bucket/shop", "file:///data/clips"):
        config = resolve_paths(StoreConfig.model_validate({"storage": {"uri": uri}}))
        assert (config.detector.model, config.storage.uri) == ("bundled", uri)


def test_a_source_that_cannot_be_found_names_its_camera() -> None:
    camera = CameraConfig(id="front", source="package:no_such/a.mp4")

    with pytest.raises(ConfigError, match=re.escape("camera 'front': source 'package:no_such/")):
        resolve_camera(camera)
