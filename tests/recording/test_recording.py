"""One recording: what was requested is covered, the first frame decodes, nothing is lost between files."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise, takewhile
from pathlib import Path

import av
import pytest

from storeguard.config.store import Container, RecordingSettings
from storeguard.errors import RecordingError
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.part import part_of
from storeguard.recording.recording import ClipFile, Recording
from storeguard.testing.video import number_of
from storeguard.video.packets import EncodedPacket, MediaKind
from tests.conftest import MakeVideo
from tests.video.clips import (
    START,
    at,
    count_packets,
    decoded_numbers,
    feed_all,
    fill,
    probe,
    read_packets,
)


def record(
    packets: list[EncodedPacket],
    folder: Path,
    *,
    start_s: float,
    end_s: float | None,
    now_s: float,
    **settings: object,
) -> list[ClipFile]:
    """Record from a ring that holds the packets up to `now_s`, then feed it the rest live."""
    past = list(takewhile(lambda p: p.captured_at < at(now_s), packets))
    ring = fill(past)
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(**settings),
        folder=folder,
        requested_start=at(start_s),
        requested_end=None if end_s is None else at(end_s),
        now=at(now_s),
    )
    recording.expect_audio(ring.audio_format())
    number = ring.keyframe_at(at(start_s))
    assert number is not None
    _, kept = ring.read(number, limit=10**6)
    files: list[ClipFile] = []
    for packet in [*kept, *packets[len(past) :]]:
        files += recording.feed(packet)
    return files + recording.close(FaultCode.RECORDER_CLOSED)


ENDED = {FaultCode.RECORDER_CLOSED: None}


def codes(clip: ClipFile) -> set[FaultCode]:
    return {fault.code for fault in clip.faults}


@dataclass(frozen=True)
class Row:
    codec: str
    suffix: str  # of the source: mp4 gives length-prefixed units, ts gives Annex B
    container: str
    gop: int
    b_frames: int = 0
    audio: str | None = None
    drop: float = 0.0  # share of packets that never arrive
    pre_s: float = 1.55
    post_s: float = 1.25
    remuxed: bool = True


ROWS = [
    Row("h264", "mp4", "mp4", gop=10),
    Row("h264", "mp4", "mp4", gop=10, b_frames=2, audio="aac"),
    Row("h264", "mp4", "mkv", gop=25, b_frames=2, audio="aac"),
    Row("h264", "ts", "mp4", gop=10, b_frames=2, audio="aac"),
    Row("h264", "ts", "mkv", gop=10, audio="aac"),
    Row("h264", "mp4", "mp4", gop=1),  # keyframes only
    Row("h264", "mp4", "mp4", gop=40, pre_s=0.0, post_s=0.0),
    Row("h264", "mp4", "mp4", gop=10, pre_s=3.0, post_s=3.0),
    Row("h264", "mp4", "mp4", gop=10, drop=0.3),
    Row("h264", "ts", "mp4", gop=25, b_frames=2, drop=0.5),
    Row("h264", "mp4", "mkv", gop=10, drop=0.5, audio="aac"),
    Row("hevc", "mp4", "mp4", gop=10, b_frames=2, audio="aac"),
    Row("hevc", "ts", "mp4", gop=10, audio="aac"),
    Row("hevc", "ts", "mkv", gop=25, b_frames=2),
    Row("hevc", "mkv", "mkv", gop=10, audio="libopus"),
    Row("hevc", "mp4", "mp4", gop=10, drop=0.3),
    Row("vp8", "webm", "mkv", gop=10, audio="libopus"),
    Row("vp8", "webm", "mp4", gop=10, audio="libopus", remuxed=False),
    Row("mjpeg", "avi", "mp4", gop=1, remuxed=False),
    Row("mjpeg", "avi", "mkv", gop=1, audio="pcm_s16le", remuxed=False),
    Row("mjpeg", "avi", "mp4", gop=1, drop=0.5, remuxed=False),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_clip_covers_what_was_asked(video: MakeVideo, tmp_path: Path, row: Row):
    source = video(
        row.suffix,
        codec=row.codec,
        gop=row.gop,
        b_frames=row.b_frames,
        audio=row.audio,
        num_frames=100,
    )
    dice = random.Random(5)
    packets = [
        p
        for p in read_packets(source)
        if p.is_keyframe or p.kind is MediaKind.AUDIO or dice.random() >= row.drop
    ]
    event_s = 5.02
    start_s, end_s = event_s - row.pre_s, event_s + row.post_s
    (clip,) = record(
        packets, tmp_path, start_s=start_s, end_s=end_s, now_s=5.5, container=row.container
    )
    gop_s = row.gop / 10
    assert (clip.requested_start, clip.requested_end) == (at(start_s), at(end_s))
    assert clip.start <= at(start_s)
    assert clip.complete
    # No more than a keyframe interval too long in front. Behind, the tail of the open B-frame
    # group, and with dropped packets up to the next picture that did arrive.
    assert (at(start_s) - clip.start).total_seconds() <= gop_s
    slack_s = 0.1 * (1 + 2 * row.b_frames) + (1.0 if row.drop else 0.0)
    assert -0.001 <= (clip.end - at(end_s)).total_seconds() <= slack_s or row.drop
    assert clip.codec == (row.codec if row.remuxed else "h264")
    assert list(tmp_path.iterdir()) == [clip.path]
    assert clip.size_bytes == clip.path.stat().st_size
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        # What a player shows: from 0, and as long as is told.
        assert frames[0].time == pytest.approx(0, abs=0.02)
        duration_s = float(container.duration) / 1_000_000
    assert duration_s == pytest.approx((clip.end - clip.start).total_seconds(), abs=0.25)
    assert count_packets(clip.path) == clip.num_frames
    if row.drop and row.remuxed:
        # Damaged where packets are missing; but the first picture is a whole one, at the keyframe.
        assert number_of(frames[0]) == round((clip.start - START).total_seconds() * 10)
        return
    numbers = [number_of(frame) for frame in frames]
    first = round((clip.start - START).total_seconds() * 10)
    assert numbers[0] == first
    last_asked = int(round(end_s * 100) - 1) // 10
    if not row.drop:
        # Every picture of the span is there, in order, at its own time.
        assert numbers[: last_asked - first + 1] == list(range(first, last_asked + 1))
    assert numbers == sorted(numbers)
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.time == pytest.approx((number - first) / 10, abs=0.02)


@pytest.mark.parametrize(
    ("codec", "suffix", "tag"),
    [("h264", "ts", "avc1"), ("hevc", "ts", "hvc1"), ("hevc", "mp4", "hvc1")],
)
def test_mp4_has_its_index_in_front_and_the_tag_players_want(
    video: MakeVideo, tmp_path: Path, codec: str, suffix: str, tag: str
):
    packets = read_packets(video(suffix, codec=codec, num_frames=100, audio="aac"))
    (clip,) = record(packets, tmp_path, start_s=2, end_s=4, now_s=5)
    content = clip.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"moof" not in content
    streams = probe(clip.path)["streams"]
    assert [s["codec_tag_string"] for s in streams] == [tag, "mp4a"]
    assert streams[0]["start_time"] == "0.000000"


@pytest.mark.parametrize(
    ("suffix", "audio", "container", "kept"),
    [
        ("mp4", "aac", "mp4", True),
        ("ts", "aac", "mp4", True),  # loses its ADTS headers on the way
        ("avi", "pcm_s16le", "mkv", True),
        ("avi", "pcm_s16le", "mp4", False),
        ("avi", "pcm_mulaw", "mp4", False),
        ("avi", "pcm_mulaw", "mkv", False),
    ],
)
def test_audio_is_kept_where_the_container_holds_it(  # noqa: PLR0917  # a table's columns
    video: MakeVideo, tmp_path: Path, suffix: str, audio: str, container: str, kept: bool
):
    packets = read_packets(video(suffix, audio=audio, num_frames=100))
    (clip,) = record(packets, tmp_path, start_s=2, end_s=4, now_s=5, container=container)
    assert (FaultCode.AUDIO_LEFT_OUT in codes(clip)) != kept
    with av.open(str(clip.path)) as result:
        sound = result.streams.audio
        assert bool(sound) == kept
        if kept:
            sound_s = sum(f.samples / f.sample_rate for f in result.decode(sound[0]))
            assert sound_s == pytest.approx((clip.end - clip.start).total_seconds(), abs=0.2)


def test_no_end_stops_after_the_default_duration(video: MakeVideo, tmp_path: Path):
    packets = read_packets(video("mp4", num_frames=100))
    (clip,) = record(packets, tmp_path, start_s=3.5, end_s=None, now_s=5, default_duration_s=2.0)
    # Start-before-now and duration together.
    assert (clip.start, clip.end) == (at(3), at(7))
    assert (clip.requested_start, clip.requested_end) == (at(3.5), at(7))


def test_long_recordings_split_without_losing_a_frame(video: MakeVideo, tmp_path: Path):
    packets = read_packets(video("mp4", num_frames=100, b_frames=2))
    clips = record(packets, tmp_path, start_s=1, end_s=9, now_s=2, max_duration_s=2.5)
    assert [clip.part for clip in clips] == [0, 1, 2]
    assert all(clip.complete for clip in clips)
    numbers = [n for clip in clips for n in decoded_numbers(clip.path)]
    assert numbers[:80] == list(range(10, 90))
    assert clips[0].requested_start == at(1)
    assert clips[-1].requested_end == at(9)
    for before, after in pairwise(clips):
        assert before.end == after.start == after.requested_start


def test_a_request_for_more_than_was_kept_has_its_faults(video: MakeVideo, tmp_path: Path):
    packets = [p for p in read_packets(video("mp4", num_frames=100)) if p.time_us >= 4_000_000]
    (clip,) = record(packets, tmp_path, start_s=2, end_s=12, now_s=9)
    assert (clip.start, clip.end) == (at(4), at(10))
    assert not clip.complete
    seconds = {fault.code: fault.seconds for fault in clip.faults}
    assert seconds == {FaultCode.STARTS_LATE: 2.0, FaultCode.ENDS_EARLY: 2.0, **ENDED}


def test_a_resolution_change_begins_a_new_file(video: MakeVideo, tmp_path: Path):
    both = tmp_path / "both.ts"
    with both.open("wb") as out:
        for part in (video("ts"), video("ts", wh=(192, 112), first_number=100)):
            out.write(part.read_bytes())
    clips = record(read_packets(both), tmp_path / "out", start_s=1, end_s=5, now_s=2)
    assert [decoded_numbers(clip.path) for clip in clips] == [
        list(range(10, 30)),
        list(range(100, 120)),
    ]
    with av.open(str(clips[1].path)) as container:
        video_stream = container.streams.video[0]
        assert (video_stream.width, video_stream.height) == (192, 112)


def _reconnected(packets: list[EncodedPacket], gap_s: float) -> list[EncodedPacket]:
    """The same stream lost after 2.5 s and back `gap_s` later, in the middle of a GOP."""
    shift = timedelta(seconds=gap_s)
    later = [
        replace(
            p,
            time_us=p.time_us + int(gap_s * 1e6),
            decode_us=p.decode_us + int(gap_s * 1e6),
            captured_at=p.captured_at + shift,
            connection=1,
            segment=1,
        )
        for p in packets
        if p.time_us >= 2_500_000
    ]
    return [p for p in packets if p.time_us < 2_500_000] + later


@pytest.mark.parametrize(
    ("gap_s", "num_files"),
    [
        (3.0, 1),  # the same parameters: one file, with a real gap in it
        (100.0, 2),  # nobody wants to look at minutes of a still picture
    ],
)
def test_a_reconnect_goes_on_at_a_keyframe(
    video: MakeVideo, tmp_path: Path, gap_s: float, num_files: int
):
    packets = _reconnected(read_packets(video("mp4", num_frames=60)), gap_s)
    clips = record(packets, tmp_path, start_s=1, end_s=gap_s + 5, now_s=2)
    assert len(clips) == num_files
    numbers = [n for clip in clips for n in decoded_numbers(clip.path)]
    assert numbers == [*range(10, 25), *range(30, 50)]
    if num_files == 1:
        with av.open(str(clips[0].path)) as container:
            times_s = [frame.time for frame in container.decode(video=0)]
        assert times_s[15] - times_s[14] == pytest.approx(gap_s + 0.6, abs=0.01)


def test_a_timestamp_jump_leaves_no_gap(video: MakeVideo, tmp_path: Path):
    # A TS file joined to itself: timestamps fall back to the start in the middle.
    twice = tmp_path / "twice.ts"
    twice.write_bytes(video("ts", b_frames=2).read_bytes() * 2)
    (clip,) = record(read_packets(twice), tmp_path / "out", start_s=1, end_s=5, now_s=2)
    with av.open(str(clip.path)) as container:
        frames = list(container.decode(video=0))
    numbers = [number_of(frame) for frame in frames]
    assert numbers[:40] == [*range(10, 30), *range(20)]
    steps = [b.time - a.time for a, b in pairwise(frames[:39])]
    assert steps == pytest.approx([0.1] * 38, abs=0.02)


# --------------------------------------------------------------------------- the recorder's thread


def test_packets_lost_by_a_slow_disk_are_counted(video: MakeVideo, tmp_path: Path):
    packets = read_packets(video("mp4", num_frames=100))
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(),
        folder=tmp_path,
        requested_start=at(1),
        requested_end=at(6),
        now=at(1),
    )
    files = [f for p in packets[10:25] for f in recording.feed(p)]
    recording.lost(8)
    files += [f for p in packets[33:] for f in recording.feed(p)]
    (clip,) = files
    assert not clip.complete
    assert clip.faults == (Fault(code=FaultCode.PACKETS_LOST, count=8),)
    assert decoded_numbers(clip.path) == [*range(10, 25), *range(40, 60)]


@pytest.mark.parametrize("container", list(Container))
def test_a_full_disk_is_an_error_and_leaves_no_junk(
    video: MakeVideo, tmp_path: Path, container: Container
):
    packets = read_packets(video("mp4", num_frames=100))
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(container=container),
        folder=tmp_path,
        requested_start=at(0),
        requested_end=at(9),
        now=at(0),
        recording_id="0" * 32,
    )
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here to stand for a full disk")
    part = part_of(tmp_path / f"till_20260501T000000.000Z_00000000_0.{container}")
    part.symlink_to("/dev/full")  # every write fails with ENOSPC
    with pytest.raises(RecordingError, match="No space left") as caught:
        feed_all(recording, packets)
    assert caught.value.errno == errno.ENOSPC
    assert recording.done
    assert list(tmp_path.iterdir()) == []
