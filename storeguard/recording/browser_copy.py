"""A copy of a clip that every browser plays: H.264 and AAC in an MP4 file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.filter import Graph

from storeguard.errors import RecordingError
from storeguard.storage.objects import Reader

_LONGEST_PX: Final = 1920
_TIME_BASE: Final = Fraction(1, 90_000)
_OPTIONS: Final = {"preset": "veryfast", "crf": "23"}
_QUARTER_TURNS: Final = {90: "transpose=cclock", 180: "hflip,vflip", 270: "transpose=clock"}


def write_browser_copy(source: Reader, path: Path, *, name: str) -> None:
    """Convert a video file; pictures are upright, at most 1920 pixels long, times are kept.

    Args:
        source: the file, read from where it stands.
        path: of the copy; the index comes first, so that it plays while it loads.
        name: of the source, for errors.

    Raises:
        RecordingError: it holds no picture that can be decoded, or the copy cannot be written.
    """
    try:
        with (
            av.open(source, "r") as given,
            av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out,
        ):
            num_pictures = _Copy(given, out).run()
    except (av.FFmpegError, ValueError, OSError) as error:
        raise RecordingError(f"{name}: cannot be converted to H.264: {error}") from error
    if num_pictures == 0:
        raise RecordingError(f"{name}: cannot be converted to H.264: no picture can be decoded")


class _Copy:
    """One conversion."""

    def __init__(self, given: Any, out: Any) -> None:
        self._given = given
        self._out = out
        self._video = given.streams.best("video")
        if self._video is None:
            raise ValueError("expected a video stream, found none")
        self._video.thread_type = "AUTO"
        sound = given.streams.best("audio")
        # a codec that FFmpeg does not decode
        self._sound = None if sound is None or sound.codec_context is None else sound
        self._encoder: Any = None
        self._sound_encoder: Any = None
        self._graph: Graph | None = None
        self._graph_of: tuple[Any, ...] = ()
        self._start: Fraction | None = None
        self._last_pts = -1
        self._num_pictures = 0

    def run(self) -> int:
        """Convert all; returns the number of pictures."""
        streams = [stream for stream in (self._video, self._sound) if stream is not None]
        early_sound: list[Any] = []
        for packet in self._given.demux(streams):
            for frame in _decoded(packet):
                if packet.stream is self._video:
                    self._picture(frame)
                elif self._start is None:
                    early_sound.append(frame)  # its place is known once the video's start is
                else:
                    self._tone(frame)
            if self._start is not None and early_sound:
                for frame in early_sound:
                    self._tone(frame)
                early_sound.clear()
        for encoder in (self._encoder, self._sound_encoder):
            if encoder is not None:
                self._out.mux(encoder.encode(None))
        return self._num_pictures

    def _picture(self, frame: Any) -> None:
        if frame.pts is None:
            return
        if self._start is None:
            self._start = frame.pts * frame.time_base
            self._add_streams(frame)
        pts = round((frame.pts * frame.time_base - self._start) / _TIME_BASE)
        if pts <= self._last_pts:  # a second picture at the same time
            return
        self._last_pts = pts
        upright = self._upright(frame)
        upright.pts, upright.time_base = pts, _TIME_BASE
        upright.pict_type = 0  # the encoder chooses its own keyframes
        self._out.mux(self._encoder.encode(upright))
        self._num_pictures += 1

    def _tone(self, frame: Any) -> None:
        assert self._start is not None  # noqa: S101 - kept until then
        if frame.pts is None or self._sound_encoder is None:
            return
        moment_s = frame.pts * frame.time_base - self._start
        if moment_s < 0:
            return
        frame.pts = round(moment_s * frame.sample_rate)
        frame.time_base = Fraction(1, frame.sample_rate)
        self._out.mux(self._sound_encoder.encode(frame))

    def _add_streams(self, first: Any) -> None:
        """Add both streams, whose header is written with the first packet."""
        rate = self._video.average_rate or Fraction(25)
        self._encoder = self._out.add_stream("libx264", rate=rate, options=dict(_OPTIONS))
        width, height = self._size(first)
        self._encoder.width, self._encoder.height = width, height
        self._encoder.pix_fmt = "yuv420p"
        self._encoder.codec_context.time_base = _TIME_BASE
        self._encoder.time_base = _TIME_BASE
        if self._sound is not None:
            rate = self._sound.rate if self._sound.rate in _AAC_RATES else 48_000
            self._sound_encoder = self._out.add_stream("aac", rate=rate)
            self._sound_encoder.layout = "mono" if self._sound.channels == 1 else "stereo"

    def _size(self, frame: Any) -> tuple[int, int]:
        """Width and height of the copy in square pixels: upright, even, within 1920."""
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        width, height = frame.width * aspect, Fraction(frame.height)
        if _turn(frame) in (90, 270):
            width, height = height, width
        scale = min(Fraction(1), Fraction(_LONGEST_PX) / max(width, height))
        even = [max(2, round(side * scale / 2) * 2) for side in (width, height)]
        return even[0], even[1]

    def _upright(self, frame: Any) -> Any:
        """The picture turned upright and scaled; its size may change in mid-stream."""
        form = (frame.width, frame.height, frame.format.name, _turn(frame))
        if self._graph is None or form != self._graph_of:
            self._graph, self._graph_of = self._new_graph(frame), form
        self._graph.push(frame)
        return self._graph.pull()

    def _new_graph(self, frame: Any) -> Graph:
        graph = Graph()
        steps = [graph.add_buffer(template=self._video, **_form(frame))]
        for step in filter(None, _QUARTER_TURNS.get(_turn(frame), "").split(",")):
            kind, _, setting = step.partition("=")
            steps.append(graph.add(kind, setting or None))
        steps.append(graph.add("scale", f"{self._encoder.width}:{self._encoder.height}"))
        steps.append(graph.add("setsar", "1"))
        steps.append(graph.add("format", "yuv420p"))
        steps.append(graph.add("buffersink"))
        graph.link_nodes(*steps).configure()
        return graph


_AAC_RATES: Final = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})


def _form(frame: Any) -> dict[str, Any]:
    return {
        "width": frame.width,
        "height": frame.height,
        "format": frame.format,
        "time_base": frame.time_base,
    }


def _turn(frame: Any) -> int:
    """Degrees counter-clockwise by which a picture is to be turned: 0, 90, 180 or 270."""
    degrees: int = round(frame.rotation / 90) * 90 % 360
    return degrees


def _decoded(packet: Any) -> Iterator[Any]:
    """The frames of a packet; none if it is damaged."""
    with contextlib.suppress(av.error.InvalidDataError):
        yield from packet.decode()
