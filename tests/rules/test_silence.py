"""A camera that shows nothing for a while: detections through tracker and rules to events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import av
import numpy as np
import pytest

from storeguard.camera.detector_calls import Detected
from storeguard.camera.feeds import LatestFrame
from storeguard.camera.pipeline import CameraPipeline
from storeguard.config.models import TrackerSettings
from storeguard.config.store import CameraConfig
from storeguard.detection.detections import Detections
from storeguard.detection.detector import DetectTiming
from storeguard.detection.letterbox import fit
from storeguard.events.event import Event
from storeguard.rules.engine import CameraRules
from storeguard.testing import FakeClock
from storeguard.video.frame import Frame

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
WH = (960, 540)
PICTURE = av.VideoFrame.from_ndarray(np.zeros((WH[1], WH[0], 3), np.uint8), format="rgb24")
TIMING = DetectTiming(preprocess_ms=0.0, infer_ms=0.0, postprocess_ms=0.0)
HEIGHT = 160.0
SILENT_FROM_S = 6.0
BRIDGED = [2.5, 3.4, 6.0, 9.0]

Walk = Callable[[float], tuple[float, float]]  # seconds -> centre x, foot y in pixels

WALKS: dict[str, Walk] = {
    "stands": lambda _: (480, 400),
    "strolls": lambda t: (150 + 35 * t, 400),
    "turns back": lambda t: (480 + 200 * np.sin(0.3 * t), 380),
    "comes closer": lambda t: (300 + 10 * t, 300 + 8 * t),
}


def camera(**rule: float) -> CameraConfig:
    """A camera with one zone, almost the whole picture, and two rules about visits."""
    return CameraConfig.model_validate(
        {
            "id": "cam",
            "source": "made up",
            "zones": [
                {
                    "id": "shop",
                    "polygon": [[0.02, 0.02], [0.98, 0.02], [0.98, 0.98], [0.02, 0.98]],
                    "rules": [{"type": "intrusion", **rule}, {"type": "loitering", **rule}],
                }
            ],
        }
    )


class Shop:
    """A camera's pipeline and rules, with detections of people on synthetic walks."""

    def __init__(self, settings: CameraConfig) -> None:
        feed = LatestFrame(wake=lambda _: None)
        self.pipeline = CameraPipeline(
            settings, TrackerSettings(), feed=feed, epoch="e", clock=FakeClock(START)
        )
        self.rules = CameraRules("shop", settings)
        self.people: set[str] = set()
        self.events: list[Event] = []
        self._rng = np.random.default_rng(5)
        self._index = 0

    def see(self, at_s: float, walks: Sequence[Walk]) -> None:
        """Process a frame in which the detector finds these people, with its usual jitter."""
        places = [walk(at_s) for walk in walks]
        boxes = np.array(
            [(x - 0.2 * HEIGHT, y - HEIGHT, x + 0.2 * HEIGHT, y) for x, y in places]
        ).reshape(-1, 4)
        boxes += self._rng.normal(0, 0.01 * HEIGHT, boxes.shape)
        frame = Frame(
            camera_id="cam",
            index=self._index,
            captured_at=START + timedelta(seconds=at_s),
            time_s=at_s,
            picture=PICTURE,
            scene_cut=False,
            decode_ms=0.0,
            received_s=0.0,
        )
        self._index += 1
        found = Detections.of(boxes, np.full(len(boxes), 0.8))
        observation = self.pipeline.process(Detected(frame, fit(WH, WH), found, TIMING, 0.0))
        assert observation is not None
        self.people |= set(observation.person_id)
        self.events += self.rules.step(observation)

    def watch(self, start_s: float, stop_s: float, *walks: Walk, fps: float = 5) -> None:
        for at_s in np.arange(start_s, stop_s, 1 / fps):
            self.see(float(at_s), walks)

    def visits(self) -> list[tuple[str, float, float]]:
        """Close everything; (type, start second, seconds) of each visit."""
        assert self.rules.captured_at is not None
        self.events += self.rules.close_all(self.rules.captured_at)
        return sorted(
            (event.type.value, (event.started_at - START).total_seconds(), event.dwell_s)
            for event in self.events
            if event.ended_at is not None and event.dwell_s is not None
        )


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("fps", [10, 5, 2])
@pytest.mark.parametrize("silence_s", BRIDGED)
def test_a_silence_within_max_gap_is_one_visit_of_one_person(
    silence_s: float, fps: float, walk: str
) -> None:
    shop = Shop(camera())
    shop.watch(0, SILENT_FROM_S, WALKS[walk], fps=fps)
    begins_s = SILENT_FROM_S - 1 / fps + silence_s
    shop.watch(begins_s, begins_s + 4, WALKS[walk], fps=fps)

    assert len(shop.people) == 1
    intrusion, loitering = shop.visits()
    assert (intrusion[0], loitering[0]) == ("intrusion", "loitering")
    for _, started_s, dwell_s in (intrusion, loitering):
        assert started_s == 0
        assert dwell_s == pytest.approx(begins_s + 4 - 1 / fps)


