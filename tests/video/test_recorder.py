"""Recording: what was asked is covered, the first frame decodes, and crashes leave clips that play."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path

import av
import pytest

from storeguard.config import CameraConfig, Container, RecordingSettings
from storeguard.errors import NotFoundError, RecordingError
from storeguard.testing import FakeClock
from storeguard.testing_video import VideoSpec, make_video, number_of
from storeguard.video.packets import EncodedPacket, MediaKind, PacketRing
from storeguard.video.part import part_of
from storeguard.video.reader import CameraReader
from storeguard.video.recorder import Recorder, recover
from storeguard.video.recording import ClipFile, Recording
from tests.video.conftest import MakeVideo

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
    _, wanted = ring.read(number, limit=10**6)
    files: list[ClipFile] = []
    for packet in [*wanted, *packets[len(past) :]]:
        files += recording.feed(packet)
    return files + recording.close("the test is over")


def feed_all(recording: Recording, packets: list[EncodedPacket]) -> list[ClipFile]:
    return [file for packet in packets for file in recording.feed(packet)]


def decoded_numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_of(frame) for frame in container.decode(video=0)]


def count_packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def probe(path: Path) -> dict[str, object]:
    """What FFmpeg's own prober says, where it is installed."""
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    words = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))


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
    assert ("audio left out" in clip.note) != kept
    with av.open(str(clip.path)) as result:
        sound = result.streams.audio
        assert bool(sound) == kept
        if kept:
            heard_s = sum(f.samples / f.sample_rate for f in result.decode(sound[0]))
            assert heard_s == pytest.approx((clip.end - clip.start).total_seconds(), abs=0.2)


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


def test_asking_for_more_than_was_kept_is_told(video: MakeVideo, tmp_path: Path):
    packets = [p for p in read_packets(video("mp4", num_frames=100)) if p.time_us >= 4_000_000]
    (clip,) = record(packets, tmp_path, start_s=2, end_s=12, now_s=9)
    assert (clip.start, clip.end) == (at(4), at(10))
    assert not clip.complete
    assert "starts 2.00 s later than asked" in clip.note
    assert "ends 2.00 s earlier than asked" in clip.note


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


class Clips:
    """Collects what a recorder reports."""

    def __init__(self) -> None:
        self.files: list[ClipFile] = []
        self.errors: list[tuple[str, RecordingError]] = []
        self.came = threading.Event()

    def on_clip(self, clip: ClipFile) -> None:
        self.files.append(clip)
        self.came.set()

    def on_error(self, recording_id: str, error: RecordingError) -> None:
        self.errors.append((recording_id, error))
        self.came.set()


@pytest.fixture
def clips() -> Clips:
    return Clips()


@pytest.fixture
def packets(video: MakeVideo) -> list[EncodedPacket]:
    return read_packets(video("mp4", num_frames=100))


def recorder(ring: PacketRing, clips: Clips, folder: Path, **settings: object) -> Recorder:
    return Recorder(
        ring,
        camera_id="till",
        settings=RecordingSettings(**settings),
        folder=folder,
        on_clip=clips.on_clip,
        on_error=clips.on_error,
        clock=FakeClock(START),
    )


@pytest.fixture
def live(
    packets: list[EncodedPacket], clips: Clips, tmp_path: Path
) -> Iterator[tuple[PacketRing, Recorder, list[EncodedPacket]]]:
    """A ring with 5 s in it, its recorder, and the packets still to come."""
    ring = fill(packets[:50])
    recording = recorder(ring, clips, tmp_path)
    yield ring, recording, packets[50:]
    assert recording.close(timeout_s=PATIENCE_S)


Live = tuple[PacketRing, Recorder, list[EncodedPacket]]


def test_overlapping_triggers_make_one_clip(live: Live, clips: Clips):
    ring, recording, rest = live
    first = recording.start(at(3), at(6))
    assert recording.start(at(4.5), at(7)) == first
    assert recording.start(at(4), at(6.5)) == first  # never shortens
    for packet in rest:
        ring.append(packet)
    assert clips.came.wait(PATIENCE_S)
    (clip,) = clips.files
    assert (clip.start, clip.end, clip.requested_end) == (at(3), at(7), at(7))
    assert clip.recording_id == first


