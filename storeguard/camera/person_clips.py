"""Clips of people with an open event: pictures and boxes kept for seconds, and clips cut from them.

Pictures are kept at the classifier's own rate from all decoded frames, not from those that went to
the detector: a camera with `detect_fps` 2 still has eight pictures a second here.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from storeguard.camera.sampler import Sampler
from storeguard.classification.clips.classifier import ClassifierInfo
from storeguard.classification.clips.clip import (
    CLIP_FPS,
    Clip,
    boxes_at,
    clip_times,
    nearest_frames,
    person_clip,
    stays,
)
from storeguard.config.store import CameraConfig, Pace
from storeguard.config.zones import CLIP_S
from storeguard.events.event import ModelRef
from storeguard.rules.observation import ClipScore, Observation
from storeguard.rules.verdict import Verdict
from storeguard.video.display import SQUARE
from storeguard.video.frame import Frame

_KEPT_S: Final = CLIP_S + 2.0  # a frame's detections come later than the frame
_MAX_SIDE_PX: Final = 960
_MAX_PICTURES: Final = round(_KEPT_S * CLIP_FPS) + 8
_MAX_PICTURES_AHEAD: Final = 160  # files at full pace are decoded seconds ahead of the detector


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """A clip that is due; `cut` makes it.

    Attributes:
        person_id: the person.
        captured_at: capture time of its last picture.
        frames: the frames nearest to its moments, oldest first.
        boxes: (CLIP_FRAMES, 4) the person's boxes in them, xyxy as fractions 0..1.
    """

    person_id: str
    captured_at: datetime
    frames: tuple[Frame, ...]
    boxes: NDArray[np.float32]

    def cut(self) -> Clip:
        """The clip, cut out of pictures without any overlay."""
        rgb = {frame.index: frame.rgb() for frame in self.frames}
        width, height = self.frames[0].wh
        scale = np.array([width, height, width, height], dtype=np.float32)
        return person_clip([rgb[frame.index] for frame in self.frames], self.boxes * scale)

    def scored(self, probability: float, by: ClassifierInfo) -> ClipScore:
        """The classifier's score of it, for the rules."""
        return ClipScore(
            person_id=self.person_id,
            captured_at=self.captured_at,
            score=probability,
            threshold=by.threshold,
            model=ModelRef(name=by.name, sha256=by.sha256),
        )


@dataclass(slots=True)
class _Trail:
    """Where one person was: stream time and box (xyxy as fractions 0..1), oldest first."""

    seen: deque[tuple[float, NDArray[np.float32]]]
    requested_s: float = -np.inf  # stream time of the last clip


