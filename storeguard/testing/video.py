"""Synthetic videos for tests: every frame carries its own number, readable from its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

_NUM_BITS = 12
_BAND_PX = 32  # height of the band of bits at the top
_DARK, _BRIGHT = 32, 224
_ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "mjpeg": "mjpeg",
    "mpeg4": "mpeg4",
    "vp9": "libvpx-vp9",
}


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """The settings of a test video.

    Attributes:
        codec: `h264`, `hevc`, `vp8`, `vp9`, `mjpeg` or `mpeg4`.
        wh: width and height in pixels, even, at least 96x48.
        fps: frames per second.
        num_frames: how many frames, up to 4096.
        first_number: the number that the first frame carries.
        gop: frames from one keyframe to the next.
        b_frames: consecutive B-frames at most (H.264 and HEVC).
        open_gop: whether B-frames may refer across a keyframe.
        audio: an audio encoder's name (`aac`, `libopus`, `pcm_mulaw`, ...); None for no audio.
    """

    codec: str = "h264"
    wh: tuple[int, int] = (160, 96)
    fps: int = 10
    num_frames: int = 30
    first_number: int = 0
    gop: int = 10
    b_frames: int = 0
    open_gop: bool = False
    audio: str | None = None


def picture(number: int, wh: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB: bits of `number`, brightest first, over a moving gradient."""
    width, height = wh
    row = (np.arange(width) + 4 * number) % 256
    image = np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)
    cell = width // _NUM_BITS
    for bit in range(_NUM_BITS):
        on = number >> (_NUM_BITS - 1 - bit) & 1
        image[:_BAND_PX, bit * cell : (bit + 1) * cell] = _BRIGHT if on else _DARK
    return image


def number_of(frame: av.VideoFrame) -> int:
    """The number that a frame of a test video carries.

    Raises:
        ValueError: a bit is neither dark nor bright: the picture is damaged.
    """
    gray = frame.reformat(format="gray").to_ndarray()
    cell = frame.width // _NUM_BITS
    number = 0
    for bit in range(_NUM_BITS):
        middle = gray[8 : _BAND_PX - 8, bit * cell + 2 : (bit + 1) * cell - 2]
        level = float(middle.mean())
        if 100 < level < 156:
            raise ValueError(
                f"bit {bit}: expected a level near {_DARK} or {_BRIGHT}, found {level:.0f}"
            )
        number = number << 1 | (level > 128)
    return number


def make_video(path: Path, spec: VideoSpec | None = None) -> Path:
    """Encode a test video; the container follows from the file's suffix. Returns `path`."""
    spec = spec or VideoSpec()
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(_ENCODERS[spec.codec], rate=spec.fps, options=_options(spec))
        video.width, video.height = spec.wh
        video.pix_fmt = "yuvj420p" if spec.codec == "mjpeg" else "yuv420p"
        video.codec_context.gop_size = spec.gop
        video.codec_context.max_b_frames = spec.b_frames
        video.codec_context.thread_count = 1
        video.codec_context.time_base = Fraction(1, spec.fps)
        sound = None if spec.audio is None else _add_audio(out, spec.audio)
        for index in range(spec.num_frames):
            image = picture(spec.first_number + index, spec.wh)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, spec.fps)
            out.mux(video.encode(frame))
            if sound is not None:
                out.mux(sound.encode(_tone(sound.rate, index, spec.fps)))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(sound.encode(None))
    return path


def make_audio(path: Path, *, seconds: int = 1) -> Path:
    """Encode a file that holds only audio. Returns `path`."""
    with av.open(str(path), "w") as out:
        sound = _add_audio(out, "aac")
        for index in range(seconds * 10):
            out.mux(sound.encode(_tone(sound.rate, index, 10)))
        out.mux(sound.encode(None))
    return path


def _options(spec: VideoSpec) -> dict[str, str]:
    fixed = f"keyint={spec.gop}:min-keyint={spec.gop}:scenecut=0:bframes={spec.b_frames}"
    match spec.codec:
        case "h264":
            gop = f":open-gop={int(spec.open_gop)}"
            return {"x264-params": fixed + gop, "preset": "ultrafast", "crf": "18"}
        case "hevc":
            gop = f":open-gop={int(spec.open_gop)}:log-level=none:pools=none:frame-threads=1"
            return {"x265-params": fixed + gop, "preset": "ultrafast", "crf": "18"}
        case "vp8" | "vp9":
            return {"deadline": "realtime", "cpu-used": "8", "b": "400k"}
        case _:
            return {"qscale": "3"}


def _add_audio(out: av.container.OutputContainer, encoder: str) -> Any:
    rate = 8000 if encoder in {"pcm_mulaw", "pcm_alaw"} else 48_000
    sound: Any = out.add_stream(encoder, rate=rate)
    sound.layout = "mono"
    return sound


def _tone(rate: int, index: int, fps: int) -> av.AudioFrame:
    first = rate * index // fps
    count = rate * (index + 1) // fps - first
    wave = 8000 * np.sin(2 * np.pi * 440 * (first + np.arange(count)) / rate)
    frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = rate
    frame.pts = first
    frame.time_base = Fraction(1, rate)
    return frame
