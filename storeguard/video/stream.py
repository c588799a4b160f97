"""What is known of an open source, whatever gives its packets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from storeguard.config.addresses import Address, shown
from storeguard.config.store import CameraConfig
from storeguard.video.packets import Packet, StreamFormat
from storeguard.video.timing import Stamps


class SourceKind(StrEnum):
    """What kind of source an address names."""

    FILE = "file"
    IMAGES = "images"
    RTSP = "rtsp"
    HTTP = "http"
    STREAM = "stream"  # rtmp, srt, udp, rtp, tcp
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What is known of a source once it is open.

    Attributes:
        kind: what the address names.
        live: whether packets arrive as they are captured; False for what can be played twice.
        container: FFmpeg's name of the container or protocol.
        codec: FFmpeg's name of the video codec.
        wh: width and height in pixels; (0, 0) while a live stream has not declared it.
        average_fps: frames per second as declared; None when unknown.
        duration_s: declared length; None for live streams and where it is not declared.
    """

    kind: SourceKind
    live: bool
    container: str
    codec: str
    wh: tuple[int, int]
    average_fps: float | None
    duration_s: float | None

    @property
    def frame_us(self) -> int:
        """The usual time between two pictures in microseconds; 40 ms when unknown."""
        return int(1_000_000 / self.average_fps) if self.average_fps else 40_000

    @property
    def local(self) -> bool:
        """Whether an error is final: a camera may come back, a file does not."""
        return self.kind in {SourceKind.FILE, SourceKind.IMAGES}


@dataclass(frozen=True, slots=True)
class RawPacket:
    """A packet as the source sent it, with its timestamps in microseconds.

    Attributes:
        data: the packet, in the source's own time base.
        format: of its stream; changes when the camera changes its parameters.
        stamps: its timestamps. Both are None for streams that carry none (MJPEG over HTTP), whose
            packets are captured when they arrive.
        untimed: True for such streams.
    """

    data: Packet
    format: StreamFormat
    stamps: Stamps
    untimed: bool = False


class Source(Protocol):
    """An open source. `origin_us` is the timestamp where playing starts, if not at the first."""

    facts: StreamFacts
    origin_us: int | None

    @property
    def lost(self) -> Counter[str]:
        """Pictures that never became packets, so far, by cause."""
        ...

    def packets(self) -> Iterator[RawPacket]:
        """Video and audio packets in decoding order, until the source ends.

        Raises:
            SourceTimeoutError: nothing arrived within `read_timeout_s`.
            SourceError: the connection broke, or the file ended before its declared end.
        """
        ...


def kind_of(address: str) -> SourceKind:
    """The kind of source that an address names; a path is looked up in the file system.

    Raises:
        ConfigError: it is no address.
    """
    parsed = Address.parse(address)
    match parsed.scheme:
        case "rtsp" | "rtsps":
            return SourceKind.RTSP
        case "http" | "https":
            return SourceKind.HTTP
        case "":
            if parsed.opens.startswith("/dev/video"):
                return SourceKind.DEVICE
            return SourceKind.IMAGES if Path(parsed.opens).is_dir() else SourceKind.FILE
        case _:
            return SourceKind.STREAM


def name_of(camera: CameraConfig) -> str:
    """The camera's id and its address without credentials, for messages."""
    return f"camera {camera.id!r}: {shown(camera.source)}"