def test_a_trigger_that_reaches_further_back_gets_a_clip_of_its_own(live: Live, clips: Clips):
    ring, recording, rest = live
    first, second = recording.start(at(4), at(6)), recording.start(at(1), at(6))
    assert first != second
    for packet in rest:
        ring.append(packet)
    assert recording.close(timeout_s=PATIENCE_S)
    spans = {clip.recording_id: (clip.start, clip.end) for clip in clips.files}
    assert spans == {first: (at(4), at(6)), second: (at(1), at(6))}


def test_stop_ends_now_and_extend_goes_on(live: Live, clips: Clips):
    ring, recording, rest = live
    name = recording.start(at(4), None)
    recording.extend(name, at(60))
    ring.append(rest[0])
    recording.stop(name)
    for packet in rest[1:]:
        ring.append(packet)
    assert clips.came.wait(PATIENCE_S)
    assert clips.files[0].end == at(5.1)
    while recording.active():
        clips.came.wait(0.01)
    with pytest.raises(NotFoundError, match="no recording"):
        recording.stop(name)


def test_the_past_alone_can_be_recorded(live: Live, clips: Clips):
    _, recording, _ = live
    recording.start(at(1.5), at(2.5))
    assert clips.came.wait(PATIENCE_S)
    assert (clips.files[0].start, clips.files[0].end) == (at(1), at(2.5))


