"""Opening a camera's address and reading encoded packets from it.

An address is a file, a folder of images, a V4L2 device, or one with a scheme (see
`storeguard.config.addresses.Address`). Opening and reading always have deadlines, on video too
while audio or other data arrives. Errors name the
camera's id and its address without credentials.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.stream import Disposition

from storeguard.clock import Clock
from storeguard.config.addresses import Address, reason_of
from storeguard.config.store import CameraConfig
from storeguard.errors import (
    ConfigError,
    EmptySourceError,
    SourceError,
    SourceTimeoutError,
)
from storeguard.video.audio import AudioPackets
from storeguard.video.pacing import Pacer
from storeguard.video.packets import Packet, StreamFormat
from storeguard.video.parameters import ParameterWatch
from storeguard.video.picture_sources import ImageFolder, StillPictures
from storeguard.video.stills import is_still
from storeguard.video.stream import RawPacket, Source, SourceKind, StreamFacts, kind_of, name_of
from storeguard.video.timing import Stamps

_log = logging.getLogger(__name__)

_HLS = "hls"
_UNTIMED_FORMATS = {"mpjpeg"}  # FFmpeg invents their timestamps from a nominal rate
_SEGMENT_S = 30.0  # HLS: segments last 2 to 10 s, and may come 1.5 times as late (RFC 8216, 6.2.1)
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails
_SLACK = 0.8  # an error after this fraction of a deadline is taken to be the deadline


@contextmanager
def open_source(
    camera: CameraConfig,
    *,
    clock: Clock,
    start_offset_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Source]:
    """Open a camera's source, and close it at the end of the `with` block.

    Args:
        camera: its settings.
        clock: measures the deadlines.
        start_offset_s: seconds of a file to skip; None takes the camera's own setting.
        stopped: whether to wait no longer for pictures or packets that are not due yet.

    Raises:
        SourceTimeoutError: it did not answer within `open_timeout_s`. FFmpeg first connects and
            then probes the stream; each step has this deadline.
        EmptySourceError: there is no video in it.
        SourceError: anything else that keeps it from being opened.
    """
    try:
        kind, address = kind_of(camera.source), Address.parse(camera.source)
    except ConfigError as error:
        raise SourceError(f"{name_of(camera)}: {error}") from None
    if address.is_path:
        camera = camera.model_copy(update={"source": address.opens})
    offset_s = camera.start_offset_s if start_offset_s is None else start_offset_s
    if kind is SourceKind.IMAGES:
        yield ImageFolder(camera, offset_s)
        return
    if kind is SourceKind.FILE:
        _require_video_file(camera)
    if kind is SourceKind.DEVICE and not Path(camera.source).exists():
        raise SourceError(f"{name_of(camera)}: no such device")
    container = _open_container(camera, kind, clock)
    if kind is SourceKind.HTTP and is_still(container):
        with container:
            stills = StillPictures(
                camera,
                container,
                open_again=lambda: _open_container(camera, kind, clock),
                clock=clock,
                stopped=stopped,
            )
        yield stills
        return
    if kind is SourceKind.HTTP and container.format.name == _HLS and not _duration_s(container):
        container.close()
        container = _open_container(camera, kind, clock, wait_s=_SEGMENT_S)
    with container:
        yield _FFmpegSource(
            camera, container, kind=kind, clock=clock, offset_s=offset_s, stopped=stopped
        )


def _open_container(
    camera: CameraConfig, kind: SourceKind, clock: Clock, *, wait_s: float = 0.0
) -> av.container.InputContainer:
    """Open an address; reading may take `wait_s` longer than `read_timeout_s`."""
    started_s = clock.monotonic()
    try:
        return av.open(
            Address.parse(camera.source).opens,
            format="v4l2" if kind is SourceKind.DEVICE else None,
            options=_options(camera, kind),
            timeout=(camera.open_timeout_s, camera.read_timeout_s + wait_s),
        )
    except Exception as error:  # noqa: BLE001  # its text may quote the address
        waited_s = clock.monotonic() - started_s
        raise _open_failure(camera, kind, error, waited_s) from None


def _duration_s(container: av.container.InputContainer) -> float | None:
    duration = container.duration
    return duration / 1_000_000 if duration and duration > 0 else None


def _options(camera: CameraConfig, kind: SourceKind) -> dict[str, str]:
    match kind:
        case SourceKind.RTSP:
            return {
                "rtsp_transport": camera.rtsp_transport,
                # A second guard on the socket itself, under PyAV's own deadline.
                "timeout": str(int(camera.read_timeout_s * 1_000_000)),
                # The SDP declares the codec; longer probing would only delay the first picture.
                "analyzeduration": "1000000",
            }
        case SourceKind.HTTP:
            return {
                "rw_timeout": str(int(camera.read_timeout_s * 1_000_000)),
                "live_start_index": "-1",  # HLS: begin with the newest segment
            }
        case SourceKind.STREAM:
            return {"rw_timeout": str(int(camera.read_timeout_s * 1_000_000))}
        case SourceKind.FILE:
            return {"fflags": "+genpts"}  # AVI keeps none for streams with B-frames
        case _:
            return {}


def _require_video_file(camera: CameraConfig) -> None:
    try:
        status = os.stat(camera.source)  # noqa: PTH116  # may also be bytes-like odd names
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SourceError(f"{name_of(camera)}: {reason}") from None
    if not stat.S_ISREG(status.st_mode):
        # Opening a FIFO would block without end; no deadline applies to it.
        raise SourceError(f"{name_of(camera)}: expected a regular file")
    if status.st_size == 0:
        raise EmptySourceError(f"{name_of(camera)}: the file is empty (0 bytes)")


def _open_failure(
    camera: CameraConfig, kind: SourceKind, error: Exception, waited_s: float
) -> SourceError:
    limit_s = min(camera.open_timeout_s, camera.read_timeout_s)
    late = waited_s >= _SLACK * limit_s and not isinstance(error, ConnectionRefusedError)
    if kind is not SourceKind.FILE and (
        late or isinstance(error, av.error.ExitError | TimeoutError)
    ):
        return SourceTimeoutError(
            f"{name_of(camera)}: no answer within {waited_s:.1f} s "
            f"(open_timeout_s {camera.open_timeout_s:g}, read_timeout_s {camera.read_timeout_s:g})"
        )
    if kind is SourceKind.FILE and isinstance(error, ValueError):
        return SourceError(
            f"{name_of(camera)}: not a video that FFmpeg can read, or cut off before its index"
        )
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = Address.parse(camera.source).scheme
        return SourceError(f"{name_of(camera)}: the installed FFmpeg cannot read {scheme}://")
    return SourceError(f"{name_of(camera)}: cannot be opened: {reason_of(error)}")


def _chosen_video(camera: CameraConfig, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that `stream_index` names, else FFmpeg's best; attached pictures are no video.

    FFmpeg prefers the default stream even if it is a thumbnail, so a stream that is known to have
    one picture yields to any other.
    """
    videos = [s for s in container.streams.video if not s.disposition & _STILL]
    if not videos:
        others = ", ".join(
            "an attached picture" if s.type == "video" else s.type for s in container.streams
        )
        raise EmptySourceError(
            f"{name_of(camera)}: expected a video stream, found {others or 'nothing at all'}"
        )
    if camera.stream_index is None:
        films = [s for s in videos if s.frames != 1] or videos
        best = container.streams.best("video")
        return next((s for s in films if s is best), films[0])
    for stream in videos:
        if stream.index == camera.stream_index:
            return stream
    found = ", ".join(str(s.index) for s in videos)
    raise SourceError(
        f"{name_of(camera)}: stream_index: expected the index of a video stream ({found}), found "
        f"{camera.stream_index}"
    )


