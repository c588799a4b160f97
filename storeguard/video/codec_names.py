"""Video codecs as browsers name them (RFC 6381)."""

from __future__ import annotations

from typing import IO, Final

import av

_NAMES: Final = {
    "h264": "avc1.640028",
    "hevc": "hvc1.1.6.L93.B0",
    "vp8": "vp8",
    "vp9": "vp09.00.10.08",
    "av1": "av01.0.05M.08",
    "mpeg4": "mp4v.20.9",
}
_AVCC: Final = 1  # first byte of an avcC record


def web_codec(file: IO[bytes]) -> str | None:
    """The codec of a file's video, such as `avc1.64001f`.

    H.264 has profile and level of the file; other codecs have usual ones, and HEVC in 10 bits
    the Main 10 profile.

    Args:
        file: a video file, read from where it stands.

    Returns:
        None where the file has no video, is unreadable, or its codec has no such name.
    """
    try:
        with av.open(file, "r") as container:
            video = container.streams.best("video")
            context = None if video is None else video.codec_context
            if context is None:
                return None
            extradata = bytes(context.extradata or b"")
            if context.name == "h264" and len(extradata) > 3 and extradata[0] == _AVCC:
                return f"avc1.{extradata[1:4].hex()}"
            if context.name == "hevc" and "10" in str(context.profile):
                return "hvc1.2.4.L93.B0"
            return _NAMES.get(context.name)
    except (av.FFmpegError, ValueError):
        return None
