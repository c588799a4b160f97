"""What `storeguard process` writes frame by frame: events, tracks, the overlay video."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import av

from storeguard.errors import RecordingError, StorageError
from storeguard.events.event import Event
from storeguard.tracking.mot import lines_of
from storeguard.tracking.tracks import Tracks
from storeguard.video.frame import Frame, Rgb


@dataclass(frozen=True, slots=True)
class ProcessOutputs:
    """Files to write; None leaves one out."""

    events: Path | None = None
    tracks: Path | None = None
    video: Path | None = None
    metrics: Path | None = None


class OutputFiles:
    """The files that are written frame by frame, closed together.

    Raises:
        StorageError: the events or tracks cannot be written.
        RecordingError: the overlay video cannot be written.
    """

    def __init__(self, outputs: ProcessOutputs) -> None:
        self._outputs = outputs
        self._stack = ExitStack()
        self._events = self._text(outputs.events)
        self._tracks = self._text(outputs.tracks)
        self._video: _OverlayVideo | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def wants_video(self) -> bool:
        """Whether an overlay video is requested."""
        return self._outputs.video is not None

    def event(self, event: Event) -> None:
        """Write one event, a JSON line."""
        if self._events is not None:
            self._events.write(event.model_dump_json() + "\n")

    def tracks(self, frame_number: int, tracks: Tracks) -> None:
        """Write one frame's people as MOTChallenge rows; frames are counted from 1."""
        if self._tracks is not None:
            self._tracks.writelines(f"{line}\n" for line in lines_of(frame_number, tracks))

    def frame(self, frame: Frame, rgb: Rgb) -> None:
        """Write one overlay picture, (height, width, 3) uint8 RGB, at its frame's time."""
        if self._outputs.video is None:
            return
        if self._video is None:
            self._video = _OverlayVideo(self._outputs.video, frame.wh)
            self._stack.callback(self._video.close)
        self._video.add(rgb, frame.time_s)

    def _text(self, path: Path | None) -> TextIO | None:
        if path is None:
            return None
        try:
            return self._stack.enter_context(path.open("w", encoding="utf-8"))
        except OSError as error:
            raise StorageError(f"{path}: cannot write: {error.strerror}") from None


class _OverlayVideo:
    """An H.264 file whose frames keep the times of the source."""

    _TICKS_PER_S = 90_000

    def __init__(self, path: Path, wh: tuple[int, int]) -> None:
        # 4:2:0 colour needs even sides.
        self._wh = wh[0] - wh[0] % 2, wh[1] - wh[1] % 2
        try:
            # FFmpeg takes a name such as 09:00.mp4 for an address, but not an absolute path.
            self._container = av.open(str(path.absolute()), "w")
            self._stream = self._container.add_stream("libx264", rate=30)
            self._stream.width, self._stream.height = self._wh
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"preset": "veryfast", "crf": "23"}
            self._stream.codec_context.time_base = Fraction(1, self._TICKS_PER_S)
            self._container.start_encoding()  # opens the file
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RecordingError(f"{path}: cannot write the overlay video: {reason}") from None

    def add(self, rgb: Rgb, time_s: float) -> None:
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        picture = picture.reformat(width=self._wh[0], height=self._wh[1], format="yuv420p")
        picture.pts = round(time_s * self._TICKS_PER_S)
        picture.time_base = Fraction(1, self._TICKS_PER_S)
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
