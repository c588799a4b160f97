"""One camera's threads: pace, loops, lag, errors, and stopping."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from storeguard.config.store import CameraConfig
from storeguard.testing import FakeClock
from storeguard.testing.video import number_of
from storeguard.video.frame import Frame
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader
from storeguard.video.reader_stats import ReaderState
from storeguard.video.timing import FAST_START
from tests.conftest import MakeVideo
from tests.video.cut_files import cut_short

START = datetime(2026, 5, 1, tzinfo=UTC)
PATIENCE_S = 120.0  # a machine may stand still for a while


class Collector:
    """Keeps what a reader delivers, up to `enough` frames."""

    def __init__(self, enough: int = 10**9) -> None:
        self.frames: list[Frame] = []
        self.packets: list[EncodedPacket] = []
        self.enough = threading.Event()
        self._enough = enough

    def on_frame(self, frame: Frame) -> None:
        if len(self.frames) < self._enough:
            self.frames.append(frame)
        if len(self.frames) >= self._enough:
            self.enough.set()

    def on_packet(self, packet: EncodedPacket) -> None:
        self.packets.append(packet)

    def numbers(self) -> list[int]:
        return [number_of(frame.picture) for frame in self.frames]


def reader(camera: CameraConfig, got: Collector, **settings: object) -> CameraReader:
    return CameraReader(camera, on_frame=got.on_frame, on_packet=got.on_packet, **settings)


def camera(source: object, **settings: object) -> CameraConfig:
    return CameraConfig(id="till", source=str(source), **settings)


def assert_adds_up(playing: CameraReader) -> None:
    stats = playing.stats()
    assert stats.frames_in == stats.frames_decoded + sum(stats.dropped.values())


def test_fast_pace_delivers_every_frame_and_repeats_exactly(video: MakeVideo):
    runs = []
    for _ in range(2):
        got = Collector()
        with reader(camera(video("mp4", b_frames=2), pace="fast"), got) as playing:
            assert playing.join(PATIENCE_S)
        assert playing.stats().state is ReaderState.ENDED
        assert playing.stats().dropped == {}
        runs.append([(f.captured_at, f.time_s, n) for f, n in zip(got.frames, got.numbers())])  # noqa: B905
    assert runs[0] == runs[1]
    assert [n for *_, n in runs[0]] == list(range(30))
    assert runs[0][0][0] == FAST_START
    assert len(got.packets) == 30


def test_fast_pace_waits_for_a_slow_consumer(video: MakeVideo):
    got = Collector()
    gate = threading.Semaphore(0)

    def slowly(frame: Frame) -> None:
        gate.acquire()
        got.on_frame(frame)

    playing = CameraReader(
        camera(video("mp4", num_frames=200), pace="fast"), on_frame=slowly, on_packet=got.on_packet
    )
    with playing:
        for _ in range(100):
            gate.release()
        assert not playing.join(0.3)
        assert len(got.packets) < 200  # reading waits: queue, decoder and one frame in hand
        gate.release(200)
        assert playing.join(PATIENCE_S)
    assert got.numbers() == list(range(200))


def test_real_time_pace_follows_the_clock(video: MakeVideo):
    clock = FakeClock(START)
    got = Collector()
    with reader(camera(video("mp4")), got, clock=clock) as playing:
        assert playing.join(PATIENCE_S)
    assert got.frames[0].captured_at == START
    assert got.frames[-1].captured_at == START + timedelta(seconds=2.9)
    assert clock.monotonic() == pytest.approx(2.9, abs=0.11)
    assert playing.stats().late_s == 0


def test_a_file_on_a_slow_machine_plays_late_but_whole(video: MakeVideo):
    clock = FakeClock(START)
    got = Collector()

    def dawdle(packet: EncodedPacket) -> None:
        got.on_packet(packet)
        clock.advance(5.0 if len(got.packets) == 10 else 0.0)  # the machine stood still

    playing = CameraReader(
        camera(video("mp4")), on_frame=got.on_frame, on_packet=dawdle, clock=clock
    )
    with playing:
        assert playing.join(PATIENCE_S)
    assert got.numbers() == list(range(30))
    # File time goes on undisturbed, and the rest is not rushed: 5 s more in all.
    assert got.frames[-1].time_s == pytest.approx(2.9)
    assert clock.monotonic() == pytest.approx(2.9 + 4.9, abs=0.2)
    assert playing.stats().late_s == pytest.approx(4.9, abs=0.2)


def test_loop_is_one_continuous_time_line_with_scene_cuts(video: MakeVideo):
    got = Collector(enough=75)
    with reader(camera(video("mp4", b_frames=2), loop=True, pace="fast"), got) as playing:
        assert got.enough.wait(PATIENCE_S)
    frames = got.frames[:75]
    assert got.numbers()[:75] == [*range(30), *range(30), *range(15)]
    assert [f.index for f in frames if f.scene_cut] == [30, 60]
    assert [f.time_s for f in frames] == pytest.approx([i / 10 for i in range(75)])
    assert playing.stats().state is ReaderState.STOPPED


def test_loop_skips_the_start_offset_at_its_first_playing_only(video: MakeVideo):
    got = Collector(enough=50)
    settings = {"loop": True, "pace": "fast", "start_offset_s": 1.5}
    with reader(camera(video("mp4"), **settings), got):
        assert got.enough.wait(PATIENCE_S)
    assert got.numbers()[:50] == [*range(15, 30), *range(30), *range(5)]
    assert got.frames[0].captured_at == FAST_START


def test_slow_decoding_drops_frames_but_no_packets(video: MakeVideo):
    got = Collector()
    in_hand, gate, all_read = threading.Event(), threading.Event(), threading.Event()

    def stuck(frame: Frame) -> None:
        in_hand.set()
        gate.wait()
        got.on_frame(frame)

    def read(packet: EncodedPacket) -> None:
        got.on_packet(packet)
        if len(got.packets) == 32:  # half of what may wait for decoding
            assert in_hand.wait(PATIENCE_S)
        if len(got.packets) == 300:
            all_read.set()

    # The fake clock never really waits, so the rest comes while one frame is in hand.
    playing = CameraReader(
        camera(video("mp4", num_frames=300, gop=20)),
        on_frame=stuck,
        on_packet=read,
        clock=FakeClock(START),
    )
    with playing:
        assert all_read.wait(PATIENCE_S)
        assert not playing.join(0.01)
        gate.set()
        assert playing.join(PATIENCE_S)
        stats = playing.stats()
    assert stats.dropped["decode_lag"] > 0
    assert stats.frames_in == 300
    assert_adds_up(playing)
    # After the gap decoding went on at a keyframe, undamaged, and to the end.
    numbers = got.numbers()
    jumps = [b for a, b in pairwise(numbers) if b != a + 1]
    assert jumps
    assert all(number % 20 == 0 for number in jumps)
    assert numbers[-1] == 299


def test_a_consumer_that_raises_does_not_stop_the_camera(video: MakeVideo):
    seen: list[int] = []

    def clumsy(frame: Frame) -> None:
        seen.append(frame.index)
        if frame.index % 3 == 0:
            raise RuntimeError("rtsp://user:secret@camera/ is not to be shown")

    playing = CameraReader(camera(video("mp4"), pace="fast"), on_frame=clumsy)
    with playing:
        assert playing.join(PATIENCE_S)
    stats = playing.stats()
    assert seen == list(range(30))
    assert stats.consumer_errors == 10
    assert "secret" not in (stats.last_error or "")
    assert stats.state is ReaderState.ENDED


def test_a_missing_file_fails_without_another_attempt(tmp_path: Path):
    with reader(camera(tmp_path / "none.mp4"), Collector()) as playing:
        assert playing.join(PATIENCE_S)
    stats = playing.stats()
    assert stats.state is ReaderState.FAILED
    assert "no such file" in (stats.last_error or "")
    assert stats.reconnects == 0


def test_a_file_that_ends_before_its_end_says_so(video: MakeVideo, tmp_path: Path):
    whole = video("mp4", num_frames=100)
    cut = cut_short(whole, tmp_path / "cut.mp4")
    ends = []
    for path in (whole, cut):
        with reader(camera(path, pace="fast"), Collector()) as playing:
            assert playing.join(PATIENCE_S)
        stats = playing.stats()
        assert stats.state is ReaderState.ENDED
        ends.append(stats.ended_early)
    assert ends[0] is None
    assert "truncated: declares 10.0 s of video" in (ends[1] or "")


def test_a_dead_camera_is_retried_with_growing_waits(free_port: int):
    clock = FakeClock(START)
    address = f"rtsp://user:secret@127.0.0.1:{free_port}/stream"
    with reader(camera(address), Collector(), clock=clock, seed=1) as playing:
        while playing.stats().reconnects < 5:
            assert not playing.join(0.01)
    assert playing.stop(timeout_s=PATIENCE_S)
    stats = playing.stats()
    assert stats.state is ReaderState.STOPPED
    assert "Connection refused" in (stats.last_error or "")
    assert "secret" not in (stats.last_error or "")
    assert clock.monotonic() > 0.5 * (0.7 + 1.4 + 2.8 + 5.6)  # 0.5, 1, 2, 4 s, -30 % at most


def test_stop_returns_in_time_while_opening_a_silent_server():
    for deadline_s in (1.0, 10.0, 100.0):  # longer, should the machine stand still until it is over
        settings = {"open_timeout_s": deadline_s, "read_timeout_s": deadline_s}
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/stream"
            server.settimeout(PATIENCE_S)
            playing = reader(camera(address, **settings), Collector())
            began_s = time.monotonic()
            playing.start()
            connection, _ = server.accept()
            with connection:
                ended = playing.stop(timeout_s=0.1)  # FFmpeg still waits, but we do not
                in_time = time.monotonic() - began_s < 0.8 * deadline_s
                assert not (ended and in_time)
                assert playing.stats().state is ReaderState.STOPPED
                # ... and its thread ends by itself at the deadline
                assert playing.stop(timeout_s=deadline_s + PATIENCE_S)
        if not ended:
            break
    assert not ended


def test_stop_is_safe_before_start_and_twice(video: MakeVideo):
    playing = reader(camera(video("mp4")), Collector())
    assert playing.stop()
    with reader(camera(video("mp4"), loop=True), Collector()) as second:
        assert second.stop(timeout_s=PATIENCE_S)
        assert second.stop(timeout_s=PATIENCE_S)
