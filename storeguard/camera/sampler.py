"""Picking the frames of a camera that are due, by stream time."""

from __future__ import annotations


class Sampler:
    """Picks frames so that about `fps` of them a second of stream time go on.

    Frames are due on a fixed grid of stream time, so that the rate comes out right whatever the
    camera's own rate is: a camera of 30 fps sampled at 12 gives 12, not 10 or 15. Frames that are
    not picked are counted as `sampled_out`; they were not due, so they are no losses.

    Args:
        fps: frames a second to pick; at or above the camera's own rate all are picked.
    """

    def __init__(self, fps: float) -> None:
        self._step_s = 1.0 / fps
        self._due_s: float | None = None
        self.num_picked = 0
        self.sampled_out = 0

    def picks(self, time_s: float, *, scene_cut: bool = False) -> bool:
        """Whether to pick the frame at `time_s` seconds of stream time.

        Args:
            time_s: `Frame.time_s`; must not decrease.
            scene_cut: the first frame of another scene is always picked.
        """
        # Half a millisecond of grace: timestamps are rounded, and 10 of 10 fps must be all.
        if self._due_s is not None and time_s < self._due_s - 0.0005 and not scene_cut:
            self.sampled_out += 1
            return False
        if self._due_s is None or scene_cut or time_s >= self._due_s + self._step_s:
            self._due_s = time_s + self._step_s  # first frame, new scene or gap: a new grid
        else:
            self._due_s += self._step_s
        self.num_picked += 1
        return True
