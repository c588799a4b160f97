"""Cameras added, changed and removed at run time, and the group of each camera."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from storeguard.config.roster import Roster
from storeguard.config.store import CameraConfig
from storeguard.errors import ConfigError, NotFoundError, StorageError


def camera(name: str, *, fps: float = 5.0, enabled: bool = True) -> CameraConfig:
    return CameraConfig(
        id=name, source=f"rtsp://user:secret@{name}/s", detect_fps=fps, enabled=enabled
    )


CONFIGURED = (camera("a"), camera("b"), camera("c"))


@pytest.fixture
def changes(tmp_path: Path) -> Path:
    return tmp_path / "data" / "cameras.json"


def ids(roster: Roster) -> list[str]:
    return [one.id for one in roster.cameras]


def test_without_changes_it_is_the_configuration_and_no_file_is_created(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)

    assert roster.cameras == CONFIGURED
    assert not changes.parent.exists()


def test_changes_survive_a_restart(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    roster.add(camera("d"))
    roster.change(camera("b", fps=2))
    roster.remove("a")
    roster.add(camera("e"))
    roster.remove("e")
    roster.change(camera("d", fps=9))

    for one in (roster, Roster(CONFIGURED, changes)):
        assert ids(one) == ["b", "c", "d"]
        assert [one.get(name).detect_fps for name in "bcd"] == [2, 5, 9]
        assert one.get("d").source == "rtsp://user:secret@d/s"


def test_a_removed_camera_may_come_back(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    roster.remove("a")
    roster.add(camera("a", fps=1))

    assert Roster(CONFIGURED, changes).get("a").detect_fps == 1


def test_cameras_added_to_the_configuration_later_are_included(changes: Path) -> None:
    Roster(CONFIGURED, changes).remove("a")

    assert ids(Roster((*CONFIGURED, camera("new")), changes)) == ["b", "c", "new"]


@pytest.mark.parametrize(
    ("act", "error", "expected"),
    [
        (lambda roster: roster.add(camera("a")), ConfigError, "'a' is in use"),
        (lambda roster: roster.get("x"), NotFoundError, "'x'; cameras: a, b, c"),
        (lambda roster: roster.change(camera("x")), NotFoundError, "'x'; cameras: a, b, c"),
        (lambda roster: roster.remove("x"), NotFoundError, "'x'; cameras: a, b, c"),
    ],
)
def test_a_refused_change_changes_nothing(
    act: Callable[[Roster], object], error: type[Exception], expected: str, changes: Path
) -> None:
    roster = Roster(CONFIGURED, changes)

    with pytest.raises(error, match=expected):
        act(roster)

    assert roster.cameras == CONFIGURED
    assert not changes.exists()


def test_only_its_owner_reads_the_file(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    roster.add(camera("d"))
    # a file that a crash left, readable by all
    leftover = changes.with_suffix(".new")
    leftover.write_text("{")
    leftover.chmod(0o666)
    roster.add(camera("e"))

    assert stat.S_IMODE(changes.stat().st_mode) == 0o600
    assert sorted(path.name for path in changes.parent.iterdir()) == ["cameras.json"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot read the cameras' changes"),
        ("", "cannot read the cameras' changes"),
        ("\xff", "cannot read the cameras' changes"),
        ("[]", "expected a mapping from camera id to settings"),
        ('{"d": 7}', "d: top level"),
        ('{"d": {"id": "d", "source": "s", "detect_fps": -1}}', "d: detect_fps in camera 'd'"),
        ('{"d": {"id": "e", "source": "s"}}', "d: expected id 'd', found 'e'"),
    ],
)
def test_a_damaged_file_is_named(content: str, expected: str, changes: Path) -> None:
    changes.parent.mkdir()
    changes.write_bytes(content.encode("latin-1"))

    with pytest.raises(ConfigError) as caught:
        Roster(CONFIGURED, changes)

    assert str(changes) in str(caught.value)
    assert expected in str(caught.value)


def test_a_change_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    roster = Roster(CONFIGURED, tmp_path / "file" / "cameras.json")

    with pytest.raises(StorageError, match=r"cameras\.json: cannot write"):
        roster.add(camera("d"))

    assert roster.cameras == CONFIGURED


def test_the_file_holds_only_the_differences(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    roster.remove("a")
    roster.change(camera("b", fps=2))

    document = json.loads(changes.read_text())

    assert set(document) == {"a", "b"}
    assert document["a"] is None


# --------------------------------------------------------------------------- groups


def members(roster: Roster, per_group: int) -> dict[str, list[str]]:
    return {name: [one.id for one in group] for name, group in roster.groups(per_group).items()}


@pytest.mark.parametrize(
    ("per_group", "expected"),
    [
        (1, {"cameras-0": ["a"], "cameras-1": ["b"], "cameras-2": ["c"]}),
        (2, {"cameras-0": ["a", "b"], "cameras-1": ["c"]}),
        (8, {"cameras-0": ["a", "b", "c"]}),
    ],
)
def test_groups_are_filled_to_their_limit(
    per_group: int, expected: dict[str, list[str]], changes: Path
) -> None:
    assert members(Roster(CONFIGURED, changes), per_group) == expected


def test_cameras_stay_in_their_groups_when_others_come_and_go(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    members(roster, 2)
    roster.remove("a")
    assert members(roster, 2) == {"cameras-0": ["b"], "cameras-1": ["c"]}
    roster.add(camera("d"))
    assert members(roster, 2) == {"cameras-0": ["b", "d"], "cameras-1": ["c"]}
    roster.remove("c")
    assert members(roster, 2) == {"cameras-0": ["b", "d"]}
    roster.add(camera("e"))
    assert members(roster, 2) == {"cameras-0": ["b", "d"], "cameras-1": ["e"]}
    roster.change(camera("b", fps=1))
    assert roster.group_of("b") == "cameras-0"
    assert roster.groups(2)["cameras-0"][0].detect_fps == 1


def test_a_disabled_camera_is_in_no_group(changes: Path) -> None:
    roster = Roster(CONFIGURED, changes)
    members(roster, 2)
    roster.change(camera("a", enabled=False))

    assert members(roster, 2) == {"cameras-0": ["b"], "cameras-1": ["c"]}
    assert roster.group_of("a") is None
    assert "a" in ids(roster)
    roster.change(camera("a"))
    assert members(roster, 2) == {"cameras-0": ["b", "a"], "cameras-1": ["c"]}


def test_changed_and_removed_cameras_are_reported_as_overrides(changes: Path) -> None:
    before = Roster(CONFIGURED, changes)
    assert before.overrides == ()
    before.change(camera("a", fps=7))
    before.remove("b")
    before.change(camera("c", fps=7))
    before.change(camera("c"))  # as it was
    before.add(camera("d"))
    changed, removed = Roster(CONFIGURED, changes).overrides
    assert "'a' was changed at run time" in changed
    assert str(changes) in changed
    assert "'b' was removed at run time" in removed