class _FFmpegSource:
    """A source that FFmpeg demuxes."""

    def __init__(
        self,
        camera: CameraConfig,
        container: av.container.InputContainer,
        *,
        kind: SourceKind,
        clock: Clock,
        offset_s: float,
        stopped: Callable[[], bool],
    ) -> None:
        self._camera, self._container, self._clock = camera, container, clock
        self._pacer = Pacer(clock, stopped, longest_s=_SEGMENT_S)
        self._video = _chosen_video(camera, container)
        if self._video.codec_context is None:
            raise SourceError(f"{name_of(camera)}: FFmpeg has no decoder for its video codec")
        self._audio = next(
            (s for s in container.streams.audio if s.codec_context is not None), None
        )
        self.facts = self._facts(kind)
        if self.facts.local and 0 in self.facts.wh:
            raise EmptySourceError(
                f"{name_of(camera)}: its frames have no size, found "
                f"{self.facts.wh[0]}x{self.facts.wh[1]}"
            )
        self.origin_us = None if self.facts.live else self._seek(offset_s)
        self.lost: Counter[str] = Counter()

    def _facts(self, kind: SourceKind) -> StreamFacts:
        video = self._video
        rate = video.average_rate or video.guessed_rate
        duration_s = _duration_s(self._container)
        live = kind in {SourceKind.RTSP, SourceKind.STREAM, SourceKind.DEVICE} or (
            kind is SourceKind.HTTP and duration_s is None
        )
        return StreamFacts(
            kind=kind,
            live=live,
            container=self._container.format.name,
            codec=video.codec_context.name,
            wh=(video.codec_context.width, video.codec_context.height),
            average_fps=float(rate) if rate else None,
            duration_s=None if live else duration_s,
        )

    def _seek(self, offset_s: float) -> int | None:
        if not offset_s:
            return None
        if self.facts.duration_s is not None and offset_s >= self.facts.duration_s:
            raise EmptySourceError(
                f"{name_of(self._camera)}: start_offset_s is {offset_s:g}, but the video is only "
                f"{self.facts.duration_s:.1f} s long"
            )
        begin_us = self._container.start_time or 0
        target_us = begin_us + int(offset_s * 1_000_000)
        self._container.seek(target_us, backward=True)
        return target_us

    def packets(self) -> Iterator[RawPacket]:
        untimed = self.facts.container in _UNTIMED_FORMATS
        watch = ParameterWatch(StreamFormat.of(self._video), self._video.codec_context)
        audio = None if self._audio is None else AudioPackets(self._audio)
        # Of a live source also what is not used: a camera may go on with that and send no video.
        wanted = None if self.facts.live else (self._video, self._audio)
        streams = [s for s in wanted or self._container.streams if s is not None]
        last_us = 0
        requested_s = video_since_s = self._clock.monotonic()
        try:
            for packet in self._container.demux(streams):
                if not packet.size:  # at the end: what was waited for is the end
                    continue
                stamps = Stamps(None, None, 0) if untimed else _stamps(packet)
                if packet.stream is self._video:
                    last_us = max(last_us, (stamps.pts_us or 0) + stamps.duration_us)
                    self._wait_until_due(stamps)
                    yield RawPacket(packet, watch.format_of(packet), stamps, untimed)
                    video_since_s = self._clock.monotonic()
                else:
                    self._require_video(packet.stream.type, video_since_s)
                    if packet.stream is self._audio and audio is not None:
                        yield from (RawPacket(*one, stamps) for one in audio.plain(packet))
                requested_s = self._clock.monotonic()
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, SourceError):
                raise
            raise self._read_failure(error, self._clock.monotonic() - requested_s) from None
        if self.facts.live:
            raise self._read_failure(None, self._clock.monotonic() - requested_s)
        self._require_whole(last_us)

    def _wait_until_due(self, stamps: Stamps) -> None:
        """Segments come many seconds at once: played by their timestamps, none is passed over."""
        if self._is_segmented and stamps.dts_us is not None:
            self._pacer.wait(stamps.dts_us / 1_000_000)

    @property
    def _is_segmented(self) -> bool:
        return self.facts.live and self.facts.container == _HLS

    @property
    def _limit_s(self) -> float:
        return self._camera.read_timeout_s + (_SEGMENT_S if self._is_segmented else 0.0)

    @property
    def _limit_words(self) -> str:
        words = f"read_timeout_s {self._camera.read_timeout_s:g}"
        return (
            f"{words}, and {_SEGMENT_S:g} s for the next segment" if self._is_segmented else words
        )

    def _require_video(self, found: str, video_since_s: float) -> None:
        waited_s = self._clock.monotonic() - video_since_s
        if self.facts.live and waited_s > self._limit_s:
            raise SourceTimeoutError(
                f"{name_of(self._camera)}: sent no video for {waited_s:.1f} s, while its {found} "
                f"stream went on ({self._limit_words})"
            )

    def _read_failure(self, error: Exception | None, waited_s: float) -> SourceError:
        late = waited_s >= _SLACK * self._limit_s
        if isinstance(error, av.error.ExitError | TimeoutError) or late:
            return SourceTimeoutError(
                f"{name_of(self._camera)}: sent nothing for {waited_s:.1f} s ({self._limit_words})"
            )
        reason = "the other side ended the stream" if error is None else reason_of(error)
        return SourceError(f"{name_of(self._camera)}: reading failed: {reason}")

    def _require_whole(self, last_us: int) -> None:
        """A file that stops well before the end its own index declares was cut off."""
        video = self._video
        if not video.duration or video.time_base is None:
            return
        begin_us = int((video.start_time or 0) * video.time_base * 1_000_000)
        declared_s = float(video.duration * video.time_base)
        found_s = (last_us - begin_us) / 1_000_000
        if declared_s - found_s > max(1.0, 0.05 * declared_s):
            raise SourceError(
                f"{name_of(self._camera)}: truncated: declares {declared_s:.1f} s of video, "
                f"{max(0.0, found_s):.1f} s could be read"
            )


def _stamps(packet: Packet) -> Stamps:
    scale = packet.time_base * 1_000_000
    return Stamps(
        pts_us=None if packet.pts is None else round(packet.pts * scale),
        dts_us=None if packet.dts is None else round(packet.dts * scale),
        duration_us=round((packet.duration or 0) * scale),
    )
