"""From raw packets of a source to packets on the camera's time line."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from storeguard.video.packets import MICROSECOND, EncodedPacket, MediaKind
from storeguard.video.stream import RawPacket, Source
from storeguard.video.timing import Placed, Reanchor, Stamps, Timeline


class Placer:
    """Puts one camera's raw packets on its time line, over all its connections."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.connection = -1
        self._segment = -1
        self._frame_us = 0

    def connect(self, source: Source) -> None:
        """Begin a connection: the source was opened, reopened, or started over."""
        self.connection += 1
        self._segment += 1
        self._frame_us = source.facts.frame_us
        length_s = source.facts.duration_s
        self.timeline.connect(
            frame_us=self._frame_us,
            origin_us=source.origin_us,
            length_us=None if length_s is None else round(length_s * 1_000_000),
        )

    def place(self, raw: RawPacket, received_s: float) -> EncodedPacket | None:
        """The packet on the time line; None for audio ahead of the first video."""
        stamps = self._stamps(raw, received_s)
        placed: Placed | None
        if raw.format.kind is MediaKind.VIDEO:
            placed = self.timeline.place(stamps, received_s)
            self._segment += placed.broken
        else:
            placed = self.timeline.place_audio(stamps)
        if placed is None:
            return None
        data = raw.data
        data.time_base = MICROSECOND
        known = stamps.pts_us is not None or raw.untimed
        data.pts = placed.time_us if known or stamps.dts_us is None else None
        data.dts = placed.decode_us
        data.duration = stamps.duration_us
        # Carried through decoders, which reorder pictures and may lose their timestamps.
        data.opaque = (placed.time_us, received_s, stamps.duration_us)
        return EncodedPacket(
            data=data,
            format=raw.format,
            is_keyframe=data.is_keyframe,
            time_us=placed.time_us,
            decode_us=placed.decode_us,
            duration_us=stamps.duration_us,
            captured_at=placed.captured_at,
            connection=self.connection,
            segment=self._segment,
            received_s=received_s,
        )

    def anchor(self, first: list[tuple[RawPacket, float]]) -> list[tuple[RawPacket, float]]:
        """Anchor a live connection at the least delayed of its first packets.

        Returns:
            The packets. Leading ones without timestamps (RTSP leaves out the first) have got some.
        """
        first = self._stamped(first)
        video = [item for item in first if item[0].format.kind is MediaKind.VIDEO]
        delays = [
            self.timeline.arrival_us(received_s) - stamps.pts_us
            for raw, received_s in video
            if (stamps := self._stamps(raw, received_s)).pts_us is not None
        ]
        if delays:
            self.timeline.anchor(self._stamps(*video[0]), min(delays))
        return first

    def _stamped(self, first: list[tuple[RawPacket, float]]) -> list[tuple[RawPacket, float]]:
        video = [raw for raw, _ in first if raw.format.kind is MediaKind.VIDEO and not raw.untimed]
        known = [raw.stamps.pts_us for raw in video if raw.stamps.pts_us is not None]
        bare = list(takewhile(lambda raw: raw.stamps.pts_us is raw.stamps.dts_us is None, video))
        if not known or not bare:
            return first
        step_us = max(raw.stamps.duration_us for raw in video) or self._frame_us
        stamps = {
            id(raw): Stamps(time_us, time_us, step_us)
            for number, raw in enumerate(reversed(bare), start=1)
            for time_us in [min(known) - number * step_us]
        }
        self.timeline.reanchors[Reanchor.MISSING_PTS] += len(bare)
        return [
            (replace(raw, stamps=stamps.get(id(raw), raw.stamps)), received_s)
            for raw, received_s in first
        ]

    def _stamps(self, raw: RawPacket, received_s: float) -> Stamps:
        if not raw.untimed:
            return raw.stamps
        arrival_us = self.timeline.arrival_us(received_s)
        return Stamps(arrival_us, arrival_us, 0)
