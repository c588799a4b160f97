"""What a stream's packets say of its format: how it is turned, and when its parameters change.

H.264 and HEVC cameras repeat their parameter sets before keyframes (Annex B: each unit follows a
start code). When these differ from the stream's first ones, a recording must begin a new file.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import zip_longest

import av

from storeguard.video.display import Turn
from storeguard.video.packets import Packet, StreamFormat, new_decoder

_START = re.compile(b"\x00\x00\x01")
# Unit types of parameter sets: H.264 SPS 7, PPS 8 (ITU-T H.264, table 7-1);
# HEVC VPS 32, SPS 33, PPS 34 (ITU-T H.265, table 7-1).
_SETS = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}
_SPS = {"h264": 7, "hevc": 33}
_HEAD_BYTES = 4096  # parameter sets come first; the picture behind them is not searched


def _unit_type(codec: str, first_byte: int) -> int:
    return first_byte & 0x1F if codec == "h264" else (first_byte >> 1) & 0x3F


def is_annex_b(codec: str, extradata: bytes) -> bool:
    """Whether a stream's units stand behind start codes rather than lengths."""
    return codec in _SETS and extradata[:1] != b"\x01"


def parameter_sets(codec: str, data: bytes) -> tuple[bytes, ...]:
    """The parameter sets at the head of Annex B data, without start codes, in their order."""
    head = data[:_HEAD_BYTES]
    starts = [match.end() for match in _START.finditer(head)]
    found = []
    for begin, after in zip_longest(starts, starts[1:]):
        # The last unit of the head may be cut off; it counts only if the data ends with it.
        end = len(head) if after is None else after - 3
        if after is None and len(data) > len(head):
            break
        unit = head[begin:end].rstrip(b"\x00")
        if unit and _unit_type(codec, unit[0]) in _SETS[codec]:
            found.append(unit)
    return tuple(found)


class ParameterWatch:
    """The current format of one video stream, kept up to date from its packets.

    Args:
        first: the format the stream was opened with.
        opened: the stream's own decoder, which its container has given a display matrix if it has
            one; decodes the first keyframe alone. None leaves `turn` as it is.
    """

    def __init__(self, first: StreamFormat, opened: av.VideoCodecContext | None = None) -> None:
        self.format = first
        self._unturned = opened  # until the turn is known
        self._sets: frozenset[bytes] = frozenset()
        if is_annex_b(first.codec, first.extradata):
            self._sets = frozenset(parameter_sets(first.codec, first.extradata))

    def format_of(self, packet: Packet) -> StreamFormat:
        """The format of the stream's next packet. Call with every packet, in order."""
        if packet.has_sidedata("new_extradata"):
            self._change(bytes(packet.get_sidedata("new_extradata")), packet)
        elif packet.is_keyframe and is_annex_b(self.format.codec, self.format.extradata):
            codec = self.format.codec
            found = parameter_sets(codec, bytes(memoryview(packet)[:_HEAD_BYTES]))
            has_sps = any(_unit_type(codec, unit[0]) == _SPS[codec] for unit in found)
            if has_sps and not self._sets.issuperset(found):
                self._sets = frozenset(found)
                self._change(b"".join(b"\x00\x00\x00\x01" + unit for unit in found), packet)
        if self._unturned is not None and packet.is_keyframe:
            self._find_turn(self._unturned, packet)
        return self.format

    def _find_turn(self, decoder: av.VideoCodecContext, keyframe: Packet) -> None:
        # PyAV shows a stream's side data only on its pictures.
        try:
            pictures = [*decoder.decode(keyframe), *decoder.decode(None)]
        except av.FFmpegError:
            pictures = []
        if pictures:
            self.format = replace(self.format, turn=Turn.of(pictures[0]))
            self._unturned = None
        else:
            decoder.flush_buffers()

    def _change(self, extradata: bytes, packet: Packet) -> None:
        if extradata != self.format.extradata:
            wh = _decoded_wh(self.format, extradata, packet) or self.format.wh
            self.format = self.format.with_parameters(extradata, wh)


def _decoded_wh(
    format_: StreamFormat, extradata: bytes, keyframe: Packet
) -> tuple[int, int] | None:
    """Picture size by decoding one keyframe: rare enough, and right for every codec."""
    context = new_decoder(format_.codec)
    context.extradata = extradata
    try:
        frames = [*context.decode(keyframe), *context.decode(None)]
    except av.FFmpegError:
        return None
    return (frames[0].width, frames[0].height) if frames else None


class AdtsStripper:
    """Turns AAC with a header on each packet (ADTS: MPEG-TS, some cameras) into plain AAC.

    mp4 needs one description for the whole stream (AudioSpecificConfig, ISO/IEC 14496-3, 1.6.2.1)
    before its first packet. It is made from the first header's profile, rate and channels
    (ISO/IEC 13818-7, 6.2.1).

    Args:
        stream: the input stream.
    """

    def __init__(self, stream: av.AudioStream) -> None:
        self._stream = stream
        self._format: StreamFormat | None = None

    def strip(self, packet: Packet) -> tuple[Packet, StreamFormat] | None:
        """The packet without its header, and its format; None if it has no such header."""
        head = bytes(memoryview(packet)[:7])
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
            return None
        if self._format is None:
            object_type = (head[2] >> 6) + 1
            rate_index = head[2] >> 2 & 0x0F
            channels = (head[2] & 1) << 2 | head[3] >> 6
            config = object_type << 11 | rate_index << 7 | channels << 3
            self._format = StreamFormat.of(self._stream, extradata=config.to_bytes(2, "big"))
        size = 7 if head[1] & 1 else 9  # 9 with a checksum
        plain: Packet = av.Packet(bytes(memoryview(packet)[size:]))
        plain.pts, plain.dts = packet.pts, packet.dts
        plain.duration, plain.time_base = packet.duration, packet.time_base
        plain.is_keyframe = True
        return plain, self._format
