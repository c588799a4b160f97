"""Reads one camera: one thread reads packets, another decodes them.

Except for files at pace `fast`, reading never waits for decoding. So packets are recorded, and the
camera is known to be alive, however slow the rest of the system is.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Self

from storeguard.backoff import Backoff, BackoffSettings
from storeguard.clock import Clock, SystemClock
from storeguard.config.addresses import reason_of, redact, shown, trace_of
from storeguard.config.store import CameraConfig, Pace
from storeguard.errors import SourceError, SourceTimeoutError
from storeguard.video.decode_queue import DecodeQueue, Mark, QueueLimits
from storeguard.video.decoder import FrameDecoder
from storeguard.video.frame import Frame
from storeguard.video.pacing import Pacer, sleep_until
from storeguard.video.packets import EncodedPacket, MediaKind
from storeguard.video.placing import Placer
from storeguard.video.reader_stats import ReaderState, ReaderStats
from storeguard.video.source import open_source
from storeguard.video.stream import RawPacket, Source, SourceKind, StreamFacts, kind_of
from storeguard.video.timing import FAST_START, Reanchor, Timeline

_log = logging.getLogger(__name__)

_FPS_WINDOW_S = 5.0
_ANCHOR_S = 0.3  # packets held back on connecting, to anchor at the least delayed
_ANCHOR_PACKETS = 256
_NO_PICTURE_S = 120.0  # video without a picture for this long is connected again
_STABLE_S = 10.0  # a connection that lasted this long resets the backoff
_LOCAL = {SourceKind.FILE, SourceKind.IMAGES}


def _named(reanchors: Mapping[Reanchor, int]) -> dict[str, int]:
    # dict() copies at once, while the reading thread may be adding a cause.
    return {str(cause): times for cause, times in dict(reanchors).items()}


def read_frames(
    camera: CameraConfig,
    *,
    start: datetime = FAST_START,
    threads: int = 0,
    dropped: Counter[str] | None = None,
) -> Iterator[Frame]:
    """Every frame of a file or image folder, once, in order, as fast as they can be decoded.

    Deterministic: capture times are file time from `start`. A live source works too; its frames
    have the times at which they were captured.

    Args:
        camera: its settings; `pace` and `loop` are ignored.
        start: capture time of the first frame.
        threads: of the decoder; 0 takes one per core.
        dropped: frames lost, by cause, are added to it at the end.

    Raises:
        SourceError: it cannot be opened or read; for a truncated file after its last frame.
    """
    clock = SystemClock()
    with open_source(camera, clock=clock) as source:
        live = source.facts.live
        placer = Placer(Timeline(clock, live=live, start=None if live else start))
        skip_before_us = None if source.origin_us is None else 0
        decoder = FrameDecoder(camera.id, threads=threads, skip_before_us=skip_before_us)
        placer.connect(source)
        failure: SourceError | None = None
        packets = source.packets()
        while True:
            try:
                raw = next(packets)
            except StopIteration:
                break
            except SourceError as error:
                failure = error
                break
            packet = placer.place(raw, clock.monotonic())
            if packet is not None:
                yield from decoder.decode(packet)
        yield from decoder.drain()
        if dropped is not None:
            dropped.update(decoder.dropped + source.lost)
    if failure is not None:
        raise failure
    if not decoder.num_frames:
        raise SourceError(
            f"camera {camera.id!r}: {shown(camera.source)}: no frame could be decoded "
            f"({dict(decoder.dropped)})"
        )


class CameraReader:
    """Reads and decodes one camera on two threads until stopped.

    Both callbacks run on the reader's threads, one call at a time each. An exception of a callback
    is logged and counted, and reading continues. While `on_frame` is slow, frames are dropped
    (`decode_lag`) but no packets; at pace `fast` reading waits instead and nothing is dropped.

    Args:
        camera: its settings.
        on_frame: called with every decoded frame, on the decoding thread.
        on_packet: called with every packet, video and audio, on the reading thread as soon as it
            is read. It must not block: append to a `PacketRing`, no more.
        clock: paces files, times backoff and stamps captures.
        start: capture time of a file's first frame; None takes 1970-01-01 at pace `fast`, so
            that runs repeat exactly, and the moment of first playing at real-time pace.
        seed: of the backoff's jitter.
        threads: of the decoder, see `FrameDecoder`.
        queue: bounds of the packets that wait to be decoded.
    """

    def __init__(
        self,
        camera: CameraConfig,
        *,
        on_frame: Callable[[Frame], None],
        on_packet: Callable[[EncodedPacket], None] | None = None,
        clock: Clock | None = None,
        start: datetime | None = None,
        seed: int | str | None = None,
        threads: int = 1,
        queue: QueueLimits | None = None,
    ) -> None:
        self._camera = camera
        self._on_frame = on_frame
        self._on_packet = on_packet
        self._clock = clock or SystemClock()
        self._fast = camera.pace is Pace.FAST
        self._start_at = start
        self._backoff = Backoff(
            BackoffSettings(
                initial_s=camera.reconnect.initial_s,
                max_s=camera.reconnect.max_s,
                jitter=camera.reconnect.jitter,
            ),
            seed=seed,
        )
        self._queue = DecodeQueue(queue, lossless=self._fast, clock=self._clock)
        skip_before_us = 0 if camera.start_offset_s else None
        self._decoder = FrameDecoder(camera.id, threads=threads, skip_before_us=skip_before_us)
        self._placer: Placer | None = None
        self._stop = threading.Event()
        self._done = threading.Event()
        self._lock = threading.Lock()  # guards what follows
        self._state = ReaderState.CONNECTING
        self._frames_in = 0
        self._frames_decoded = 0
        self._consumer_errors = 0
        self._reconnects = 0
        self._last_error: str | None = None
        self._facts: StreamFacts | None = None
        self._source: Source | None = None
        self._lost: Counter[str] = Counter()  # by earlier sources
        self._arrivals_s: deque[float] = deque()
        self._late_s = 0.0
        self._pictureless_since_s: float | None = None  # first packet since the last picture
        self._consuming = False
        self._ended_early: str | None = None
        name = f"camera-{camera.id}"
        self._threads = (
            threading.Thread(target=self._read_loop, name=f"{name}-read", daemon=True),
            threading.Thread(target=self._decode_loop, name=f"{name}-decode", daemon=True),
        )

    def start(self) -> None:
        """Start the threads; returns at once."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_s: float = 10.0) -> bool:
        """Stop and join the threads; safe to call twice.

        FFmpeg cannot be interrupted while it opens or reads, but each of its steps ends at the
        camera's deadlines. So this returns after at most `timeout_s`; a thread that still waits for
        a dead camera ends within `open_timeout_s` a step or `read_timeout_s`, and then closes its
        connection. No callback begins after this returns.

        Returns:
            True if both threads have ended.
        """
        self._stop.set()
        self._queue.close()
        deadline_s = SystemClock().monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, deadline_s - SystemClock().monotonic()))
        with self._lock:
            if self._state not in {ReaderState.ENDED, ReaderState.FAILED}:
                self._state = ReaderState.STOPPED
        return not any(thread.is_alive() for thread in self._threads)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the source has ended or failed and `on_frame` has had its last frame."""
        return self._done.wait(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stats(self) -> ReaderStats:
        """Counters at this moment."""
        now_s = self._clock.monotonic()
        timeline = None if self._placer is None else self._placer.timeline
        dropped = self._decoder.dropped.copy() + self._queue.dropped()
        with self._lock:
            dropped += self._lost
            if self._source is not None:
                dropped += self._source.lost
            self._drop_old_arrivals(now_s)
            facts, state = self._facts, self._state
            no_picture_s = self._no_picture_s(now_s)
            if state is ReaderState.PLAYING and no_picture_s > self._camera.read_timeout_s:
                state = ReaderState.NO_PICTURE
            return ReaderStats(
                state=state,
                frames_in=self._frames_in,
                frames_decoded=self._frames_decoded,
                dropped=dict(dropped),
                consumer_errors=self._consumer_errors,
                reconnects=self._reconnects,
                reanchors={} if timeline is None else _named(timeline.reanchors),
                last_error=self._last_error,
                codec=None if facts is None else facts.codec,
                wh=self._decoder.wh or (None if facts is None else facts.wh),
                fps_in=len(self._arrivals_s) / _FPS_WINDOW_S,
                late_s=self._late_s,
                wall_offset_s=0.0 if timeline is None else timeline.wall_offset_s(),
                no_picture_s=no_picture_s,
                ended_early=self._ended_early,
                live=None if facts is None else facts.live,
                average_fps=None if facts is None else facts.average_fps,
            )

    # ------------------------------------------------------------------ reading thread

    def _read_loop(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    finished = self._attempt()
                except Exception as error:  # noqa: BLE001  # a fault of ours must not blind a camera
                    finished = self._after_unexpected(error)
                if finished:
                    break
        finally:
            self._queue.mark(Mark.END)

    def _attempt(self) -> bool:
        began_s = self._clock.monotonic()
        try:
            return self._play_once()
        except SourceError as error:
            return self._after(error, self._clock.monotonic() - began_s)

    def _play_once(self) -> bool:
        """Open the source and deliver its packets until it ends; True if no pass follows."""
        first_pass = self._placer is None
        offset_s = None if first_pass else 0.0
        with open_source(
            self._camera, clock=self._clock, start_offset_s=offset_s, stopped=self._stop.is_set
        ) as source:
            placer = self._placer or self._new_placer(source)
            placer.connect(source)
            with self._lock:
                if self._source is not None:
                    self._lost += self._source.lost
                self._facts, self._source = source.facts, source
            self._placer = placer
            num_before = self._frames_in
            if source.facts.live:
                self._play_live(source, placer)
            else:
                self._play_file(source, placer)
            played = self._frames_in > num_before
        if self._stop.is_set():
            return True
        if not played:
            raise SourceError(
                f"camera {self._camera.id!r}: {shown(self._camera.source)}: "
                "expected video packets, found none"
            )
        if not self._camera.loop:
            local = kind_of(self._camera.source) in _LOCAL
            self._end(None if local else "the address gave a film that has an end")
            return True
        self._queue.mark(Mark.SCENE_CUT)
        return False

    def _new_placer(self, source: Source) -> Placer:
        live = source.facts.live
        start = self._start_at
        if start is None and self._fast and not live:
            start = FAST_START
        return Placer(Timeline(self._clock, live=live, start=None if live else start))

    def _play_live(self, source: Source, placer: Placer) -> None:
        held: list[tuple[RawPacket, float]] | None = []
        connected_s = self._clock.monotonic()

        def deliver_held() -> None:
            nonlocal held
            first, held = held or [], None
            for item, item_received_s in placer.anchor(first) if first else ():
                self._place_and_deliver(placer, item, item_received_s)

        try:
            for raw in source.packets():
                received_s = self._clock.monotonic()
                if self._stop.is_set():
                    return
                self._require_pictures(received_s, connected_s)
                if held is None or raw.untimed:
                    self._place_and_deliver(placer, raw, received_s)
                    continue
                held.append((raw, received_s))
                if received_s - held[0][1] >= _ANCHOR_S or len(held) >= _ANCHOR_PACKETS:
                    deliver_held()
        finally:
            if not self._stop.is_set():
                deliver_held()

    def _require_pictures(self, now_s: float, connected_s: float) -> None:
        with self._lock:
            no_picture_s = min(self._no_picture_s(now_s), now_s - connected_s)
        if no_picture_s > _NO_PICTURE_S:
            raise SourceTimeoutError(
                f"camera {self._camera.id!r}: {shown(self._camera.source)}: video arrives, but "
                f"no picture could be decoded for {no_picture_s:.0f} s "
                f"({dict(self._decoder.dropped)})"
            )

    def _play_file(self, source: Source, placer: Placer) -> None:
        pacer = Pacer(self._clock, self._stop.is_set)
        for raw in source.packets():
            if self._stop.is_set():
                return
            packet = placer.place(raw, self._clock.monotonic())
            if packet is None:
                continue
            due_s = packet.decode_us / 1_000_000
            # Packets before the start offset are only needed for decoding: they are due at once.
            if not self._fast and (source.origin_us is None or due_s >= 0):
                late_s = pacer.wait(due_s)
                with self._lock:
                    self._late_s += late_s
                if self._stop.is_set():
                    return
            self._deliver(packet, self._clock.monotonic())

    def _place_and_deliver(self, placer: Placer, raw: RawPacket, received_s: float) -> None:
        packet = placer.place(raw, received_s)
        if packet is not None:
            self._deliver(packet, received_s)

    def _deliver(self, packet: EncodedPacket, now_s: float) -> None:
        if packet.kind is MediaKind.VIDEO:
            with self._lock:
                self._frames_in += 1
                self._arrivals_s.append(now_s)
                self._drop_old_arrivals(now_s)
                if self._pictureless_since_s is None:
                    self._pictureless_since_s = now_s
                if self._state is not ReaderState.PLAYING and not self._stop.is_set():
                    self._state = ReaderState.PLAYING
        if self._on_packet is not None:
            try:
                self._on_packet(packet)
            except Exception as error:  # noqa: BLE001  # a consumer must not stop the camera
                self._consumer_failed(error)
        self._queue.put(packet)

    def _after(self, error: SourceError, lasted_s: float) -> bool:
        """Handle an error: wait before the next attempt, or give up; True if it is final."""
        text = redact(str(error))
        if self._stop.is_set():
            return True
        if kind_of(self._camera.source) in _LOCAL:
            played = self._frames_in > 0
            if played and self._camera.loop:
                # A truncated file still loops over the part that can be read.
                self._set(ReaderState.PLAYING, error=text)
                self._queue.mark(Mark.SCENE_CUT)
                return False
            _log.warning("%s", text)
            if played:
                self._end(text, error=text)
            else:
                self._set(ReaderState.FAILED, error=text)
            return True
        if lasted_s >= _STABLE_S:
            self._backoff.reset()
        self._retry(text)
        return False

    def _after_unexpected(self, error: Exception) -> bool:
        _log.error("camera %r: reading failed: %s", self._camera.id, trace_of(error))
        name = f"camera {self._camera.id!r}: {shown(self._camera.source)}"
        self._retry(f"{name}: reading failed unexpectedly: {type(error).__name__}, see the log")
        return self._stop.is_set()

    def _retry(self, text: str) -> None:
        with self._lock:
            self._reconnects += 1
        wait_s = self._backoff.next_s()
        self._set(ReaderState.RECONNECTING, error=text)
        _log.warning("%s; trying again in %.1f s", text, wait_s)
        sleep_until(self._clock, self._clock.monotonic() + wait_s, self._stop.is_set)

    # ------------------------------------------------------------------ decoding thread

    def _decode_loop(self) -> None:
        while True:
            item = self._queue.take(timeout_s=1.0)
            if item is None:
                continue
            for frame in self._frames_of(item):
                if self._stop.is_set():
                    break
                self._deliver_frame(frame)
            if item is Mark.END:
                break
        self._done.set()

    def _frames_of(self, item: EncodedPacket | Mark) -> Iterator[Frame]:
        match item:
            case EncodedPacket():
                return self._decoder.decode(item)
            case Mark.SCENE_CUT:
                return self._decoder.cut_scene()
            case Mark.RESYNC:
                return self._decoder.resync()
            case Mark.END:
                return self._decoder.drain()

    def _deliver_frame(self, frame: Frame) -> None:
        with self._lock:
            self._frames_decoded += 1
            self._consuming = True
        try:
            self._on_frame(frame)
        except Exception as error:  # noqa: BLE001  # a consumer must not stop the camera
            self._consumer_failed(error)
        with self._lock:
            self._consuming = False
            self._pictureless_since_s = None

    # ------------------------------------------------------------------ both

    def _consumer_failed(self, error: Exception) -> None:
        _log.error(
            "camera %r: the consumer of its frames or packets raised %s",
            self._camera.id,
            trace_of(error),
        )
        with self._lock:
            self._consumer_errors += 1
            self._last_error = f"the consumer of its frames or packets raised {reason_of(error)}"

    def _set(self, state: ReaderState, *, error: str | None = None) -> None:
        with self._lock:
            self._state = state
            if error is not None:
                self._last_error = error

    def _end(self, early: str | None, *, error: str | None = None) -> None:
        with self._lock:
            self._ended_early = early
        self._set(ReaderState.ENDED, error=error)

    def _no_picture_s(self, now_s: float) -> float:
        """Call with the lock. A consumer that takes its time with a picture is no lack of them."""
        if self._pictureless_since_s is None or self._consuming:
            return 0.0
        return now_s - self._pictureless_since_s

    def _drop_old_arrivals(self, now_s: float) -> None:
        while self._arrivals_s and self._arrivals_s[0] < now_s - _FPS_WINDOW_S:
            self._arrivals_s.popleft()
