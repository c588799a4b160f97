"""Writing one clip file from encoded packets.

H.264 and HEVC are copied, never encoded again; so are VP8, VP9 and AV1 where the container holds
them. Anything else (MJPEG, MPEG-4, raw pictures, VP8 for mp4) is encoded once, to H.264.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av

from storeguard.config.store import Container
from storeguard.errors import RecordingError
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.part import dress, final_of, part_of, place, reason_of, sha256_of
from storeguard.video.display import SQUARE, plausible_aspect
from storeguard.video.packets import (
    MICROSECOND,
    EncodedPacket,
    MediaKind,
    Opaque,
    Packet,
    StreamFormat,
)

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
_ENCODER = "libx264"


@dataclass(frozen=True, slots=True)
class WrittenClip:
    """A finished file.

    Attributes:
        path: where it is.
        codec: of its video.
        num_frames: pictures in it.
        cut_at_s: where its video ends, in seconds from the first picture, if less of it reached
            the disk than was written; None if all did.
        size_bytes, sha256: of the whole file.
        faults: what had to be left out or done differently; empty when nothing was.
    """

    path: Path
    codec: str
    num_frames: int
    cut_at_s: float | None
    size_bytes: int
    sha256: str
    faults: tuple[Fault, ...]


class ClipWriter:
    """Writes one file. Used by one thread.

    Args:
        path: the file to be; `container`, not its suffix, chooses the format.
        container: mp4 or mkv.
        video: format of the video packets. All video packets must have an equal one.
        audio: format of the audio packets; None for none. Audio that the container cannot hold
            is left out, with a remark.
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
        self._faults: list[Fault] = []
        self._origin_us: int | None = None
        self._next_dts: dict[MediaKind, int] = {}
        self._transcoder: _Transcoder | None = None
        self._closed = False
        copied = video.codec in _COPIED[container] and bool(video.header)
        self.codec = video.codec if copied else "h264"
        if audio is not None and not _holds_audio(container, audio):
            reason = f"{container} does not hold {audio.codec}"
            self._faults.append(Fault(code=FaultCode.AUDIO_LEFT_OUT, detail=reason))
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
                self._faults.append(Fault(code=FaultCode.ENCODED, detail=video.codec))
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
        """Complete the file and put it in its place, with what of it reached the disk.

        Raises:
            RecordingError: it cannot be completed, or holds no picture. Nothing is left behind.
        """
        try:
            reason = self._close()
            contents = place(self._part, num_frames=self.num_frames)
            size_bytes, sha256 = self.path.stat().st_size, sha256_of(self.path)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            self.path.unlink(missing_ok=True)
            raise _failed("finish", self.path, error) from None
        short = contents.num_frames < self.num_frames
        cut = (Fault(code=FaultCode.CUT_OFF, detail=reason),) if short else ()
        return WrittenClip(
            path=self.path,
            codec=self.codec,
            num_frames=contents.num_frames,
            cut_at_s=contents.duration_s if short else None,
            size_bytes=size_bytes,
            sha256=sha256,
            faults=(*self._faults, *cut, *contents.faults),
        )

    def abort(self) -> None:
        """Close and remove everything written so far."""
        self._end_badly()
        for path in (self._part, final_of(self.path)):
            with contextlib.suppress(OSError):
                path.unlink()

    def _close(self) -> str:
        """End the file; returns why, if less is in it than was written."""
        reason = "not all of it reached the disk"  # muxers do not always report that
        try:
            if self._transcoder is not None:
                self._transcoder.flush()
            self._closed = True
            self._out.close()
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = reason_of(error)  # what is on the disk already is better than nothing
            self._end_badly()
        if self._transcoder is not None:
            self.num_frames = self._transcoder.num_frames
        if not self.num_frames:
            raise ValueError("no picture was written")
        return reason

    def _end_badly(self) -> None:
        if not self._closed and hasattr(self, "_out"):
            self._closed = True
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._out.close()

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


def _holds_audio(container: Container, audio: StreamFormat) -> bool:
    name = _AUDIO_NAMES.get(audio.codec, audio.codec)
    return bool(audio.header) and name in _AUDIO[container]


def _add_copy(out: av.container.OutputContainer, format_: StreamFormat) -> Any:
    with format_.template() as container:
        stream = out.add_stream_from_template(container.streams[0], opaque=True)
    dress(out, stream, format_.kind)
    _declare_display(stream, format_)
    return stream


def _declare_display(stream: Any, format_: StreamFormat) -> None:
    """Have players turn and stretch the pictures, which are stored as the camera sent them."""
    if format_.turn is not None:
        stream.set_display_matrix(format_.turn.matrix())
    if format_.pixel_aspect is not None:
        stream.codec_context.sample_aspect_ratio = format_.pixel_aspect


def _failed(step: str, path: Path, error: Exception) -> RecordingError:
    failure = RecordingError(f"{path.name}: cannot {step} the clip: {reason_of(error)}")
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
        context.sample_aspect_ratio = plausible_aspect(self._decoder.sample_aspect_ratio) or SQUARE
        _declare_display(stream, video)
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
