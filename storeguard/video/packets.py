"""Encoded video as it left the camera, and the ring that keeps its last seconds."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from itertools import islice
from typing import Any, TypeAlias

import av

from storeguard.video.display import Turn, plausible_aspect

Packet: TypeAlias = "av.Packet[Any]"
Opaque = tuple[int, float, int]
"""What a packet passes to its pictures: time_us, received_s, duration_us."""

MICROSECOND = Fraction(1, 1_000_000)
"""Time base of every packet behind the source: the camera's own time line."""


class MediaKind(StrEnum):
    """What a packet carries."""

    VIDEO = "video"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """All that a decoder or a muxer must know about a stream besides its packets.

    Two formats that compare equal can be decoded, and written to one file, without a break.

    Attributes:
        kind: video or audio.
        codec: FFmpeg's name of the codec (`h264`, `hevc`, `mjpeg`, `vp8`, `aac`, ...).
        extradata: codec parameters (avcC, hvcC, Annex B parameter sets, ...); may be empty.
        wh: width and height in pixels; (0, 0) for audio, and while it is not known yet.
        sample_rate: audio samples a second; 0 for video.
        turn: how its container, or its first keyframe, turns pictures; None if neither does.
        pixel_aspect: the container's sample aspect ratio where it overrules the codec's; else
            None.
        header: a NUT file with this one stream and no content: the template of a decoder or an
            output stream. It outlives the stream's connection and can be sent to another process.
            Empty if NUT does not support the codec.
    """

    kind: MediaKind
    codec: str
    extradata: bytes = b""
    wh: tuple[int, int] = (0, 0)
    sample_rate: int = 0
    turn: Turn | None = None
    pixel_aspect: Fraction | None = None
    header: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(
        cls,
        stream: Any,
        *,
        extradata: bytes | None = None,
        wh: tuple[int, int] | None = None,
    ) -> StreamFormat:
        """The format of an open `av` video or audio stream, with other parameters if given."""
        context = stream.codec_context
        video = stream.type == "video"
        size = (wh or (context.width, context.height)) if video else (0, 0)
        return cls(
            kind=MediaKind.VIDEO if video else MediaKind.AUDIO,
            codec=context.name,
            extradata=extradata if extradata is not None else context.extradata or b"",
            wh=size,
            sample_rate=0 if video else context.sample_rate,
            pixel_aspect=_overruling_aspect(stream) if video else None,
            header=_header_of(stream, extradata, wh),
        )

    def with_parameters(self, extradata: bytes, wh: tuple[int, int]) -> StreamFormat:
        """The same stream after the camera changed its parameters."""
        if not self.header:
            return replace(self, extradata=extradata, wh=wh)
        with self.template() as container:
            changed = StreamFormat.of(container.streams[0], extradata=extradata, wh=wh)
        return replace(changed, turn=self.turn, pixel_aspect=self.pixel_aspect)

    def template(self) -> av.container.InputContainer:
        """An open container whose only stream has this format; the caller closes it.

        Raises:
            ValueError: the format has no header.
        """
        if not self.header:
            raise ValueError(f"codec {self.codec!r} cannot be copied into another file")
        return av.open(
            io.BytesIO(self.header),
            "r",
            format="nut",
            options={"probesize": "32", "analyzeduration": "0"},
        )

    def decoder(self, *, threads: int = 1) -> av.VideoCodecContext:
        """A fresh video decoder; opened by its first packet."""
        if self.header:
            with self.template() as container:
                context = container.streams.video[0].codec_context
        else:
            context = new_decoder(self.codec)
            if self.extradata:
                context.extradata = self.extradata
        context.thread_type = "AUTO" if threads != 1 else "NONE"
        context.thread_count = threads
        context.copy_opaque = True
        return context


def new_decoder(codec: str) -> av.VideoCodecContext:
    """A video decoder by FFmpeg's name of the codec."""
    context = av.CodecContext.create(codec, "r")
    if not isinstance(context, av.VideoCodecContext):
        raise TypeError(f"{codec!r} is no video codec")
    return context


def _overruling_aspect(stream: Any) -> Fraction | None:
    """The container's sample aspect ratio; None where it declares none, or only the codec's."""
    declared = plausible_aspect(stream.sample_aspect_ratio)
    return None if declared == stream.codec_context.sample_aspect_ratio else declared


