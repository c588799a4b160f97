"""Writing one clip file from encoded packets, and mending what a crash left behind.

H.264 and HEVC are copied, never encoded again; so are VP8, VP9 and AV1 where the container holds
them. Anything else (MJPEG, MPEG-4, raw pictures, VP8 for mp4) is encoded once, to H.264.

While it is written a clip is a hidden file beside its final place, `.NAME.part`, that can be
played as it is: a fragmented mp4, or Matroska in clusters of a second. A finished mp4 is laid out
anew with its index in front. The final name appears all at once or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av

from storeguard.config import Container
from storeguard.errors import RecordingError
from storeguard.video.packets import (
    MICROSECOND,
    EncodedPacket,
    MediaKind,
    Opaque,
    Packet,
    StreamFormat,
)

PART_SUFFIX = ".part"
_FINAL_SUFFIX = ".final"
_COPIED = {
    Container.MP4: {"h264", "hevc", "vp9", "av1"},
    Container.MKV: {"h264", "hevc", "vp8", "vp9", "av1"},
}
_AUDIO = {
    Container.MP4: {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    Container.MKV: {
        *{"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac", "vorbis"},
        *{"pcm_s16le", "pcm_s16be", "pcm_u8", "pcm_s24le"},
    },
}
_AUDIO_NAMES = {"libopus": "opus", "mp3float": "mp3", "libvorbis": "vorbis"}
_FORMATS = {Container.MP4: "mp4", Container.MKV: "matroska"}
_LIVE_OPTIONS = {
    # Fragments of a GOP, or a second of a long one: that much a power cut may cost.
    Container.MP4: {
        "movflags": "frag_keyframe+empty_moov+default_base_moof",
        "frag_duration": "1000000",
        "flush_packets": "1",
    },
    Container.MKV: {"cluster_time_limit": "1000", "flush_packets": "1"},
}
_TICKS = {MediaKind.VIDEO: Fraction(1, 90_000), MediaKind.AUDIO: None}
_TAGS = {("mp4", "hevc"): "hvc1", ("mp4", "h264"): "avc1"}
_ENCODER = "libx264"


@dataclass(frozen=True, slots=True)
class WrittenClip:
    """A finished file.

    Attributes:
        path: where it is.
        codec: of its video.
        num_frames: pictures in it.
        size_bytes, sha256: of the whole file.
        note: what had to be left out or done differently; empty when all went plainly.
    """

    path: Path
    codec: str
    num_frames: int
    size_bytes: int
    sha256: str
    note: str


class ClipWriter:
    """Writes one file. Used by one thread.

    Args:
        path: the file to be; its suffix says nothing, `container` does.
        container: mp4 or mkv.
        video: format of the video packets. All video packets must have an equal one.
        audio: format of the audio packets; None for none. Audio that the container cannot hold
            is left out, with a note.
        comment: kept in the file's metadata.

    Raises:
        RecordingError: the file cannot be begun. Nothing is left behind.
    """

    def __init__(
        self,
        path: Path,
        *,
        container: Container,
        video: StreamFormat,
        audio: StreamFormat | None = None,
        comment: str = "",
    ) -> None:
        self.path = path
        self.num_frames = 0
        self._container = container
        self._part = part_of(path)
        self._notes: list[str] = []
        self._origin_us: int | None = None
        self._next_dts: dict[MediaKind, int] = {}
        self._transcoder: _Transcoder | None = None
        self._closed = False
        copied = video.codec in _COPIED[container] and bool(video.header)
        self.codec = video.codec if copied else "h264"
        if audio is not None and not _holds_audio(container, audio):
            self._notes.append(f"audio left out: {container} does not hold {audio.codec}")
            audio = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = av.open(
                str(self._part),
                "w",
                format=_FORMATS[container],
                container_options=_LIVE_OPTIONS[container],
            )
            if comment:
                self._out.metadata["comment"] = comment
            if copied:
                self._video = _add_copy(self._out, video)
            else:
                self._transcoder = _Transcoder(self._out, video)
                self._video = self._transcoder.stream
                self._notes.append(f"encoded from {video.codec}")
            self._audio = None if audio is None else _add_copy(self._out, audio)
            self._out.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise _failed("begin", path, error) from None

    def write(self, packet: EncodedPacket) -> bool:
        """Add a packet, in decoding order; the first video packet must be a keyframe.

        Returns:
            Whether it was kept: audio ahead of the video, and pictures that belong before the
            first keyframe, are not.

        Raises:
            RecordingError: it cannot be written (disk full, ...). Nothing is left behind.
        """
        if self._origin_us is None:
            if packet.kind is MediaKind.AUDIO:
                return False
            self._origin_us = packet.time_us
        is_video = packet.kind is MediaKind.VIDEO
        if packet.time_us < self._origin_us or (not is_video and self._audio is None):
            return False
        try:
            if is_video and self._transcoder is not None:
                self._transcoder.write(packet, self._origin_us)
            else:
                self._mux(packet, self._origin_us)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise _failed("write", self.path, error) from None
        self.num_frames += is_video
        return True

    def finish(self) -> WrittenClip:
        """Complete the file and put it in its place.

        Raises:
            RecordingError: it cannot be completed, or holds no picture. Nothing is left behind.
        """
        try:
            if self._transcoder is not None:
                self._transcoder.flush()
                self.num_frames = self._transcoder.num_frames
            self._closed = True
            self._out.close()
            if not self.num_frames:
                raise ValueError("no picture was written")  # noqa: TRY301  # cleans up below
            self._lay_out()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise _failed("finish", self.path, error) from None
        return WrittenClip(
            path=self.path,
            codec=self.codec,
            num_frames=self.num_frames,
            size_bytes=self.path.stat().st_size,
            sha256=sha256_of(self.path),
            note="; ".join(self._notes),
        )

    def abort(self) -> None:
        """Close and remove everything written so far."""
        if not self._closed and hasattr(self, "_out"):
            self._closed = True
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._out.close()
        for path in (self._part, final_of(self.path)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _mux(self, packet: EncodedPacket, origin_us: int) -> None:
        stream = self._video if packet.kind is MediaKind.VIDEO else self._audio
        if stream is None:
            return
        copy: Packet = av.Packet(
            cast("bytes", packet.data)
        )  # shares the bytes; the ring's own packet stays as it is
        copy.stream = stream
        copy.time_base = MICROSECOND
        copy.is_keyframe = packet.is_keyframe
        copy.duration = packet.duration_us
        # Muxers demand decoding times that rise by a tick of the stream at least.
        dts = max(packet.decode_us - origin_us, self._next_dts.get(packet.kind, -(2**62)))
        self._next_dts[packet.kind] = dts + 1 + int(1_000_000 * stream.time_base)
        copy.dts = dts
        copy.pts = max(packet.time_us - origin_us, dts)
        self._out.mux(copy)

    def _lay_out(self) -> None:
        if self._container is Container.MP4:
            try:
                _put_index_in_front(self._part, self.path)
            except (av.FFmpegError, OSError) as error:
                # As fragments it plays too, if less comfortably: better than losing it.
                self._notes.append(f"index not in front: {_words(error)}")
                final_of(self.path).unlink(missing_ok=True)
                _replace(self._part, self.path)
            else:
                self._part.unlink()
        else:
            _replace(self._part, self.path)


def part_of(path: Path) -> Path:
    """Where a clip is while it is written."""
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def final_of(path: Path) -> Path:
    """Where a finished clip is laid out, a moment before it gets its name."""
    return path.with_name(f".{path.name}{_FINAL_SUFFIX}")


def sha256_of(path: Path) -> str:
    """Checksum of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class MendedClip:
    """What `mend` found in a part file.

    Attributes:
        path: the finished clip; None if nothing could be saved and the part was removed.
        num_frames: pictures in it.
        duration_s: from the first picture to the end of the last.
        codec: of its video.
        comment: the metadata it was begun with.
    """

    path: Path | None
    num_frames: int
    duration_s: float
    codec: str
    comment: str


