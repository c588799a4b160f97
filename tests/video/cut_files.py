"""Files that end before the end that they declare."""

from __future__ import annotations

from pathlib import Path

import av


def cut_short(film: Path, path: Path) -> Path:
    """A copy of a film as mp4 with its index in front, and the last 40 % of its bytes missing."""
    with (
        av.open(str(film)) as source,
        av.open(str(path), "w", container_options={"movflags": "faststart"}) as out,
    ):
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    return path
