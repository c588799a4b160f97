"""From encoded packets to frames, over reconnects and damage."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import cast

import av

from storeguard.video.display import SQUARE, Display, Turn, plausible_aspect
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket, MediaKind, Opaque, Packet, StreamFormat

MIN_STEP_US = 1000
"""Two frames are never closer than this on the time line: events count milliseconds."""

_MAX_INSIDE = 64  # packets that may be inside a decoder; older ones were lost in it


class FrameDecoder:
    """Decodes one camera's video packets. Used by one thread.

    A new decoder is made for every connection, and the old one is drained first, so no frame is
    lost in between. Damaged packets are counted and skipped.

    Some cameras stamp B-frame streams with decoding times. Once frames come out with times that
    go back, the decoder's order is trusted over the stamps: each frame gets the earliest time
    among the packets inside the decoder, which is monotone and right on average.

    Args:
        camera_id: for the frames.
        threads: of one decoder. 1 is best with many cameras on few cores: no hand-over between
            threads and no frames waiting inside; 0 takes one per core, for a single file.
        skip_before_us: frames earlier than this on the time line are decoded but not returned.
    """

    def __init__(
        self, camera_id: str, *, threads: int = 1, skip_before_us: int | None = None
    ) -> None:
        self._camera_id = camera_id
        self._threads = threads
        self._skip_before_us = skip_before_us
        self._context: av.VideoCodecContext | None = None
        self._format: StreamFormat | None = None
        self._key: object = None
        self._waiting = True  # for a keyframe
        self._inside: list[int] = []  # times of packets inside the decoder, a heap
        self._mistimed = False
        self._cut = False
        self._utc0: datetime | None = None
        self._first_us: int | None = None
        self._last_us = -(2**62)
        self.num_frames = 0
        self.wh: tuple[int, int] | None = None
        self.dropped: Counter[str] = Counter()

    def decode(self, packet: EncodedPacket) -> Iterator[Frame]:
        """Frames that this packet completes: none, one or more. Audio gives none."""
        if packet.kind is not MediaKind.VIDEO:
            return
        format_ = packet.format
        key = (packet.connection, format_.codec, format_.turn, format_.pixel_aspect)
        if key != self._key:
            yield from self.drain()
            self._format = format_
            self._context = packet.format.decoder(threads=self._threads)
            self._key = key
            self._waiting = True
            self._mistimed = False
        if self._waiting and not packet.is_keyframe:
            self.dropped["before_keyframe"] += 1
            return
        self._waiting = False
        self._utc0 = packet.captured_at - timedelta(microseconds=packet.time_us)
        heapq.heappush(self._inside, packet.time_us)
        if len(self._inside) > _MAX_INSIDE:
            heapq.heappop(self._inside)
        yield from self._run(packet.data)

    def drain(self) -> Iterator[Frame]:
        """Frames still inside the decoder."""
        if self._context is not None and self._context.is_open:
            yield from self._run(None)
        self._inside.clear()

    def resync(self) -> Iterator[Frame]:
        """Prepare for packets after a gap: drain, drop references, wait for a keyframe."""
        yield from self.drain()
        if self._context is not None:
            self._context.flush_buffers()
        self._waiting = True

    def cut_scene(self) -> Iterator[Frame]:
        """The file starts over: drain, and mark the next frame as the first of a new scene."""
        yield from self.drain()
        self._context, self._key = None, None
        self._cut = True

    def _run(self, packet: Packet | None) -> Iterator[Frame]:
        assert self._context is not None  # noqa: S101  # for the type checker: callers made it
        started_s = time.perf_counter()
        try:
            pictures = self._context.decode(packet)
        except av.FFmpegError:
            if packet is not None:
                self.dropped["undecodable"] += 1
            return
        share_ms = (time.perf_counter() - started_s) * 1000 / max(1, len(pictures))
        for picture in pictures:
            frame = self._frame(picture, share_ms)
            if frame is not None:
                yield frame

    def _frame(self, picture: av.VideoFrame, decode_ms: float) -> Frame | None:
        if not (picture.width and picture.height) or picture.opaque is None:
            self.dropped["undecodable"] += 1
            return None
        packet_us, received_s, _ = cast("Opaque", picture.opaque)
        stamp = picture.pts if picture.pts is not None else picture.dts
        time_us = packet_us if stamp is None else stamp
        self._mistimed |= time_us < self._last_us
        if self._mistimed and self._inside:
            time_us = heapq.heappop(self._inside)
        else:
            self._remove_up_to(packet_us)
        if self._skip_before_us is not None and time_us < self._skip_before_us:
            return None
        time_us = max(time_us, self._last_us + MIN_STEP_US)
        self._last_us = time_us
        if self._first_us is None:
            self._first_us = time_us
        assert self._utc0 is not None  # noqa: S101  # for the type checker: set with the packet
        cut, self._cut = self._cut, False
        frame = Frame(
            camera_id=self._camera_id,
            index=self.num_frames,
            captured_at=self._utc0 + timedelta(microseconds=time_us),
            time_s=(time_us - self._first_us) / 1_000_000,
            picture=picture,
            scene_cut=cut,
            decode_ms=decode_ms,
            received_s=received_s,
            display=self._display_of(picture),
        )
        self.num_frames += 1
        self.wh = frame.wh
        return frame

    def _display_of(self, picture: av.VideoFrame) -> Display:
        """Turned as the picture itself says, else as the stream; stretched as its container says.

        FFmpeg's own order of preference (`av_guess_sample_aspect_ratio`).
        """
        assert self._context is not None  # noqa: S101  # for the type checker: it made the picture
        assert self._format is not None  # noqa: S101
        aspect = self._format.pixel_aspect or plausible_aspect(self._context.sample_aspect_ratio)
        return Display(Turn.of(picture, self._format.turn) or Turn(), aspect or SQUARE)

    def _remove_up_to(self, time_us: int) -> None:
        """Drop this packet's time, and those of earlier packets that produced no frame."""
        while self._inside and self._inside[0] <= time_us:
            heapq.heappop(self._inside)