def mend(part: Path) -> MendedClip:
    """Finish a part file left behind by a crash, or remove it if it holds no picture."""
    name = part.name.removeprefix(".").removesuffix(PART_SUFFIX)
    path = part.with_name(name)
    final_of(path).unlink(missing_ok=True)
    lost = MendedClip(None, 0, 0.0, "", "")
    if path.exists():  # finished, and killed just before the part was removed
        part.unlink()
        return lost
    try:
        mended = _put_index_in_front(part, path)
    except (av.FFmpegError, OSError, ValueError):
        final_of(path).unlink(missing_ok=True)
        part.unlink()
        return lost
    part.unlink()
    return mended


def leftover_parts(folder: Path) -> Iterator[Path]:
    """Part files below a folder, and stray half-laid-out files, which are removed on the way."""
    for stray in sorted(folder.rglob(f".*{_FINAL_SUFFIX}")):
        stray.unlink(missing_ok=True)
    yield from sorted(folder.rglob(f".*{PART_SUFFIX}"))


def _holds_audio(container: Container, audio: StreamFormat) -> bool:
    name = _AUDIO_NAMES.get(audio.codec, audio.codec)
    return bool(audio.header) and name in _AUDIO[container]


def _add_copy(out: av.container.OutputContainer, format_: StreamFormat) -> Any:
    with format_.template() as container:
        stream = out.add_stream_from_template(container.streams[0], opaque=True)
    _dress(out, stream, format_.kind)
    return stream