@pytest.mark.parametrize("silence_s", BRIDGED)
def test_two_people_keep_their_visits_through_a_silence(silence_s: float) -> None:
    shop = Shop(camera())
    pair: tuple[Walk, Walk] = (lambda t: (200 + 10 * t, 350), lambda t: (760 - 10 * t, 450))
    shop.watch(0, SILENT_FROM_S, *pair)
    shop.watch(SILENT_FROM_S + silence_s, SILENT_FROM_S + silence_s + 4, *pair)

    assert len(shop.people) == 2
    assert [(name, start_s) for name, start_s, _ in shop.visits()] == [
        ("intrusion", 0),
        ("intrusion", 0),
        ("loitering", 0),
        ("loitering", 0),
    ]


@pytest.mark.parametrize("silence_s", BRIDGED)
def test_a_person_whom_the_detector_misses_right_after_the_silence(silence_s: float) -> None:
    shop = Shop(camera())
    shop.watch(0, SILENT_FROM_S, WALKS["stands"])
    again_s = SILENT_FROM_S + silence_s
    shop.see(again_s, ())  # a picture with faults after a reconnect
    shop.watch(again_s + 0.2, again_s + 4, WALKS["stands"])

    assert len(shop.people) == 1
    assert len(shop.visits()) == 2


def test_a_person_who_has_left_in_the_silence_ends_the_visit_where_it_was_last_seen() -> None:
    shop = Shop(camera())
    shop.watch(0, SILENT_FROM_S, WALKS["stands"])
    shop.watch(SILENT_FROM_S + 6, SILENT_FROM_S + 9)

    assert {event.type.value for event in shop.events if event.ended_at} == {
        "intrusion",
        "loitering",
    }
    assert all(dwell_s <= SILENT_FROM_S + 0.5 for _, _, dwell_s in shop.visits())


@pytest.mark.parametrize(
    ("max_gap_s", "silence_s", "num_people"),
    [(10.0, 10.5, 2), (0.0, 3.4, 2), (60.0, 40.0, 1), (60.0, 61.0, 2)],
)
def test_the_tracker_bridges_what_the_rules_promise_and_no_more(
    max_gap_s: float, silence_s: float, num_people: int
) -> None:
    shop = Shop(camera(max_gap_s=max_gap_s))
    shop.watch(0, SILENT_FROM_S, WALKS["stands"])
    again_s = SILENT_FROM_S - 0.2 + silence_s
    shop.watch(again_s, again_s + 4, WALKS["stands"])

    assert len(shop.people) == num_people
    assert len(shop.visits()) == 2 * num_people


def test_another_max_gap_applies_to_people_in_view() -> None:
    shop = Shop(camera(max_gap_s=0))
    shop.watch(0, 3, WALKS["stands"])
    shop.pipeline.reconfigure(camera(max_gap_s=60))
    shop.watch(43, 46, WALKS["stands"])

    assert len(shop.people) == 1


@pytest.mark.parametrize("step_s", [2.0, 3.3, 5.0])
def test_a_starving_camera_follows_a_person_from_frame_to_frame(step_s: float) -> None:
    shop = Shop(camera())
    shop.watch(0, 60, WALKS["turns back"], fps=1 / step_s)

    assert len(shop.people) == 1
    assert len(shop.visits()) == 2


def test_a_visit_after_a_silence_starts_when_the_person_is_first_seen_inside() -> None:
    settings = camera()
    corner = settings.zones[0].model_copy(
        update={"polygon": ((0.5, 0.02), (0.98, 0.02), (0.98, 0.98), (0.5, 0.98))}
    )
    shop = Shop(settings.model_copy(update={"zones": (corner,)}))
    shop.watch(0, 6, lambda _: (380, 400))
    shop.watch(12, 18, lambda _: (600, 400))

    assert len(shop.people) == 1
    # Not when the track began, which was outside.
    assert [start_s for _, start_s, _ in shop.visits()] == [11.5, 11.5]
