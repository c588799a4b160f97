"""Which people's clips are due, and what is in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from storeguard.camera.feeds import FRAMES_A_CALL, feed_of
from storeguard.camera.overlay import annotations_of, draw
from storeguard.camera.person_clips import ClipRequest, PersonClips
from storeguard.camera.pipeline import observe
from storeguard.classification.clips.clip import CLIP_FRAMES
from storeguard.config.models import DetectorSettings, TrackerSettings
from storeguard.config.store import CameraConfig, Pace
from storeguard.engines.loading import load_detector
from storeguard.events.event import EventType
from storeguard.rules.observation import Observation
from storeguard.rules.ongoing import OpenEvent
from storeguard.rules.verdict import Verdict
from storeguard.tracking.tracker import Tracker
from storeguard.training.clips.data import ClipVideo, VideoCache
from storeguard.video.frame import Frame
from storeguard.video.reader import read_frames
from tests.waiting import EVERYWHERE

START = datetime(2026, 1, 1, 9, tzinfo=UTC)
BOX = (0.4, 0.3, 0.6, 0.7)


def camera(
    rule: Mapping[str, Any] | None = None, *, source: str = "made up", **more: Any
) -> CameraConfig:
    """Two zones; in `shelf` is the rule, in `door` there is none."""
    others = [{"type": "intrusion"}, {"type": "loitering"}]
    classified = [] if rule is None else [{"type": "shoplifting_suspected", **rule}]
    return CameraConfig.model_validate(
        {
            "id": "cam",
            "source": source,
            "zones": [
                {"id": "shelf", "polygon": EVERYWHERE, "rules": others + classified},
                {"id": "door", "polygon": EVERYWHERE, "rules": others},
            ],
            **more,
        }
    )


def opened(person_id: str | None, kind: str = "intrusion", zone_id: str = "shelf") -> OpenEvent:
    return OpenEvent(f"{person_id}-{kind}-{zone_id}", EventType(kind), zone_id, person_id)


class Stage:
    """A camera's frames and people, one after the other, at 25 fps of stream time."""

    def __init__(
        self,
        rule: Mapping[str, Any] | None = None,
        wh: tuple[int, int] = (64, 48),
        **more: Any,
    ) -> None:
        self.clips = PersonClips(camera({} if rule is None else rule, **more))
        self.wh = wh
        self.now_s = 0.0
        self._index = 0

    def frame(self, *, scene_cut: bool = False) -> Frame:
        """The next frame; its grey level is its number."""
        grey = np.full((self.wh[1], self.wh[0], 3), self._index % 200, np.uint8)
        self.now_s = self._index / 25
        self._index += 1
        return Frame(
            camera_id="cam",
            index=self._index - 1,
            captured_at=START + timedelta(seconds=self.now_s),
            time_s=self.now_s,
            picture=av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p"),
            scene_cut=scene_cut,
            decode_ms=0.0,
            received_s=0.0,
        )

    def seen(self, frame: Frame, people: Iterable[str]) -> None:
        names = tuple(people)
        self.clips.seen(
            frame,
            Observation(
                camera_id="cam",
                epoch="a",
                seq=frame.index,
                captured_at=frame.captured_at,
                person_id=names,
                xyxy=np.tile(np.array(BOX, np.float32), (len(names), 1)),
                score=np.full(len(names), 0.9, np.float32),
            ),
        )

    def judged(self, *events: OpenEvent) -> None:
        self.clips.judged(Verdict("cam", open_events=events))

    def play(
        self,
        seconds: float,
        *people: str,
        detect_every: int = 5,
        cut: bool = False,
        drop: range = range(0),
    ) -> list[tuple[float, str]]:
        """Frames of these people; those in `drop` are decoded and go no further.

        Returns:
            The clips that came due: time and person id.
        """
        due = []
        for number in range(round(seconds * 25)):
            frame = self.frame(scene_cut=cut and number == 0)
            self.clips.offer(frame)
            if number % detect_every or number in drop:
                continue
            self.seen(frame, people)
            due += [(self.now_s, request.person_id) for request in self.clips.due()]
        return due


# ---------------------------------------------------------------------- the gate


