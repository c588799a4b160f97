"""Copies of a film in another container or with other metadata; its packets stay as they are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from storeguard.video.display import Turn


def remuxed(
    source: Path, target: Path, *, turn: Turn | None = None, pixel_aspect: Fraction | None = None
) -> Path:
    """Copy a film's video with this display matrix and sample aspect ratio. Returns `target`."""
    with av.open(str(source)) as film, av.open(str(target), "w") as out:
        stream = film.streams.video[0]
        copy: Any = out.add_stream_from_template(stream, opaque=True)
        if turn is not None:
            copy.set_display_matrix(turn.matrix())
        if pixel_aspect is not None:
            copy.codec_context.sample_aspect_ratio = pixel_aspect
        for packet in film.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return target


def encoded(
    pictures: list[Any],
    target: Path,
    *,
    fps: int = 25,
    codec: str = "libx264",
    pixel_aspect: Fraction | None = None,
    times: list[int] | None = None,
) -> Path:
    """Encode (height, width, 3) RGB pictures. Returns `target`.

    Args:
        pictures: all of one size, with even sides.
        target: its suffix names the container.
        fps: pictures a second.
        codec: the encoder.
        pixel_aspect: kept in the codec's own parameters.
        times: when each picture is shown, in 1/fps seconds; None shows one after the other.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(target), "w") as out:
        stream: Any = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "12", "g": str(fps)}
        stream.codec_context.time_base = Fraction(1, fps)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return target
