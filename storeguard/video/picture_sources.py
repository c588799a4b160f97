"""Sources that are pictures: a folder of them, or an address that gives one a request."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from storeguard.clock import Clock
from storeguard.config.addresses import reason_of
from storeguard.config.store import CameraConfig
from storeguard.errors import DatasetError, EmptySourceError, SourceError
from storeguard.video.display import SQUARE
from storeguard.video.packets import MediaKind, Packet, StreamFormat
from storeguard.video.pictures import EncodedPicture, PictureFolder
from storeguard.video.stills import Still, poll, read_still
from storeguard.video.stream import RawPacket, SourceKind, StreamFacts, name_of
from storeguard.video.timing import Stamps

_log = logging.getLogger(__name__)


class StillPictures:
    """An address that gives one picture a request: requested again `image_fps` times a second.

    Args:
        camera: its settings.
        container: the open address; it is read once.
        open_again: opens the address; the caller closes it.
        clock: paces the requests.
        stopped: whether to end.
    """

    origin_us: int | None = None

    def __init__(
        self,
        camera: CameraConfig,
        container: av.container.InputContainer,
        *,
        open_again: Callable[[], av.container.InputContainer],
        clock: Clock,
        stopped: Callable[[], bool],
    ) -> None:
        self._camera, self._clock, self._stopped = camera, clock, stopped
        self._open_again = open_again
        self._first = self._read(container)
        self.facts = StreamFacts(
            kind=SourceKind.HTTP,
            live=True,
            container=container.format.name,
            codec=self._first.format.codec,
            wh=self._first.format.wh,
            average_fps=camera.image_fps,
            duration_s=None,
        )

    @property
    def lost(self) -> Counter[str]:
        return Counter()

    def packets(self) -> Iterator[RawPacket]:
        fps = self._camera.image_fps
        for still in poll(
            self._first, self._fetch, fps=fps, clock=self._clock, stopped=self._stopped
        ):
            packet: Packet = av.Packet(still.data)
            packet.is_keyframe = True
            yield RawPacket(packet, still.format, Stamps(None, None, 0), untimed=True)

    def _fetch(self) -> Still:
        with self._open_again() as container:
            return self._read(container)

    def _read(self, container: av.container.InputContainer) -> Still:
        try:
            return read_still(container)
        except (av.FFmpegError, OSError, LookupError) as error:
            raise SourceError(
                f"{name_of(self._camera)}: its picture cannot be read: {reason_of(error)}"
            ) from None


class ImageFolder:
    """A folder of pictures, in the natural order of their names, played at `image_fps`.

    A file that cannot be read leaves a gap of its length.

    Args:
        camera: its settings; its source is the folder.
        offset_s: seconds of it to skip.

    Raises:
        SourceError: there is no folder, or no picture in it.
    """

    origin_us: int | None = None

    def __init__(self, camera: CameraConfig, offset_s: float) -> None:
        self._camera = camera
        try:
            self._pictures = PictureFolder(Path(camera.source))
        except DatasetError as error:
            raise SourceError(f"{name_of(camera)}: {error}") from None
        files = self._pictures.files
        if not files:
            raise EmptySourceError(
                f"{name_of(camera)}: no images in the folder; lost: "
                f"{self._pictures.describe_losses()}"
            )
        self._files = files[int(offset_s * camera.image_fps) :]
        if not self._files:
            raise EmptySourceError(
                f"{name_of(camera)}: start_offset_s {offset_s:g} skips all {len(files)} images"
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
            f"{name_of(self._camera)}: none of its {len(self._files)} images can be read: "
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
                name_of(self._camera),
                self._pictures.describe_losses(names=1000),
            )