@pytest.mark.parametrize(
    ("events", "rule", "whose"),
    [
        ([opened("a")], {}, {"a"}),
        ([opened("a", "loitering")], {}, {"a"}),
        ([opened("a"), opened("b")], {}, {"a", "b"}),
        ([opened("a"), opened("a", "loitering")], {}, {"a"}),
        ([], {}, set()),  # nothing is going on
        ([opened("a", zone_id="door")], {}, set()),  # the rule is in another zone
        ([opened("a", "occupancy")], {}, set()),
        ([opened("a", "shoplifting_suspected")], {}, set()),  # it does not go by itself
        ([opened(None)], {}, set()),
        ([opened("c")], {}, set()),  # whose event is kept open, and who is not seen
        ([opened("a"), opened("b", "loitering")], {"during": ["loitering"]}, {"b"}),
        ([opened("a")], None, set()),  # no such rule at all
    ],
)
def test_only_people_with_an_open_event_get_clips(
    events: list[OpenEvent], rule: dict[str, Any] | None, whose: set[str]
) -> None:
    stage = Stage()
    if rule is None:
        stage.clips = PersonClips(camera())
    else:
        stage.clips = PersonClips(camera(rule))
    stage.judged(*events)
    assert {person for _, person in stage.play(4, "a", "b")} == whose


def test_the_gate_closes_with_the_event() -> None:
    stage = Stage()
    stage.judged(opened("a"))
    assert stage.play(4, "a")
    stage.judged()
    assert stage.play(4, "a") == []


# ---------------------------------------------------------------------- how often


