"""Addresses that give one picture a request, such as a camera's `snapshot.jpg`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import av

from storeguard.clock import Clock
from storeguard.video.pacing import sleep_until
from storeguard.video.packets import StreamFormat

# FFmpeg's formats for pictures: image2 for names such as x.jpg, else jpeg_pipe, png_pipe, ...
_NAME: Final = "image2"
_ENDING: Final = "_pipe"


@dataclass(frozen=True, slots=True)
class Still:
    """One encoded picture as it was fetched, and its format."""

    data: bytes
    format: StreamFormat


def is_still(container: av.container.InputContainer) -> bool:
    """Whether FFmpeg found pictures without a container: no video, which would have one."""
    name = container.format.name
    return name == _NAME or name.endswith(_ENDING)


def read_still(container: av.container.InputContainer) -> Still:
    """The first picture.

    Raises:
        av.FFmpegError: it cannot be read.
        LookupError: there is none.
    """
    video = container.streams.video[0]
    packet = next((packet for packet in container.demux(video) if packet.size), None)
    if packet is None:
        raise LookupError("no picture")
    return Still(bytes(packet), StreamFormat.of(video))


def poll(
    first: Still,
    fetch: Callable[[], Still],
    *,
    fps: float,
    clock: Clock,
    stopped: Callable[[], bool],
) -> Iterator[Still]:
    """The picture, and further ones requested `fps` times a second, until stopped.

    Requests that take longer than a step are not made up for.
    """
    still, due_s = first, clock.monotonic()
    while not stopped():
        yield still
        due_s = max(due_s + 1 / fps, clock.monotonic())
        sleep_until(clock, due_s, stopped)
        if not stopped():
            still = fetch()
