"""Audio packets as they are recorded."""

from __future__ import annotations

import av

from storeguard.video.packets import Packet, StreamFormat
from storeguard.video.parameters import AdtsStripper


class AudioPackets:
    """The audio packets of one stream in the form that every container takes.

    Args:
        stream: the input stream.
    """

    def __init__(self, stream: av.AudioStream) -> None:
        self._format = StreamFormat.of(stream)
        has_headers = self._format.codec == "aac" and not self._format.extradata
        self._adts = AdtsStripper(stream) if has_headers else None

    def plain(self, packet: Packet) -> list[tuple[Packet, StreamFormat]]:
        """The packet without a header of its own, and its format; none if it is damaged."""
        if self._adts is None:
            return [(packet, self._format)]
        stripped = self._adts.strip(packet)
        return [] if stripped is None else [stripped]
