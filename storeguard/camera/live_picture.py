"""A camera's picture for people who watch it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class LivePicture:
    """One picture of a camera, encoded.

    Attributes:
        jpeg: the picture.
        captured_at: its capture time, aware UTC.
    """

    jpeg: bytes
    captured_at: datetime


@dataclass(frozen=True, slots=True)
class PictureQuery:
    """Which picture of a camera is requested.

    Attributes:
        overlay: whether boxes, zones and names are drawn on it.
        after: capture time of the picture that the viewer has, aware UTC; None has none.
        step_s: seconds that the next picture is to be newer than that.
        wait_s: seconds to wait for such a picture.
    """

    overlay: bool = True
    after: datetime | None = None
    step_s: float = 0.0
    wait_s: float = 0.0

    def admits(self, captured_at: datetime) -> bool:
        """Whether a picture of this capture time is due.

        One that is older than the viewer's is due too: the camera's clock was set back.
        """
        if self.after is None:
            return True
        newer_s = (captured_at - self.after) / timedelta(seconds=1)
        return newer_s < 0 or newer_s >= max(self.step_s, 1e-6)