@pytest.mark.parametrize("every_s", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("detect_every", [1, 5, 10], ids=["all", "five a second", "every 0.4 s"])
def test_clips_come_every_cls_every_s_of_capture_time(every_s: float, detect_every: int) -> None:
    stage = Stage({"cls_every_s": every_s})
    stage.judged(opened("a"))
    at = [when for when, _ in stage.play(10, "a", detect_every=detect_every)]
    assert at[0] == pytest.approx(2.0, abs=0.13)  # first a whole clip has to be there
    step_s = max(every_s, np.ceil(every_s / (detect_every / 25) - 1e-6) * detect_every / 25)
    assert np.diff(at) == pytest.approx(step_s)


def test_dropped_frames_delay_a_clip_and_do_not_multiply_it() -> None:
    stage = Stage({"cls_every_s": 1.0})
    stage.judged(opened("a"))
    # 2.6 s to 3.4 s never reach the detector: the clip due at 3 s comes with the next frame
    at = [when for when, _ in stage.play(6, "a", drop=range(65, 85))]
    assert at == pytest.approx([2.0, 3.4, 4.4, 5.4])


def test_each_person_has_a_rhythm_of_their_own() -> None:
    stage = Stage({"cls_every_s": 1.0})
    stage.judged(opened("a"), opened("b"))
    stage.play(1, "a")
    due = stage.play(5, "a", "b")
    assert [when for when, who in due if who == "a"] == pytest.approx([2.0, 3.0, 4.0, 5.0])
    assert [when for when, who in due if who == "b"] == pytest.approx([3.0, 4.0, 5.0])


def due_at(detect_fps: float, *, ahead_s: float) -> list[float]:
    """When clips of 20 s come due, with a cut in the middle, decoding being so far ahead."""
    stage = Stage({"cls_every_s": 1.0}, pace="fast", detect_fps=detect_fps)
    stage.judged(opened("a"))
    decoded: deque[Frame] = deque()
    at = []
    for number in range(round((20 + ahead_s) * 25)):
        frame = stage.frame(scene_cut=number == 250)
        stage.clips.offer(frame)
        decoded.append(frame)
        if number < ahead_s * 25:
            continue
        late = decoded.popleft()
        if late.index % round(25 / detect_fps) == 0:
            stage.seen(late, ["a"])
            at += [late.time_s for _ in stage.clips.due()]
    return at


@pytest.mark.parametrize("detect_fps", [1, 2.5, 5, 25])
def test_a_file_that_is_decoded_far_ahead_of_the_detector_gets_as_many_clips(
    detect_fps: float,
) -> None:
    feed = feed_of(camera({}, pace="fast", detect_fps=detect_fps), wake=lambda _: None)
    # under way in the detector, waiting for it, and one that waits in `offer`
    ahead_s = (feed.room() + FRAMES_A_CALL + 1) / detect_fps
    at = due_at(detect_fps, ahead_s=ahead_s)
    assert len(at) >= 14
    assert at == due_at(detect_fps, ahead_s=0.0)


# ---------------------------------------------------------------------- no clip


def test_a_person_who_was_out_of_view_gets_no_clip_until_back_for_one() -> None:
    stage = Stage()
    stage.judged(opened("a"))
    assert stage.play(3, "a")
    assert stage.play(1.6) == []
    back_s = stage.now_s + 0.04
    due = stage.play(4, "a")
    assert due[0][0] >= back_s + 1.875
    assert due[0][0] == pytest.approx(back_s + 2.0, abs=0.21)


def test_a_short_gap_in_the_detections_is_bridged() -> None:
    stage = Stage({"cls_every_s": 0.2})
    stage.judged(opened("a"))
    stage.play(3, "a")
    assert stage.play(0.6) == []  # no clip of a person who is not in the frame
    assert stage.play(0.2, "a")


def test_frames_that_were_never_decoded_leave_no_clip() -> None:
    """Boxes alone would show a person on pictures of another time."""
    stage = Stage()
    stage.judged(opened("a"))
    stage.play(1, "a")
    for _ in range(25):
        stage.frame()
    due = stage.play(5, "a")
    assert due[0][0] == pytest.approx(3.8)  # whose first moment, 1.925 s, is shown as of 2 s


def test_a_scene_cut_ends_all_clips() -> None:
    stage = Stage({"cls_every_s": 0.2})
    stage.judged(opened("a"))
    assert stage.play(3, "a")
    cut_s = stage.now_s + 0.04
    due = stage.play(4, "a", cut=True)
    assert due[0][0] >= cut_s + 1.875


def test_another_resolution_ends_all_clips() -> None:
    stage = Stage({"cls_every_s": 0.2})
    stage.judged(opened("a"))
    assert stage.play(3, "a")
    stage.wh = (96, 72)
    changed_s = stage.now_s + 0.04
    due = stage.play(4, "a")
    assert due[0][0] >= changed_s + 1.75
    assert due[0][0] == pytest.approx(changed_s + 2.0, abs=0.21)


# ---------------------------------------------------------------------- what is kept


def test_what_is_kept_is_bounded_and_at_the_training_rate() -> None:
    stage = Stage()
    people = [f"p{number}" for number in range(50)]
    for name in people:
        stage.play(0.4, name, detect_every=1)
    frames = stage.clips.pictures()
    assert len(frames) <= 40
    times = [frame.time_s for frame in frames]
    assert (times[-1] - times[0]) / (len(times) - 1) == pytest.approx(1 / 8, rel=0.02)
    assert stage.clips.people() == set(people[-11:])


def test_people_from_before_a_cut_are_forgotten() -> None:
    stage = Stage()
    for turn in range(4):
        stage.judged(opened(f"p{turn}"))
        assert stage.play(3, f"p{turn}", cut=True)
    assert stage.clips.people() == {"p3"}


def test_without_such_a_rule_nothing_is_kept() -> None:
    stage = Stage()
    stage.judged(opened("a"))
    stage.play(3, "a")
    assert stage.clips.pictures()
    stage.clips.reconfigure(camera())
    assert stage.clips.pictures() == ()
    assert stage.play(3, "a") == []
    assert stage.clips.pictures() == ()
    stage.clips.reconfigure(camera({}))
    stage.judged(opened("a"))
    assert stage.play(3, "a")


@pytest.mark.parametrize(
    ("wh", "kept_wh"),
    [
        ((640, 272), (640, 272)),
        ((960, 540), (960, 540)),
        ((1920, 1080), (960, 540)),
        ((1080, 1920), (540, 960)),
        ((2560, 1439), (960, 540)),
    ],
)
def test_large_frames_are_kept_small(wh: tuple[int, int], kept_wh: tuple[int, int]) -> None:
    stage = Stage(wh=wh)
    stage.play(0.2, "a")
    assert {frame.wh for frame in stage.clips.pictures()} == {kept_wh}


# ---------------------------------------------------------------------- on real video


class Watched:
    """A video processed as `storeguard process` does it, with the clips of all people."""

    def __init__(self, video: Path, *, rule: Mapping[str, Any], paint: bool = False) -> None:
        self.requests: list[ClipRequest] = []
        self.trails: dict[str, list[float]] = {}
        settings = camera(rule, source=str(video), pace=Pace.FAST, detect_fps=240)
        clips = PersonClips(settings)
        detector, tracker = load_detector(DetectorSettings()), Tracker(TrackerSettings())
        for frame in read_frames(settings, start=START):
            clips.offer(frame)
            found, _ = detector.find(frame)
            tracks = tracker.step(found, frame.time_s, wh=frame.wh)
            observation = observe(
                tracks, frame, camera_id="cam", epoch="0", seq=frame.index, step_s=0.04
            )
            clips.seen(frame, observation)
            for name in observation.person_id:
                self.trails.setdefault(name, []).append(frame.time_s)
            verdict = Verdict(
                "cam", open_events=tuple(opened(name) for name in observation.person_id)
            )
            clips.judged(verdict)
            self.requests += clips.due()
            if paint:
                draw(frame.rgb(), annotations_of(settings, observation, verdict, fps=25.0))


# The man in the car: on the street no person stays in view for the length of a clip.


@pytest.fixture(scope="module")
def followed(cabin: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The man, as training follows him."""
    cache = VideoCache(tmp_path_factory.mktemp("cache"))
    (one,) = cache.open([ClipVideo("cabin", cabin, positive=False, group="a")])
    assert one.has_person
    return one


@pytest.fixture(scope="module")
def watched(cabin: Path) -> Watched:
    return Watched(cabin, rule={"cls_every_s": 0.1}, paint=True)


@pytest.fixture(scope="module")
def theirs(watched: Watched, followed: Any) -> list[ClipRequest]:
    """The clips of the person whom training follows."""
    (name,) = [
        name
        for name, seen_s in watched.trails.items()
        if np.array_equal(np.array(seen_s), followed.seen_s)
    ]
    requests = [one for one in watched.requests if one.person_id == name]
    assert len(requests) >= 3
    return requests


def second(request: ClipRequest) -> float:
    return (request.captured_at - START).total_seconds()


def test_serving_and_training_cut_the_same_clips(theirs: list[ClipRequest], followed: Any) -> None:
    """Of the same pictures, boxes and moments, to the last bit but the boxes' rounding."""
    for request in theirs:
        # Serving keeps pictures at the training rate and training all: they choose from the same.
        numbers = [frame.index for frame in request.frames]
        sampled = replace(
            followed, pictures=followed.pictures[numbers], frame_s=followed.frame_s[numbers]
        )
        differ = np.abs(request.cut().astype(int) - sampled.clip(request.frames[-1].time_s))
        assert differ.mean() < 0.01
        assert differ.max() <= 3


def test_serving_chooses_the_moments_that_training_chooses(
    theirs: list[ClipRequest], followed: Any
) -> None:
    """Within a frame of the camera, and never the same picture twice."""
    for request in theirs:
        assert len({frame.index for frame in request.frames}) == CLIP_FRAMES
        expected_s = request.frames[-1].time_s - np.arange(15, -1, -1) / 8
        off_s = np.array([frame.time_s for frame in request.frames]) - expected_s
        assert np.abs(off_s).max() <= 0.0401
        alike = followed.clip(request.frames[-1].time_s).astype(int)
        assert np.abs(request.cut() - alike).mean() < 12  # of 255: a frame's motion


def test_clips_are_cut_from_clean_pixels_of_their_own_time(watched: Watched, cabin: Path) -> None:
    """The overlay was drawn from the very frames that the clips are cut from."""
    clean = {}
    with av.open(str(cabin)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            # 176x144 stored; shown with square pixels
            clean[index] = picture.to_ndarray(
                width=193, height=144, format="rgb24", interpolation="BILINEAR"
            )
    request = watched.requests[-1]
    for frame in request.frames:
        assert np.abs(frame.rgb().astype(int) - clean[frame.index]).max() <= 2
    assert second(request) == pytest.approx(request.frames[-1].time_s, abs=1e-3)
    assert ((request.boxes >= 0) & (request.boxes <= 1)).all()
