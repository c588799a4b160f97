"""A clip's part file: where it is, how it gets its final name, and what is saved of a torn one.

While it is written a clip is a hidden file next to its final place, `.NAME.part`, that can be
played as it is: a fragmented mp4, or Matroska in clusters of a second. A finished mp4 is laid out
again with its index in front. The final name appears all at once or not at all, and only for a file
that was read again and is whole: muxers do not report every write that failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from storeguard.config.store import Container
from storeguard.events.faults import Fault, FaultCode
from storeguard.video.packets import MediaKind, Packet

PART_SUFFIX = ".part"
_FINAL_SUFFIX = ".final"
_TICKS = {MediaKind.VIDEO: Fraction(1, 90_000), MediaKind.AUDIO: None}
_TAGS = {("mp4", "hevc"): "hvc1", ("mp4", "h264"): "avc1"}


@dataclass(frozen=True, slots=True)
class Contents:
    """What can be played of a clip file.

    Attributes:
        num_frames: pictures in it, 1 at least.
        duration_s: from the first picture to the end of the last.
        codec: of its video.
        comment: the metadata it was begun with.
        torn: whether something that is not whole follows.
        faults: what is unlike a file that was finished plainly; empty if nothing is.
    """

    num_frames: int
    duration_s: float
    codec: str
    comment: str
    torn: bool = False
    faults: tuple[Fault, ...] = ()


def part_of(path: Path) -> Path:
    """Where a clip is while it is written."""
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def final_of(path: Path) -> Path:
    """Where a finished clip is laid out, a moment before it gets its name."""
    return path.with_name(f".{path.name}{_FINAL_SUFFIX}")


def finished(part: Path) -> Path:
    """Where the clip of a part file will be."""
    return part.with_name(part.name.removeprefix(".").removesuffix(PART_SUFFIX))


def leftover_parts(folder: Path) -> Iterator[Path]:
    """Part files below a folder, and stray half-laid-out files, which are removed on the way."""
    for stray in sorted(folder.rglob(f".*{_FINAL_SUFFIX}")):
        stray.unlink(missing_ok=True)
    yield from sorted(folder.rglob(f".*{PART_SUFFIX}"))


def mend(part: Path) -> Contents | None:
    """Finish a part file left behind by a crash; None if nothing was to be saved: it is removed."""
    if finished(part).exists():  # and killed just before the part was removed
        part.unlink()
        return None
    try:
        return place(part)
    except (av.FFmpegError, OSError, ValueError):
        part.unlink(missing_ok=True)
        return None


def place(part: Path, *, num_frames: int | None = None) -> Contents:
    """Give a closed part file its final name, with what can be played of it and nothing else.

    Its index (mp4: moov; mkv: cues) is completed on the way. Without room for that on the disk
    it stays as it is, cut off behind what is whole.

    Args:
        part: the file; it is removed.
        num_frames: pictures that were written; None if that is not known.

    Raises:
        ValueError: no picture can be played.
        FFmpegError, OSError: it cannot be read, or not be renamed.
    """
    path = finished(part)
    final = final_of(path)
    if path.suffix == f".{Container.MKV}" and num_frames is not None:
        contents = _survey(part)
        if contents.num_frames == num_frames and not contents.torn:  # cues are at its end already
            _rename(part, path)
            return contents
    try:
        contents = _lay_out(part, final)
        _rename(final, path)
    except (av.FFmpegError, OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            final.unlink(missing_ok=True)
        contents = _cut_off(part)
        _rename(part, path)
        index = Fault(code=FaultCode.INDEX_AT_END, detail=reason_of(error))
        return replace(contents, faults=(index,))
    part.unlink()
    return contents


def dress(out: av.container.OutputContainer, stream: Any, kind: MediaKind) -> None:
    """Give a stream of a clip the ticks and the tag that players want."""
    ticks = _TICKS[kind] or Fraction(1, stream.codec_context.sample_rate)
    stream.time_base = ticks
    tag = _TAGS.get((out.format.name, stream.codec_context.name))
    if tag is not None:
        stream.codec_context.codec_tag = tag


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason_of(error: Exception) -> str:
    """An error's own reason, without its number and its origin."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _Playable:
    """The packets of a clip file from its first keyframe up to the first that is not whole."""

    def __init__(self, source: av.container.InputContainer) -> None:
        self.num_frames = 0
        self.torn = False
        self._source = source
        self._end_s = Fraction(0)

    def __iter__(self) -> Iterator[Packet]:
        """Times count from the first picture on."""
        origin_s: Fraction | None = None
        for packet in self._whole():
            if packet.dts is None:  # Matroska's reader does not know the first ones
                packet.dts = packet.pts - round(1 / packet.time_base) + self.num_frames
            is_video = packet.stream.type == "video"
            if origin_s is None:
                if not (is_video and packet.is_keyframe):
                    continue
                origin_s = packet.pts * packet.time_base
            shift = round(origin_s / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            if is_video:
                self.num_frames += 1
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._end_s = max(self._end_s, end)
            yield packet

    def contents(self) -> Contents:
        """Of all that was iterated over. Raises ValueError if there was no picture."""
        if not self.num_frames:
            raise ValueError("no picture in it")
        return Contents(
            num_frames=self.num_frames,
            duration_s=float(self._end_s),
            codec=self._source.streams.video[0].codec_context.name,
            comment=comment_of(self._source),
            torn=self.torn,
        )

    def _whole(self) -> Iterator[Any]:
        packets = self._source.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.torn = True
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self.torn = True
                return
            if packet.size and packet.pts is not None:
                yield packet


def comment_of(source: av.container.InputContainer) -> str:
    """The metadata a clip was begun with."""
    tags = {key.lower(): value for key, value in source.metadata.items()}
    return str(tags.get("comment", ""))


def _survey(path: Path) -> Contents:
    with av.open(str(path)) as source:
        if not source.streams.video:
            raise ValueError("no video in it")
        playable = _Playable(source)
        for _ in playable:
            pass
        return playable.contents()


def _lay_out(part: Path, final: Path) -> Contents:
    """Copy what can be played of a part file to another one, with its index complete."""
    mp4 = finished(part).suffix == f".{Container.MP4}"
    with av.open(str(part)) as source:
        # An mkv that was cut off has no cues: this writes them.
        options = {"movflags": "faststart"} if mp4 else {}
        with av.open(
            str(final),
            "w",
            format="mp4" if mp4 else "matroska",
            container_options=options,
        ) as out:
            comment = comment_of(source)
            if comment:
                out.metadata["comment"] = comment
            streams = {}
            for stream in source.streams:
                copy: Any = out.add_stream_from_template(stream, opaque=True)
                dress(out, copy, MediaKind(stream.type))
                if isinstance(stream, av.VideoStream) and stream.sample_aspect_ratio:
                    # mp4 keeps it beside the codec's parameters, which are all a template copies
                    copy.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
                streams[stream.index] = copy
            playable = _Playable(source)
            for packet in playable:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
            contents = replace(playable.contents(), torn=False)
    copied = _survey(final)
    if copied.torn or copied.num_frames != contents.num_frames:
        raise ValueError("not all of it reached the disk")
    return contents


def _cut_off(part: Path) -> Contents:
    """Shorten a part file to what is whole, which needs no room."""
    if finished(part).suffix == f".{Container.MP4}":
        os.truncate(part, _end_of_fragments(part))
    contents = _survey(part)
    if contents.torn:
        raise ValueError("not all of it reached the disk")
    return contents


def _end_of_fragments(path: Path) -> int:
    """Where the last whole `mdat` box of an mp4 ends (ISO/IEC 14496-12, 4.2)."""
    size, begin, end = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while begin + 16 <= size:
            file.seek(begin)
            length, kind, long_length = struct.unpack(">I4sQ", file.read(16))
            length = {0: size - begin, 1: long_length}.get(length, length)
            begin += max(length, 8)
            if kind == b"mdat" and begin <= size:
                end = begin
    return end


def _rename(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