def test_a_camera_that_dies_ends_its_recording(
    packets: list[EncodedPacket], clips: Clips, tmp_path: Path
):
    clock = FakeClock(START)
    recording = Recorder(
        fill(packets[:50]),
        camera_id="till",
        settings=RecordingSettings(),
        folder=tmp_path,
        on_clip=clips.on_clip,
        clock=clock,
    )
    recording.start(at(3), at(8))
    while not clips.came.wait(0.05):
        clock.advance(1.0)
    (clip,) = clips.files
    assert not clip.complete
    assert "the camera sent no more" in clip.note
    assert clip.end == at(5)
    assert recording.close(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("wait_s", [0.2, 0.4])  # the ring's own, and one that lets packets gather
def test_a_silent_camera_is_noticed_in_seconds(
    packets: list[EncodedPacket],
    clips: Clips,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait_s: float,
):
    clock, ring = FakeClock(START), fill(packets[:50])

    def gathering(number: int, *, timeout_s: float) -> bool:
        del timeout_s
        clock.advance(wait_s)
        return ring.next_number() > number

    monkeypatch.setattr(ring, "wait", gathering)
    monkeypatch.setattr("storeguard.video.recorder.time", clock)
    recording = Recorder(
        ring,
        camera_id="till",
        settings=RecordingSettings(),
        folder=tmp_path,
        on_clip=clips.on_clip,
        clock=clock,
    )
    began_s = clock.monotonic()
    recording.start(at(3), at(8))
    assert clips.came.wait(PATIENCE_S)
    noticed_s = clock.monotonic() - began_s
    assert recording.close(timeout_s=PATIENCE_S)
    assert not clips.files[0].complete
    assert noticed_s == pytest.approx(
        6.0, abs=0.9
    )  # until what was asked for is over, and 3 s more


def test_a_process_that_stood_still_is_no_silent_camera(
    packets: list[EncodedPacket],
    clips: Clips,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    clock, ring, stalls = FakeClock(START), fill(packets[:50]), iter([20.0, 0.0, 15.0])
    wait = ring.wait

    def held_up(number: int, *, timeout_s: float) -> bool:
        clock.advance(timeout_s + next(stalls, 0.0))
        next(rest, None)  # the reader stood still too, and goes on a little later
        return wait(number, timeout_s=0.001)

    def read_on() -> Iterator[None]:
        yield
        for packet in packets[50:]:
            ring.append(packet)
            yield

    rest = read_on()
    monkeypatch.setattr(ring, "wait", held_up)
    monkeypatch.setattr("storeguard.video.recorder.time", clock)
    recording = Recorder(
        ring,
        camera_id="till",
        settings=RecordingSettings(),
        folder=tmp_path,
        on_clip=clips.on_clip,
        clock=clock,
    )
    recording.start(at(3), at(8))
    assert clips.came.wait(PATIENCE_S)
    assert recording.close(timeout_s=PATIENCE_S)
    (clip,) = clips.files
    assert clip.complete
    assert clip.end >= at(8)


def test_a_recorder_too_slow_for_its_ring_says_so(packets: list[EncodedPacket], tmp_path: Path):
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
    assert "8 packets lost" in clip.note
    assert decoded_numbers(clip.path) == [*range(10, 25), *range(40, 60)]


def test_nothing_to_record_yet(clips: Clips, tmp_path: Path):
    recording = recorder(PacketRing(max_s=10, max_bytes=2**20), clips, tmp_path)
    with pytest.raises(RecordingError, match="no keyframe has come yet"):
        recording.start(at(0), at(1))
    assert recording.close(timeout_s=PATIENCE_S)


def test_an_end_before_the_start_is_refused(live: Live):
    _, recording, _ = live
    with pytest.raises(RecordingError, match="cannot end"):
        recording.start(at(3), at(2))


@pytest.mark.parametrize("container", list(Container))
def test_a_full_disk_is_an_error_and_leaves_no_junk(
    packets: list[EncodedPacket], tmp_path: Path, container: Container
):
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


def test_a_failed_recording_does_not_stop_the_next(live: Live, clips: Clips, tmp_path: Path):
    _, recording, _ = live
    tmp_path.rmdir()
    tmp_path.write_text("a file where the folder should be")
    name = recording.start(at(1), at(2))
    assert clips.came.wait(PATIENCE_S)
    assert [failed for failed, _ in clips.errors] == [name]
    tmp_path.unlink()
    clips.came.clear()
    recording.start(at(1), at(2))
    assert clips.came.wait(PATIENCE_S)
    assert len(clips.files) == 1
    stats = recording.stats()
    assert (stats.clips, stats.failed) == (1, 1)


# --------------------------------------------------------------------------- crashes

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tests.video.test_recorder import Recording, RecordingSettings, at, read_packets
packets = read_packets(Path(sys.argv[1]))
recording = Recording(camera_id="till", settings=RecordingSettings(container=sys.argv[3]),
    folder=Path(sys.argv[2]), requested_start=at(1), requested_end=at(60), now=at(1))
for packet in packets[10:]:
    recording.feed(packet)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("container", list(Container))
@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 2), ("hevc", 0), ("mjpeg", 0)])
def test_kill_9_leaves_a_file_that_plays_and_recovers(
    tmp_path: Path, container: Container, codec: str, b_frames: int
):
    suffix = "avi" if codec == "mjpeg" else "mp4"
    spec = VideoSpec(codec=codec, b_frames=b_frames, num_frames=100)
    source = make_video(tmp_path / f"source.{suffix}", spec)
    folder = tmp_path / "clips"
    root = str(Path(__file__).parent.parent.parent)
    words = [sys.executable, "-c", _KILLED, str(source), str(folder), str(container), root]
    assert subprocess.run(words, check=False).returncode == -9
    (part,) = folder.iterdir()
    assert part.name.startswith(".")
    numbers = decoded_numbers(part)  # plays as it is
    assert numbers == list(range(10, 10 + len(numbers)))
    (clip,) = recover(folder)
    assert list(folder.iterdir()) == [clip.path]
    assert decoded_numbers(clip.path) == numbers
    assert len(numbers) >= 60  # of 90: what a kill may cost is about a group of pictures
    assert clip.num_frames == len(numbers)
    assert (clip.camera_id, clip.start, clip.complete) == ("till", at(1), False)
    assert (clip.end - clip.start).total_seconds() == pytest.approx(len(numbers) / 10, abs=0.4)
    assert clip.requested_end == at(60)


def test_recover_removes_what_cannot_be_played(tmp_path: Path):
    junk = [
        tmp_path / ".a.mp4.part",
        tmp_path / ".b.mkv.part",
        tmp_path / "till" / ".c.mp4.part",
        tmp_path / "till" / ".d.mp4.final",
    ]
    (tmp_path / "till").mkdir()
    for index, path in enumerate(junk):
        path.write_bytes(b"\x00" * 500 * index)
    finished = tmp_path / "till" / "good.mp4"
    finished.write_bytes(b"somebody's finished clip")
    assert recover(tmp_path) == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [finished]


def test_recover_of_a_missing_folder_is_nothing(tmp_path: Path):
    assert recover(tmp_path / "never made") == []
