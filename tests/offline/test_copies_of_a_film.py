"""`storeguard process` gives the same visits, however a film is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from storeguard.config.models import DetectorSettings
from storeguard.config.zones import ZoneConfig
from storeguard.events.event import Event, EventStatus
from storeguard.offline.following import FILE_START
from storeguard.offline.outputs import ProcessOutputs
from storeguard.offline.process import ProcessOptions, VideoProcessor
from tests.offline.visit_film import COPIES, Copy, Rgb, visit_pictures

ZONE = ZoneConfig.model_validate(
    {
        "id": "counter",
        "polygon": [[0.3, 0.0], [0.7, 0.0], [0.7, 1.0], [0.3, 1.0]],
        "rules": [
            {"type": "intrusion", "anchor": "head"},
            {"type": "loitering", "loiter_s": 3},
            {"type": "occupancy", "max_people": 0, "for_s": 1},
        ],
    }
)


@dataclass(frozen=True)
class Visit:
    """One event: its rule, and the seconds of the film at which it began and ended."""

    rule: str
    begins_s: float
    ends_s: float


@pytest.fixture(scope="module")
def pictures(bikes: Path) -> list[Rgb]:
    return visit_pictures(bikes)


@pytest.fixture(scope="module")
def processor() -> VideoProcessor:
    return VideoProcessor(DetectorSettings(num_cpus=1))


def visits(processor: VideoProcessor, film: Path, folder: Path) -> list[Visit]:
    out = folder / "events.jsonl"
    processor.process(film, ProcessOptions(zones=(ZONE,)), ProcessOutputs(events=out))
    events = [Event.model_validate(json.loads(line)) for line in out.read_text().splitlines()]
    closed = [event for event in events if event.status is EventStatus.CLOSED]
    return sorted(
        (
            Visit(
                str(event.type),
                (event.started_at - FILE_START).total_seconds(),
                (event.ended_at - FILE_START).total_seconds(),
            )
            for event in closed
            if event.ended_at is not None
        ),
        key=lambda visit: (visit.rule, visit.begins_s),
    )


@pytest.fixture(scope="module")
def upright(
    pictures: list[Rgb], processor: VideoProcessor, tmp_path_factory: pytest.TempPathFactory
) -> list[Visit]:
    """The visits in the film itself."""
    folder = tmp_path_factory.mktemp("upright")
    return visits(processor, COPIES["mp4"](pictures, folder), folder)


def test_the_film_itself_has_one_visit(upright: list[Visit]) -> None:
    assert [visit.rule for visit in upright] == ["intrusion", "loitering", "occupancy"]
    for visit in upright:
        assert visit.begins_s == pytest.approx(1.7, abs=0.5)
        assert visit.ends_s == pytest.approx(7.3, abs=0.5)


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_every_copy_of_a_film_gives_the_same_visits(
    copy: Copy,
    upright: list[Visit],
    pictures: list[Rgb],
    processor: VideoProcessor,
    tmp_path: Path,
) -> None:
    found = visits(processor, copy(pictures, tmp_path), tmp_path)
    assert [visit.rule for visit in found] == [visit.rule for visit in upright]
    for visit, expected in zip(found, upright, strict=True):
        # The pictures were encoded once more: a frame or two earlier or later.
        assert visit.begins_s == pytest.approx(expected.begins_s, abs=0.25)
        assert visit.ends_s == pytest.approx(expected.ends_s, abs=0.25)
