"""Opening a camera's address and reading encoded packets from it.

An address is a file, a folder of images, `rtsp://`, `http(s)://` or a V4L2 device. Opening and
reading always have deadlines. Errors name the camera's id and its address without credentials.
"""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import av
from av.stream import Disposition

from storeguard.clock import Clock
from storeguard.config.addresses import redact
from storeguard.config.store import CameraConfig
from storeguard.errors import DatasetError, EmptySourceError, SourceError, SourceTimeoutError
from storeguard.video.display import SQUARE
from storeguard.video.packets import MediaKind, Packet, StreamFormat
from storeguard.video.parameters import AdtsStripper, ParameterWatch
from storeguard.video.pictures import EncodedPicture, PictureFolder
from storeguard.video.timing import Stamps

_log = logging.getLogger(__name__)

_UNTIMED_FORMATS = {"mpjpeg"}  # FFmpeg invents their timestamps from a nominal rate
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails
_SLACK = 0.8  # an error after this fraction of a deadline is taken to be the deadline


class SourceKind(StrEnum):
    """What kind of source an address names."""

    FILE = "file"
    IMAGES = "images"
    RTSP = "rtsp"
    HTTP = "http"
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
    """The kind of source that an address names; a path is looked up in the file system."""
    match urlsplit(address).scheme.lower():
        case "rtsp" | "rtsps":
            return SourceKind.RTSP
        case "http" | "https":
            return SourceKind.HTTP
    if address.startswith("/dev/video"):
        return SourceKind.DEVICE
    return SourceKind.IMAGES if Path(address).is_dir() else SourceKind.FILE


@contextmanager
def open_source(
    camera: CameraConfig, *, clock: Clock, start_offset_s: float | None = None
) -> Iterator[Source]:
    """Open a camera's source, and close it at the end of the `with` block.

    Args:
        camera: its settings.
        clock: measures the deadlines.
        start_offset_s: seconds of a file to skip; None takes the camera's own setting.

    Raises:
        SourceTimeoutError: it did not answer within `open_timeout_s`. FFmpeg first connects and
            then probes the stream; each step has this deadline.
        EmptySourceError: there is no video in it.
        SourceError: anything else that keeps it from being opened.
    """
    kind = kind_of(camera.source)
    offset_s = camera.start_offset_s if start_offset_s is None else start_offset_s
    if kind is SourceKind.IMAGES:
        yield _ImageFolder(camera, offset_s)
        return
    if kind is SourceKind.FILE:
        _require_video_file(camera)
    if kind is SourceKind.DEVICE and not Path(camera.source).exists():
        raise SourceError(f"{_name(camera)}: no such device")
    started_s = clock.monotonic()
    try:
        container = av.open(
            camera.source,
            format="v4l2" if kind is SourceKind.DEVICE else None,
            options=_options(camera, kind),
            timeout=(camera.open_timeout_s, camera.read_timeout_s),
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        waited_s = clock.monotonic() - started_s
        raise _open_failure(camera, kind, error, waited_s) from None
    with container:
        yield _FFmpegSource(camera, container, kind=kind, clock=clock, offset_s=offset_s)


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
            return {"rw_timeout": str(int(camera.read_timeout_s * 1_000_000))}
        case SourceKind.FILE:
            return {"fflags": "+genpts"}  # AVI keeps none for streams with B-frames
        case _:
            return {}


def _name(camera: CameraConfig) -> str:
    return f"camera {camera.id!r}: {redact(camera.source)}"


def _require_video_file(camera: CameraConfig) -> None:
    try:
        status = os.stat(camera.source)  # noqa: PTH116  # may also be bytes-like odd names
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise SourceError(f"{_name(camera)}: {reason}") from None
    if not stat.S_ISREG(status.st_mode):
        # Opening a FIFO would block without end; no deadline applies to it.
        raise SourceError(f"{_name(camera)}: expected a regular file")
    if status.st_size == 0:
        raise EmptySourceError(f"{_name(camera)}: the file is empty (0 bytes)")


def _open_failure(
    camera: CameraConfig, kind: SourceKind, error: Exception, waited_s: float
) -> SourceError:
    limit_s = min(camera.open_timeout_s, camera.read_timeout_s)
    late = waited_s >= _SLACK * limit_s and not isinstance(error, ConnectionRefusedError)
    if kind is not SourceKind.FILE and (
        late or isinstance(error, av.error.ExitError | TimeoutError)
    ):
        return SourceTimeoutError(
            f"{_name(camera)}: no answer within {waited_s:.1f} s "
            f"(open_timeout_s {camera.open_timeout_s:g}, read_timeout_s {camera.read_timeout_s:g})"
        )
    if kind is SourceKind.FILE and isinstance(error, ValueError):
        return SourceError(
            f"{_name(camera)}: not a video that FFmpeg can read, or cut off before its index"
        )
    return SourceError(f"{_name(camera)}: cannot be opened: {_reason(error)}")


def _reason(error: Exception) -> str:
    """FFmpeg's message without the address, which may hold credentials."""
    message = getattr(error, "strerror", None)
    return redact(message or type(error).__name__)


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
            f"{_name(camera)}: expected a video stream, found {others or 'nothing at all'}"
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
        f"{_name(camera)}: stream_index: expected the index of a video stream ({found}), found "
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
    ) -> None:
        self._camera, self._container, self._clock = camera, container, clock
        self._video = _chosen_video(camera, container)
        if self._video.codec_context is None:
            raise SourceError(f"{_name(camera)}: FFmpeg has no decoder for its video codec")
        self._audio = next(
            (s for s in container.streams.audio if s.codec_context is not None), None
        )
        self.facts = self._facts(kind)
        if self.facts.local and 0 in self.facts.wh:
            raise EmptySourceError(
                f"{_name(camera)}: its frames have no size, found "
                f"{self.facts.wh[0]}x{self.facts.wh[1]}"
            )
        self.origin_us = None if self.facts.live else self._seek(offset_s)
        self.lost: Counter[str] = Counter()

    def _facts(self, kind: SourceKind) -> StreamFacts:
        video = self._video
        rate = video.average_rate or video.guessed_rate
        duration = self._container.duration
        duration_s = duration / 1_000_000 if duration and duration > 0 else None
        live = kind in {SourceKind.RTSP, SourceKind.DEVICE} or (
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
                f"{_name(self._camera)}: start_offset_s is {offset_s:g}, but the video is only "
                f"{self.facts.duration_s:.1f} s long"
            )
        begin_us = self._container.start_time or 0
        target_us = begin_us + int(offset_s * 1_000_000)
        self._container.seek(target_us, backward=True)
        return target_us

    def packets(self) -> Iterator[RawPacket]:
        untimed = self.facts.container in _UNTIMED_FORMATS
        watch = ParameterWatch(StreamFormat.of(self._video), self._video.codec_context)
        audio = None if self._audio is None else StreamFormat.of(self._audio)
        adts = None
        if self._audio is not None and audio is not None and audio.codec == "aac":
            adts = None if audio.extradata else AdtsStripper(self._audio)
        streams = [s for s in (self._video, self._audio) if s is not None]
        last_us = 0
        requested_s = self._clock.monotonic()
        try:
            for packet in self._container.demux(streams):
                if packet.size:
                    stamps = Stamps(None, None, 0) if untimed else _stamps(packet)
                    if packet.stream is self._video:
                        last_us = max(last_us, (stamps.pts_us or 0) + stamps.duration_us)
                        yield RawPacket(packet, watch.format_of(packet), stamps, untimed)
                    elif adts is not None:
                        plain = adts.strip(packet)
                        if plain is not None:
                            yield RawPacket(*plain, stamps)
                    elif audio is not None:
                        yield RawPacket(packet, audio, stamps)
                requested_s = self._clock.monotonic()
        except (av.FFmpegError, OSError) as error:
            raise self._read_failure(error, self._clock.monotonic() - requested_s) from None
        if self.facts.live:
            raise self._read_failure(None, self._clock.monotonic() - requested_s)
        self._require_whole(last_us)

    def _read_failure(self, error: Exception | None, waited_s: float) -> SourceError:
        limit_s = self._camera.read_timeout_s
        if isinstance(error, av.error.ExitError | TimeoutError) or waited_s >= _SLACK * limit_s:
            return SourceTimeoutError(
                f"{_name(self._camera)}: sent nothing for {waited_s:.1f} s "
                f"(read_timeout_s {limit_s:g})"
            )
        reason = "the other side ended the stream" if error is None else _reason(error)
        return SourceError(f"{_name(self._camera)}: reading failed: {reason}")

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
                f"{_name(self._camera)}: truncated: declares {declared_s:.1f} s of video, "
                f"{max(0.0, found_s):.1f} s could be read"
            )


