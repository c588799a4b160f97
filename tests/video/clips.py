"""Packets to record from, and what is in the clips."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av

from storeguard.config.store import CameraConfig
from storeguard.recording.recording import ClipFile, Recording
from storeguard.testing.video import number_of
from storeguard.video.packets import EncodedPacket, PacketRing
from storeguard.video.reader import CameraReader
from tests.real_parts import required_program

START = datetime(2026, 5, 1, tzinfo=UTC)
PATIENCE_S = 120.0  # a machine may stand still for a while


def read_packets(path: Path) -> list[EncodedPacket]:
    packets: list[EncodedPacket] = []
    camera = CameraConfig(id="till", source=str(path), pace="fast")
    reader = CameraReader(camera, on_frame=lambda _: None, on_packet=packets.append, start=START)
    with reader:
        assert reader.join(PATIENCE_S)
    return packets


def fill(packets: list[EncodedPacket], *, max_s: float = 600) -> PacketRing:
    ring = PacketRing(max_s=max_s, max_bytes=2**28)
    for packet in packets:
        ring.append(packet)
    return ring


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def feed_all(recording: Recording, packets: list[EncodedPacket]) -> list[ClipFile]:
    return [file for packet in packets for file in recording.feed(packet)]


def decoded_numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(frame) for frame in container.decode(video=0)]


def count_packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def probe(path: Path) -> dict[str, object]:
    """What FFmpeg's own prober reports of a file."""
    words = [required_program("ffprobe"), "-v", "error", "-show_streams", "-of", "json", str(path)]
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))
