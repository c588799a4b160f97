"""The ring's bounds, what it returns, and formats that outlive their connection."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime, timedelta

import av
import pytest

from storeguard.clock import SystemClock
from storeguard.config.store import CameraConfig
from storeguard.video.packets import EncodedPacket, MediaKind, PacketRing, StreamFormat
from storeguard.video.source import open_source
from tests.conftest import MakeVideo

START = datetime(2026, 5, 1, tzinfo=UTC)
VIDEO = StreamFormat(MediaKind.VIDEO, "h264")
AUDIO = StreamFormat(MediaKind.AUDIO, "aac", sample_rate=48_000)


def packet(
    time_s: float, *, key: bool = False, size: int = 100, format_: StreamFormat = VIDEO
) -> EncodedPacket:
    return EncodedPacket(
        data=av.Packet(bytes(size)),
        format=format_,
        is_keyframe=key,
        time_us=round(time_s * 1e6),
        decode_us=round(time_s * 1e6),
        duration_us=100_000,
        captured_at=START + timedelta(seconds=time_s),
        connection=0,
        segment=0,
        received_s=0.0,
    )


def filled(
    seconds: float, *, gop: int = 10, max_s: float = 3.0, max_bytes: int = 10**6
) -> PacketRing:
    ring = PacketRing(max_s=max_s, max_bytes=max_bytes)
    for index in range(round(seconds * 10)):
        ring.append(packet(index / 10, key=index % gop == 0))
    return ring


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "gop", "max_s", "max_bytes", "span"),
    [
        (2.0, 10, 3.0, 10**6, (0.0, 2.0)),  # not full yet
        (10.0, 10, 3.0, 10**6, (7.0, 10.0)),
        # Whole groups only, and never less than max_s: 0.5 s into a group the oldest stays.
        (9.5, 10, 3.0, 10**6, (6.0, 9.5)),
        (10.0, 40, 3.0, 10**6, (4.0, 10.0)),  # groups longer than the ring
        (10.0, 10, 30.0, 2500, (8.0, 10.0)),  # bytes bind first: 25 packets of 100
    ],
)
def test_bounds(seconds: float, gop: int, max_s: float, max_bytes: int, span: tuple[float, float]):
    ring = filled(seconds, gop=gop, max_s=max_s, max_bytes=max_bytes)
    assert ring.span() == (at(span[0]), at(span[1]))
    number, packets = ring.read(0, limit=10**6)
    assert number + len(packets) == ring.next_number() == round(seconds * 10)
    assert sum(one.data.size for one in packets) <= max_bytes
    assert packets[0].is_keyframe


def test_a_group_larger_than_the_ring_is_not_kept():
    ring = filled(10.0, gop=1000, max_bytes=2000)
    assert ring.span() is None
    assert sum(one.data.size for one in ring.read(0, limit=10**6)[1]) <= 2000
    ring.append(packet(10.0, key=True))
    assert ring.span() == (at(10.0), at(10.1))


def test_packets_ahead_of_the_first_keyframe_are_not_kept():
    ring = PacketRing(max_s=3, max_bytes=10**6)
    ring.append(packet(0.0))
    ring.append(packet(0.0, format_=AUDIO))
    assert ring.span() is None
    assert ring.keyframe_at(at(0)) is None
    ring.append(packet(0.1, key=True))
    number, (first, *rest) = ring.read(0)
    assert (number, first.time_us, rest) == (2, 100_000, [])


@pytest.mark.parametrize(
    ("requested_s", "found_s"),
    [
        (8.0, 8.0),  # the keyframe itself
        (8.95, 8.0),
        (99.0, 9.0),
        (1.0, 7.0),  # dropped long ago: the oldest in the ring
    ],
)
def test_keyframe_at_or_before(requested_s: float, found_s: float):
    ring = filled(10.0)
    number = ring.keyframe_at(at(requested_s))
    assert number is not None
    begin, (first, *_) = ring.read(number)
    assert begin == number
    assert first.is_keyframe
    assert first.captured_at == at(found_s)


def test_a_reader_goes_on_from_its_cursor_and_sees_what_was_dropped():
    ring = filled(2.0, max_s=1.0)
    number, packets = ring.read(0, limit=5)
    assert number == 10  # the first group was dropped
    assert [p.time_us for p in packets] == [1_000_000 + i * 100_000 for i in range(5)]
    number, packets = ring.read(15)
    assert (number, len(packets)) == (15, 5)
    assert ring.read(20) == (20, ())
    assert ring.next_number() == 20


def test_audio_is_carried_but_neither_begins_nor_dates_the_ring():
    ring = PacketRing(max_s=1.0, max_bytes=10**6)
    for index in range(30):
        ring.append(packet(index / 10, key=index % 10 == 0))
        ring.append(packet(index / 10 + 50, key=True, format_=AUDIO))
    assert ring.audio_format() == AUDIO
    assert ring.span() == (at(2.0), at(3.0))


def test_waiting_for_the_next_packet():
    ring = filled(1.0)
    number = ring.next_number()
    assert not ring.wait(number, timeout_s=0.01)
    timer = threading.Timer(0.05, ring.append, [packet(1.0, key=True)])
    timer.start()
    assert ring.wait(number, timeout_s=120)
    timer.join()


@pytest.mark.parametrize(
    ("suffix", "codec", "audio"),
    [
        ("mp4", "h264", "aac"),
        ("ts", "hevc", None),
        ("webm", "vp8", "libopus"),
        ("avi", "mjpeg", None),
    ],
)
def test_a_format_outlives_its_connection_and_travels(
    video: MakeVideo, suffix: str, codec: str, audio: str | None
):
    path = video(suffix, codec=codec, audio=audio)
    with open_source(CameraConfig(id="till", source=str(path)), clock=SystemClock()) as source:
        packets = list(source.packets())
    first = next(p.format for p in packets if p.format.kind is MediaKind.VIDEO)
    again = pickle.loads(pickle.dumps(first))  # noqa: S301  # our own bytes
    assert again == first
    assert again.header == first.header
    decoder = again.decoder()
    pictures = [
        picture
        for raw in packets
        if raw.format.kind is MediaKind.VIDEO
        for picture in decoder.decode(raw.data)
    ]
    pictures += decoder.decode(None)
    assert len(pictures) == 30


def test_the_same_camera_connected_twice_has_equal_formats(video: MakeVideo):
    camera = CameraConfig(id="till", source=str(video("ts", codec="hevc")))
    formats = []
    for _ in range(2):
        with open_source(camera, clock=SystemClock()) as source:
            formats.append(next(source.packets()).format)
    assert formats[0] == formats[1]
    assert formats[0] != formats[0].with_parameters(b"\x00\x00\x01other", (64, 64))