def _stamps(packet: Packet) -> Stamps:
    scale = packet.time_base * 1_000_000
    return Stamps(
        pts_us=None if packet.pts is None else round(packet.pts * scale),
        dts_us=None if packet.dts is None else round(packet.dts * scale),
        duration_us=round((packet.duration or 0) * scale),
    )


class _ImageFolder:
    """A folder of pictures, in the natural order of their names, played at `image_fps`.

    A file that cannot be read leaves a gap of its length.
    """

    origin_us: int | None = None

    def __init__(self, camera: CameraConfig, offset_s: float) -> None:
        self._camera = camera
        try:
            self._pictures = PictureFolder(Path(camera.source))
        except DatasetError as error:
            raise SourceError(f"{_name(camera)}: {error}") from None
        files = self._pictures.files
        if not files:
            raise EmptySourceError(
                f"{_name(camera)}: no images in the folder; lost: "
                f"{self._pictures.describe_losses()}"
            )
        self._files = files[int(offset_s * camera.image_fps) :]
        if not self._files:
            raise EmptySourceError(
                f"{_name(camera)}: start_offset_s {offset_s:g} skips all {len(files)} images"
            )
        first = self._first_picture()
        self.facts = StreamFacts(
            kind=SourceKind.IMAGES,
            live=False,
            container="images",
            codec=first.codec,
            wh=first.wh,
            average_fps=camera.image_fps,
            duration_s=len(self._files) / camera.image_fps,
        )

    @property
    def lost(self) -> Counter[str]:
        return self._pictures.losses()

    def _first_picture(self) -> EncodedPicture:
        for path in self._files:
            picture = self._pictures.encoded(path)
            if picture is not None:
                return picture
        raise EmptySourceError(
            f"{_name(self._camera)}: none of its {len(self._files)} images can be read: "
            f"{self._pictures.describe_losses()}"
        )

    def packets(self) -> Iterator[RawPacket]:
        step_us = int(1_000_000 / self._camera.image_fps)
        for number, path in enumerate(self._files):
            picture = self._pictures.encoded(path)
            if picture is None:
                continue
            packet: Packet = av.Packet(picture.content)
            packet.is_keyframe = True
            stamp = number * step_us
            format_ = StreamFormat(
                MediaKind.VIDEO,
                picture.codec,
                wh=self.facts.wh,
                turn=picture.turn,
                pixel_aspect=SQUARE,  # what files declare is the resolution of a print
            )
            yield RawPacket(packet, format_, Stamps(stamp, stamp, step_us))
        if self._pictures.lost:
            _log.warning(
                "%s: files that gave no picture: %s",
                _name(self._camera),
                self._pictures.describe_losses(names=1000),
            )