def _dress(out: av.container.OutputContainer, stream: Any, kind: MediaKind) -> None:
    ticks = _TICKS[kind] or Fraction(1, stream.codec_context.sample_rate)
    stream.time_base = ticks
    tag = _TAGS.get((out.format.name, stream.codec_context.name))
    if tag is not None:
        stream.codec_context.codec_tag = tag


def _replace(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


def _put_index_in_front(part: Path, path: Path) -> MendedClip:
    """Copy a part file to its final place with its index (mp4: moov; mkv: cues) complete."""
    final = final_of(path)
    mp4 = path.suffix == f".{Container.MP4}"
    origin_s: Fraction | None = None
    num_frames, end_s = 0, Fraction(0)
    with av.open(str(part)) as source:
        # An mkv that was cut off has no cues: this writes them.
        options = {"movflags": "faststart"} if mp4 else {}
        with av.open(
            str(final),
            "w",
            format="mp4" if mp4 else "matroska",
            container_options=options,
        ) as out:
            comment = _comment_of(source)
            if comment:
                out.metadata["comment"] = comment
            streams = {}
            for stream in source.streams:
                copy: Any = out.add_stream_from_template(stream, opaque=True)
                _dress(out, copy, MediaKind(stream.type))
                streams[stream.index] = copy
            codec = source.streams.video[0].codec_context.name
            for packet in source.demux():
                if not packet.size or packet.pts is None:
                    continue
                if packet.dts is None:  # Matroska's reader does not know the first ones
                    packet.dts = packet.pts - round(1 / packet.time_base) + num_frames
                is_video = packet.stream.type == "video"
                if origin_s is None:
                    if not (is_video and packet.is_keyframe):
                        continue
                    origin_s = packet.pts * packet.time_base
                shift = round(origin_s / packet.time_base)
                packet.pts -= shift
                packet.dts -= shift
                if is_video:
                    num_frames += 1
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    end_s = max(end_s, end)
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
            if not num_frames:
                raise ValueError("no picture in it")
    _replace(final, path)
    return MendedClip(path, num_frames, float(end_s), codec, comment)


def _comment_of(source: av.container.InputContainer) -> str:
    tags = {key.lower(): value for key, value in source.metadata.items()}
    return str(tags.get("comment", ""))


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _failed(step: str, path: Path, error: Exception) -> RecordingError:
    failure = RecordingError(f"{path.name}: cannot {step} the clip: {_words(error)}")
    failure.errno = getattr(error, "errno", None)
    return failure


class _Transcoder:
    """Encodes pictures of any codec to H.264."""

    def __init__(self, out: av.container.OutputContainer, video: StreamFormat) -> None:
        self._out = out
        self._decoder = video.decoder()
        self.num_frames = 0
        self._origin_us = 0
        self._duration_us = 0
        stream: Any = out.add_stream(_ENCODER, options={"preset": "veryfast", "crf": "23"})
        self.stream = stream
        width, height = video.wh
        # H.264 in 4:2:0 needs even sides.
        self.stream.width, self.stream.height = max(2, width & ~1), max(2, height & ~1)
        self.stream.pix_fmt = "yuv420p"
        context = self.stream.codec_context
        context.time_base = Fraction(1, 90_000)
        context.gop_size = 50
        context.max_b_frames = 0
        context.thread_count = 1

    def write(self, packet: EncodedPacket, origin_us: int) -> None:
        try:
            pictures = self._decoder.decode(packet.data)
        except av.FFmpegError:
            return  # a damaged picture is missing from the clip, as it was from the stream
        self._encode(pictures, origin_us)
        self._origin_us = origin_us

    def flush(self) -> None:
        if self._decoder.is_open:
            self._encode(self._decoder.decode(None), self._origin_us)
        self._mux(self.stream.encode(None), 0)

    def _encode(self, pictures: list[av.VideoFrame], origin_us: int) -> None:
        for picture in pictures:
            if picture.opaque is None:
                continue
            time_us, _, duration_us = cast("Opaque", picture.opaque)
            frame = picture.reformat(
                width=self.stream.width, height=self.stream.height, format="yuv420p"
            )
            frame.pts = (time_us - origin_us) * 9 // 100
            frame.time_base = Fraction(1, 90_000)
            frame.pict_type = av.video.frame.PictureType.NONE
            self._mux(self.stream.encode(frame), duration_us)
            self.num_frames += 1

    def _mux(self, packets: list[Packet], duration_us: int) -> None:
        self._duration_us = duration_us or self._duration_us
        for packet in packets:
            # The encoder only knows a nominal rate.
            packet.duration = round(Fraction(self._duration_us, 1_000_000) / packet.time_base)
        self._out.mux(packets)
