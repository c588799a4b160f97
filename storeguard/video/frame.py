"""One decoded frame and when it was captured."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from storeguard.video.display import Display

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded picture, still in the decoder's pixel format; converted only on request.

    Sizes and pixels are those of the picture as it is shown: upright, with square pixels.

    Attributes:
        camera_id: the camera's id in the configuration.
        index: counts decoded frames of this camera, 0, 1, 2, ...; gaps never occur here.
        captured_at: aware UTC capture time: PTS through the connection's clock anchor.
        time_s: seconds of stream time since the camera's first frame; strictly increasing.
        picture: the decoder's frame, as it is stored. Read only: the decoder may still refer to
            it.
        scene_cut: True on the first frame after a file started over: the people before it are not
            the people after it.
        decode_ms: milliseconds spent decoding this frame.
        received_s: `time.monotonic()` when its packet was read; for ages and latencies.
        display: how the stored picture is shown.
    """

    camera_id: str
    index: int
    captured_at: datetime
    time_s: float
    picture: av.VideoFrame
    scene_cut: bool
    decode_ms: float
    received_s: float
    display: Display = field(default_factory=Display)

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height in pixels, as shown."""
        return self.display.shown_wh((self.picture.width, self.picture.height))

    def rgb(self, wh: tuple[int, int] | None = None) -> Rgb:
        """(height, width, 3) uint8 RGB as shown, a fresh array; scaled to `wh` if given."""
        width, height = self.display.laid_wh(wh or self.wh)
        shrinks = width < self.picture.width and height < self.picture.height
        scaled = _scaler(self.picture, (width, height)).reformat(
            self.picture,
            width=width,
            height=height,
            format="rgb24",
            # Averaging over areas keeps small people; bilinear would skip pixels.
            interpolation="AREA" if shrinks else "BILINEAR",
            threads=1,
        )
        stored = scaled.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(self.display.upright(stored))


_MAX_SCALERS = 16
_scalers = threading.local()


def _scaler(picture: av.VideoFrame, wh: tuple[int, int]) -> VideoReformatter:
    """This thread's scaler for this pair of formats: setting one up costs as much as scaling."""
    known: OrderedDict[object, VideoReformatter] = _scalers.__dict__.setdefault(
        "known", OrderedDict()
    )
    key = (picture.width, picture.height, picture.format.name, wh)
    scaler = known.pop(key, None) or VideoReformatter()
    known[key] = scaler
    if len(known) > _MAX_SCALERS:
        known.popitem(last=False)
    return scaler