def _header_of(
    stream: Any,
    extradata: bytes | None,
    wh: tuple[int, int] | None,
) -> bytes:
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="nut", options={"fflags": "+bitexact"}) as out:
            copy: Any = out.add_stream_from_template(stream, opaque=True)
            if extradata is not None:
                copy.codec_context.extradata = extradata
            if wh is not None:
                copy.codec_context.width, copy.codec_context.height = wh
            # NUT's reader requires one packet; its content is never read.
            packet = av.Packet(bytes(1))
            packet.stream = copy
            packet.pts = packet.dts = 0
            packet.time_base = MICROSECOND
            packet.is_keyframe = True
            out.mux(packet)
    except (ValueError, av.FFmpegError):
        return b""
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class EncodedPacket:
    """One packet on the camera's time line. Shared between threads: read only.

    Attributes:
        data: the packet; its pts, dts and duration are in microseconds of the camera's time line.
            `pts` is None where the source gave none (AVI with B-frames). Its `opaque` is the
            tuple (time_us, received_s, duration_us), which decoders pass on to their pictures.
        format: of the stream it belongs to.
        is_keyframe: whether decoding can start here.
        time_us: presentation time in microseconds on the camera's time line. Decoding order is
            not presentation order where there are B-frames.
        decode_us: decoding time likewise; never decreases for one kind.
        duration_us: how long it lasts, as far as known.
        captured_at: aware UTC of `time_us`.
        connection: counts the times the source was opened, from 0; a decoder serves one of them.
        segment: counts unbroken stretches of timestamps; between two of them there may be a gap.
        received_s: monotonic seconds when it was read.
    """

    data: Packet
    format: StreamFormat
    is_keyframe: bool
    time_us: int
    decode_us: int
    duration_us: int
    captured_at: datetime
    connection: int
    segment: int
    received_s: float

    @property
    def kind(self) -> MediaKind:
        """Video or audio."""
        return self.format.kind

    @property
    def ends_at(self) -> datetime:
        """When the next picture is due."""
        return self.captured_at + timedelta(microseconds=self.duration_us)


class PacketRing:
    """The last seconds of one camera's packets, bounded in seconds and in bytes. Thread-safe.

    Packets are numbered from 0. Drop policy: the oldest group of pictures first, as a whole, so
    that the ring always begins with a keyframe. A single group larger than `max_bytes` is dropped
    too; the ring then stays empty until the next keyframe.

    Args:
        max_s: seconds to keep. Once so much was appended, the ring covers at least this much,
            unless `max_bytes` is reached.
        max_bytes: encoded bytes to keep at most.
    """

    def __init__(self, *, max_s: float, max_bytes: int) -> None:
        self._max_us = int(max_s * 1_000_000)
        self._max_bytes = max_bytes
        self._packets: deque[EncodedPacket] = deque()
        self._first = 0  # number of the oldest packet
        self._keys: deque[int] = deque()  # numbers of the video keyframes held
        self._bytes = 0
        self._newest_us = -(2**62)
        self._audio: StreamFormat | None = None
        self._connection = -1
        self._changed = threading.Condition()

    def append(self, packet: EncodedPacket) -> int:
        """Add a packet; returns its number."""
        with self._changed:
            number = self._first + len(self._packets)
            is_key = packet.is_keyframe and packet.kind is MediaKind.VIDEO
            if is_key:
                self._keys.append(number)
            self._packets.append(packet)
            self._bytes += packet.data.size
            if packet.connection != self._connection:
                self._connection, self._audio = packet.connection, None
            if packet.kind is MediaKind.AUDIO:
                self._audio = packet.format
            if packet.kind is MediaKind.VIDEO:
                self._newest_us = max(self._newest_us, packet.time_us + packet.duration_us)
            self._evict()
            self._changed.notify_all()
            return number

    def span(self) -> tuple[datetime, datetime] | None:
        """From the oldest keyframe to the end of the newest picture; None without a keyframe."""
        with self._changed:
            if not self._keys:
                return None
            first = self._packets[self._keys[0] - self._first]
            past_us = self._newest_us - first.time_us
            return first.captured_at, first.captured_at + timedelta(microseconds=past_us)

    def newest(self) -> datetime | None:
        """End of the newest picture; None without a keyframe."""
        span = self.span()
        return None if span is None else span[1]

    def audio_format(self) -> StreamFormat | None:
        """Format of the newest connection's audio; None without audio."""
        with self._changed:
            return self._audio

    def keyframe_at(self, moment: datetime) -> int | None:
        """Number of the last keyframe at or before `moment`.

        The oldest keyframe if all are later; None if there is no keyframe.
        """
        with self._changed:
            found = self._keys[0] if self._keys else None
            for number in self._keys:
                if self._packets[number - self._first].captured_at > moment:
                    break
                found = number
            return found

    def read(self, number: int, *, limit: int = 256) -> tuple[int, Sequence[EncodedPacket]]:
        """Packets from `number` on.

        Returns:
            The number of the first packet returned (higher than requested if older packets were
            dropped), and up to `limit` packets.
        """
        with self._changed:
            begin = max(number, self._first)
            offset = begin - self._first
            return begin, tuple(islice(self._packets, offset, offset + limit))

    def next_number(self) -> int:
        """The number that the next packet will get."""
        with self._changed:
            return self._first + len(self._packets)

    def wait(self, number: int, *, timeout_s: float) -> bool:
        """Wait until packet `number` was appended; False after `timeout_s` without it."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._first + len(self._packets) > number, timeout_s
            )

    def _evict(self) -> None:
        # Packets ahead of the first keyframe cannot be decoded.
        self._drop_before(self._keys[0] if self._keys else self._first)
        while len(self._keys) > 1:
            second = self._packets[self._keys[1] - self._first]
            too_old = self._newest_us - second.time_us >= self._max_us
            if not (too_old or self._bytes > self._max_bytes):
                break
            self._drop_before(self._keys[1])
        if self._bytes > self._max_bytes:  # one group, or none that begins with a keyframe
            self._drop_before(self._first + len(self._packets))

    def _drop_before(self, number: int) -> None:
        while self._first < number and self._packets:
            self._bytes -= self._packets.popleft().data.size
            self._first += 1
        while self._keys and self._keys[0] < self._first:
            self._keys.popleft()