class PersonClips:
    """Keeps the pictures and boxes that clips are cut from, and knows which clips are due.

    `offer` is called by the thread that decodes, everything else by one other thread.

    Args:
        camera: its zones and rules.
    """

    def __init__(self, camera: CameraConfig) -> None:
        self._lock = threading.Lock()  # guards pictures and sampler
        self._sampler = Sampler(CLIP_FPS)
        fast = camera.pace is Pace.FAST
        self._pictures: deque[Frame] = deque(maxlen=_MAX_PICTURES_AHEAD if fast else _MAX_PICTURES)
        self._scaler = VideoReformatter()
        self._trails: dict[str, _Trail] = {}
        self._gated: dict[str, float] = {}  # person to cls_every_s
        self._now_s: float | None = None
        self._camera = camera

    def reconfigure(self, camera: CameraConfig) -> None:
        """Use other zones and rules."""
        self._camera = camera
        if not camera.classifies:
            with self._lock:
                self._pictures.clear()
            self._trails.clear()
            self._gated.clear()

    def offer(self, frame: Frame) -> None:
        """Keep a decoded frame if it is due, scaled down if it is large."""
        if not self._camera.classifies:
            return
        with self._lock:
            if self._sampler.picks(frame.time_s, scene_cut=frame.scene_cut):
                self._pictures.append(self._shrunk(frame))

    def seen(self, frame: Frame, observation: Observation) -> None:
        """Add the people in a processed frame."""
        if not self._camera.classifies:
            return
        if frame.scene_cut:
            self._trails.clear()
        self._now_s = frame.time_s
        # Not by the time of decoded frames, which may be far ahead.
        self._forget_pictures(frame.time_s if frame.scene_cut else frame.time_s - _KEPT_S)
        for person_id, box in zip(observation.person_id, observation.xyxy, strict=True):
            trail = self._trails.setdefault(person_id, _Trail(deque(maxlen=512)))
            trail.seen.append((frame.time_s, box))
        oldest_s = frame.time_s - _KEPT_S
        for person_id in list(self._trails):
            seen = self._trails[person_id].seen
            while seen and seen[0][0] < oldest_s:
                seen.popleft()
            if not seen:
                del self._trails[person_id]

    def judged(self, verdict: Verdict) -> None:
        """Note the people whose open events call for clips."""
        rules = {zone.id: zone.shoplifting for zone in self._camera.zones if zone.shoplifting}
        gated: dict[str, float] = {}
        for event in verdict.open_events:
            rule = rules.get(event.zone_id or "")
            if rule is None or event.person_id is None or event.type.value not in rule.during:
                continue
            every_s = min(rule.cls_every_s, gated.get(event.person_id, rule.cls_every_s))
            gated[event.person_id] = every_s
        self._gated = gated

    def due(self) -> list[ClipRequest]:
        """The clips to be classified now; each is returned once."""
        now_s = self._now_s
        if now_s is None or not self._gated:
            return []
        requests = []
        for person_id, every_s in self._gated.items():
            trail = self._trails.get(person_id)
            if trail is None or trail.seen[-1][0] != now_s:
                continue  # not in the latest frame
            if now_s - trail.requested_s < every_s - 1e-3:
                continue
            request = self._request(person_id, now_s)
            if request is not None:
                trail.requested_s = now_s
                requests.append(request)
        return requests

    def pictures(self) -> tuple[Frame, ...]:
        """The pictures kept now, oldest first."""
        with self._lock:
            return tuple(self._pictures)

    def people(self) -> frozenset[str]:
        """Ids of the people whose boxes are kept now."""
        return frozenset(self._trails)

    def _request(self, person_id: str, now_s: float) -> ClipRequest | None:
        pictures = [one for one in self.pictures() if one.time_s <= now_s]
        seen = self._trails[person_id].seen
        if not pictures:
            return None
        # It ends with a kept picture: between two, some would be used twice, others never.
        clip_s = clip_times(pictures[-1].time_s)
        seen_s = np.array([at for at, _ in seen])
        if stays(seen_s)[-1][0] > clip_s[0]:
            return None  # the person was not in view all the time
        chosen = nearest_frames(np.array([one.time_s for one in pictures]), clip_s)
        if chosen is None or len({pictures[i].wh for i in chosen}) > 1:
            return None  # a gap, or the camera has changed its resolution
        boxes = boxes_at(
            seen_s,
            np.stack([box for _, box in seen]),
            np.array([pictures[i].time_s for i in chosen]),
        )
        frames = tuple(pictures[i] for i in chosen)
        return ClipRequest(person_id, frames[-1].captured_at, frames, boxes)

    def _forget_pictures(self, before_s: float) -> None:
        with self._lock:
            while self._pictures and self._pictures[0].time_s < before_s:
                self._pictures.popleft()

    def _shrunk(self, frame: Frame) -> Frame:
        scale = _MAX_SIDE_PX / max(frame.wh)
        if scale >= 1:
            return frame
        width, height = frame.display.laid_wh(frame.wh)
        picture = self._scaler.reformat(
            frame.picture,
            width=round(width * scale / 2) * 2,
            height=round(height * scale / 2) * 2,
            interpolation="AREA",
            threads=1,
        )
        square = replace(frame.display, pixel_aspect=SQUARE)
        return replace(frame, picture=picture, display=square)
