"""Following people from frame to frame, by geometry alone and in seconds of capture time.

A frame is handled in four steps:

1. every track is predicted to the frame's capture time (`storeguard.tracking.motion`);
2. confident detections are matched to confirmed tracks, then unsure ones (which may only continue
   a track) to confirmed tracks still without one, then the confident ones that remain to tracks
   seen only once (the two-stage idea of ByteTrack, Zhang et al., ECCV 2022);
3. matched tracks are corrected, unmatched ones wait for `max_lost_s` and may be re-linked;
4. confident detections that remain start tracks, unless they repeat a box that was just matched.

A match costs the negative log-likelihood of the detection under the track's prediction, and must
be likelier than that the detection is another person. So the gate needs no tuning for the frame
rate: with a longer gap the prediction spreads and reaches further, and a detection far from all
tracks stays a new person. A gap needs no special update at its end: the filter is exact for any dt.

Silence of the camera is not absence of the person. Lifetimes run in observed time: two frames
further apart than a second count as one second. Nobody was seen to leave in the rest of such a gap,
so the spread that it adds to a prediction does not count against a match: a frame after it reaches
as many standard deviations as it would have without it.

Boxes are kept as fractions of the frame, so a camera may change its resolution: heights in frame
heights, widths in the same unit by the proportions of the scene's first frame.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from storeguard.config.models import TrackerSettings
from storeguard.config.zones import MAX_GAP_S
from storeguard.detection.detections import Detections
from storeguard.detection.nms import iou_matrix
from storeguard.errors import CheckpointError
from storeguard.tracking.motion import (
    Float64,
    MotionModel,
    MotionState,
    size_of,
    to_measurement,
)
from storeguard.tracking.tracks import Tracks

CHECKPOINT_VERSION = 2
MAX_COORDINATE_PX = 1e6
"""A box that reaches further is no box of any camera."""
MIN_SIDE_PX = 0.5
_MAX_STEP_S = 1.0
"""What lies further apart than this between two frames is silence of the camera."""

Rows = NDArray[np.int64]


@dataclass(slots=True)
class _Book:
    """Each track's id, times and state, without its motion: parallel (n,) arrays.

    `born_s` and `seen_s` (first and last seen) are on the tracker's own clock (see `Tracker.step`).
    `seen_s` moves on through silence of the camera, so that unseen time is observed time.
    `allowance` is what silence since `seen_s` adds to the gate.
    """

    track_id: NDArray[np.int64]
    born_s: Float64
    seen_s: Float64
    confirmed: NDArray[np.bool_]
    allowance: Float64

    @classmethod
    def empty(cls) -> _Book:
        return cls(
            np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_), np.zeros(0)
        )

    def rows(self, keep: NDArray[np.bool_]) -> _Book:
        return _Book(*(getattr(self, f.name)[keep] for f in fields(self)))

    def joined(self, other: _Book) -> _Book:
        return _Book(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )


class Tracker:
    """Gives the people of one camera lasting ids. One instance a camera; not thread-safe.

    Args:
        settings: how people are tracked.
        max_gap_s: initial value of the attribute.

    Attributes:
        max_gap_s: seconds between two frames that tracks survive, however short `max_lost_s` is;
            what the camera's rules promise (`storeguard.config.zones.longest_gap_s`).
        ignored_boxes: boxes ignored so far because they were not finite or had no area.
    """

    def __init__(self, settings: TrackerSettings, *, max_gap_s: float = MAX_GAP_S) -> None:
        self._settings = settings
        self.max_gap_s = max_gap_s
        self._model = MotionModel(speed=settings.speed, memory_s=settings.memory_s)
        self.ignored_boxes = 0
        self._next_id = 1
        self._time_s: float | None = None
        self._now_s = 0.0
        self._aspect: float | None = None
        self._motion = MotionState.empty()
        self._book = _Book.empty()

    def reset(self) -> None:
        """End all tracks (a scene cut). Ids are never used again."""
        self._time_s = None
        self._now_s = 0.0
        self._aspect = None
        self._motion = MotionState.empty()
        self._book = _Book.empty()

    def step(self, detections: Detections, time_s: float, *, wh: tuple[int, int]) -> Tracks:
        """Track one frame; returns the confirmed people who were detected in it.

        Args:
            detections: people only, boxes in pixels of the source frame. Boxes that are not finite
                or have no area, and boxes without a finite score, are ignored and counted.
            time_s: capture time in seconds on any clock. The same time may come twice.
                A step back by no more than `max_lost_s` counts as no time passed, and time
                continues from there. A step back further, or a gap longer than both `max_lost_s`
                and `max_gap_s`, ends all tracks as `reset` does.
            wh: width and height of the source frame in pixels; may differ from frame to frame.

        Raises:
            ValueError: `time_s` is not finite, or `wh` is not positive.
        """
        if min(wh) < 1:
            raise ValueError(f"wh: expected a frame of at least 1x1 pixels, got {wh}")
        first = self._pass_time(time_s)
        people = self._usable(detections)
        measured = to_measurement(people.xyxy / self._unit_px(wh))
        score = np.clip(people.score.astype(np.float64), 0.0, 1.0)
        sure = np.flatnonzero(score >= self._settings.high_score)
        unsure = np.flatnonzero(
            (score >= self._settings.low_score) & (score < self._settings.high_score)
        )
        confirmed = np.flatnonzero(self._book.confirmed)
        tentative = np.flatnonzero(~self._book.confirmed)

        matched = np.full(len(score), -1, np.int64)  # detection -> track row
        confirmed, sure = self._match(confirmed, sure, measured, score, matched)
        confirmed, _ = self._match(confirmed, unsure, measured, score, matched)
        tentative, sure = self._match(tentative, sure, measured, score, matched)

        seen = np.flatnonzero(matched >= 0)
        self._motion.correct(matched[seen], measured[seen], score[seen], self._model)
        self._book.seen_s[matched[seen]] = self._now_s
        self._book.confirmed[matched[seen]] = True
        self._book.allowance[matched[seen]] = 0.0
        fresh = self._fresh(sure, seen, people)
        matched[fresh] = len(self._motion) + np.arange(len(fresh))
        self._start(measured[fresh], score[fresh], confirmed=first)

        reported = seen if not first else fresh
        tracks = Tracks(
            track_id=self._book.track_id[matched[reported]],
            xyxy=people.xyxy[reported],
            score=score[reported].astype(np.float32),
            age_s=self._now_s - self._book.born_s[matched[reported]],
        )
        self._end_lost()
        return tracks

    # ----------------------------------------------------------------------- steps

    def _pass_time(self, time_s: float) -> bool:
        """Move to `time_s`; True where this frame starts a scene."""
        if not math.isfinite(time_s):
            raise ValueError(f"time_s: expected finite seconds, got {time_s}")
        passed = 0.0 if self._time_s is None else time_s - self._time_s
        max_lost_s = self._settings.max_lost_s
        if -passed > max_lost_s or passed > max(max_lost_s, self.max_gap_s):
            self.reset()
        first = self._time_s is None
        self._time_s = float(time_s)
        dt_s = max(passed, 0.0) if not first else 0.0
        observed_s = min(dt_s, _MAX_STEP_S, max_lost_s)
        self._now_s += dt_s
        self._motion.advance(observed_s, self._model)
        if dt_s > observed_s:
            self._pass_silence(dt_s - observed_s)
        return first

    def _pass_silence(self, silence_s: float) -> None:
        before = self._motion.var_p[:, :2].prod(axis=1)
        self._motion.advance(silence_s, self._model)
        self._book.seen_s += silence_s
        self._book.allowance += np.log(self._motion.var_p[:, :2].prod(axis=1) / before)

    def _unit_px(self, wh: tuple[int, int]) -> Float64:
        """(4,) pixels of this frame that a box's x1, y1, x2, y2 are counted in."""
        width, height = wh
        if self._aspect is None:
            self._aspect = width / height
        return np.array([width / self._aspect, height] * 2)

    def _usable(self, detections: Detections) -> Detections:
        """Detections with finite numbers and an area; the others are counted."""
        good = np.isfinite(detections.xyxy).all(axis=1) & np.isfinite(detections.score)
        good &= (np.abs(detections.xyxy) < MAX_COORDINATE_PX).all(axis=1)
        boxes = detections.xyxy[good]
        good[good] = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX).all(axis=1)
        self.ignored_boxes += int(len(good) - good.sum())
        return detections[good]

    def _match(
        self, rows: Rows, picks: Rows, measured: Float64, score: Float64, matched: Rows
    ) -> tuple[Rows, Rows]:
        """Assign detections `picks` to tracks `rows`, in `matched`; returns both' unmatched."""
        if len(rows) == 0 or len(picks) == 0:
            return rows, picks
        gate = self._settings.gate + self._book.allowance[rows, None]
        gain = gate - self._cost(rows, measured[picks], score[picks])
        # Pairs outside the gate are worth nothing, so the best assignment may leave them out.
        row, col = linear_sum_assignment(np.maximum(gain, 0.0), maximize=True)
        good = gain[row, col] > 0
        row, col = row[good], col[good]
        matched[picks[col]] = rows[row]
        return np.delete(rows, row), np.delete(picks, col)

    def _cost(self, rows: Rows, measured: Float64, score: Float64) -> Float64:
        """(tracks, detections) minus twice the log-likelihood, lengths in box sizes."""
        position = self._motion.position[rows]
        size = size_of(position)
        scale = np.ones((len(rows), 4))
        scale[:, :2] = size[:, None]
        noise = self._model.measurement_variance(np.ones(len(score)), score)
        variance = (self._motion.var_p[rows] / scale**2)[:, None] + noise[None]
        apart = (measured[None] - position[:, None]) / scale[:, None]
        squares = apart**2 / variance
        shape = squares[..., 2] + squares[..., 3]
        return np.asarray(
            squares[..., 0]
            + squares[..., 1]
            + np.log(variance[..., 0] * variance[..., 1])
            # Partly hidden people change shape at once: past a point it is no further evidence.
            + self._settings.shape_limit * (1 - np.exp(-shape / self._settings.shape_limit))
        )

    def _fresh(self, sure: Rows, seen: Rows, people: Detections) -> Rows:
        """The detections that start tracks: not a second box around a person just matched."""
        if len(sure) == 0 or len(seen) == 0:
            return sure
        repeats = iou_matrix(people.xyxy[sure], people.xyxy[seen]).max(axis=1)
        return np.asarray(sure[repeats < self._settings.duplicate_iou])

    def _start(self, measured: Float64, score: Float64, *, confirmed: bool) -> None:
        n = len(score)
        if n == 0:
            return
        self._motion = self._motion.joined(MotionState.first_seen(measured, score, self._model))
        self._book = self._book.joined(
            _Book(
                track_id=np.arange(self._next_id, self._next_id + n, dtype=np.int64),
                born_s=np.full(n, self._now_s),
                seen_s=np.full(n, self._now_s),
                confirmed=np.full(n, confirmed),
                allowance=np.zeros(n),
            )
        )
        self._next_id += n

    def _end_lost(self) -> None:
        unseen_s = self._now_s - self._book.seen_s  # observed seconds
        limit_s = np.where(
            self._book.confirmed, self._settings.max_lost_s, self._settings.confirm_s
        )
        # A track seen once is kept until the next frame, however late that comes.
        keep = unseen_s <= limit_s
        if not keep.all():
            self._motion = self._motion.rows(keep)
            self._book = self._book.rows(keep)

    # ----------------------------------------------------------------------- checkpoints

    def checkpoint(self) -> bytes:
        """The complete state as JSON; what follows `restore` is byte-identical."""
        state: dict[str, Any] = {
            "version": CHECKPOINT_VERSION,
            "next_id": self._next_id,
            "time_s": self._time_s,
            "now_s": self._now_s,
            "aspect": self._aspect,
            "ignored_boxes": self.ignored_boxes,
            "motion": {f.name: getattr(self._motion, f.name).tolist() for f in fields(MotionState)},
            "book": {f.name: getattr(self._book, f.name).tolist() for f in fields(_Book)},
        }
        return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()

    def restore(self, blob: bytes) -> None:
        """Restore the state that `checkpoint` wrote; on an error nothing is changed.

        Raises:
            CheckpointError: the bytes are no tracker checkpoint, or of another version.
        """
        try:
            state = json.loads(blob)
            version = state["version"]
            time_s = None if state["time_s"] is None else float(state["time_s"])
            aspect = None if state["aspect"] is None else float(state["aspect"])
            now_s, next_id = float(state["now_s"]), int(state["next_id"])
            ignored = int(state["ignored_boxes"])
            motion = MotionState(
                *(
                    np.asarray(state["motion"][f.name], np.float64).reshape(-1, 4)
                    for f in fields(MotionState)
                )
            )
            book = _Book(
                track_id=np.asarray(state["book"]["track_id"], np.int64),
                born_s=np.asarray(state["book"]["born_s"], np.float64),
                seen_s=np.asarray(state["book"]["seen_s"], np.float64),
                confirmed=np.asarray(state["book"]["confirmed"], np.bool_),
                allowance=np.asarray(
                    # Checkpoints from before allowances have none.
                    state["book"].get("allowance", [0.0] * len(state["book"]["track_id"])),
                    np.float64,
                ),
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"tracker checkpoint: unreadable: {error!r}") from error
        if version != CHECKPOINT_VERSION:
            raise CheckpointError(
                f"tracker checkpoint: expected version {CHECKPOINT_VERSION}, found {version!r}"
            )
        if aspect is not None and not 0 < aspect < math.inf:
            raise CheckpointError(f"tracker checkpoint: expected a positive aspect, found {aspect}")
        _check(motion, book, next_id, now_s, time_s or 0.0)
        self._next_id, self._time_s, self._now_s = next_id, time_s, now_s
        self._aspect = aspect
        self.ignored_boxes, self._motion, self._book = ignored, motion, book


def _check(motion: MotionState, book: _Book, next_id: int, now_s: float, time_s: float) -> None:
    arrays = [getattr(part, f.name) for part in (motion, book) for f in fields(part)]
    lengths = sorted({len(array) for array in arrays})
    if len(lengths) != 1 or any(
        column.ndim != 1 for column in (book.born_s, book.seen_s, book.allowance)
    ):
        raise CheckpointError(f"tracker checkpoint: expected arrays of one length, found {lengths}")
    if not all(np.isfinite(array).all() for array in (*arrays, now_s, time_s)):
        raise CheckpointError("tracker checkpoint: expected finite numbers")
    if not ((motion.var_p > 0).all() and (motion.var_v > 0).all()):
        raise CheckpointError("tracker checkpoint: expected positive variances")
    ids = book.track_id
    if len(np.unique(ids)) != len(ids) or (len(ids) and not 1 <= ids.min() <= ids.max() < next_id):
        raise CheckpointError(
            f"tracker checkpoint: expected unique ids in 1..{next_id - 1}, found {ids.tolist()}"
        )
