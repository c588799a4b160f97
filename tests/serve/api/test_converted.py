"""Clips converted for browsers: real HEVC in, H.264 out, cached within limits."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from serve.api.converted import ConversionLimits, ConvertedClips
from storeguard.errors import NotFoundError, OverloadedError
from storeguard.events.event import ClipRef
from storeguard.testing.video import VideoSpec, make_video, number_of, picture
from storeguard.video.codec_names import web_codec
from tests.serve.api.memory_system import Client, MemoryObjects, MemorySystem, assert_problem, event

PATH = "/api/v1/events/event-9/clip"
H264 = {"codec": "h264"}


def video_bytes(folder: Path, suffix: str = "mp4", **spec: Any) -> bytes:
    return make_video(folder / f"made.{suffix}", VideoSpec(**spec)).read_bytes()


def put_clip(system: MemorySystem, content: bytes, uri: str = "file:///clips/h.mp4") -> None:
    system.objects.files[uri] = content
    system.events.events["event-9"] = event(9, clip=ClipRef(uri=uri, sha256="ef" * 32))


def numbers(content: bytes) -> list[tuple[float, int]]:
    """Time in seconds and number of each picture."""
    with av.open(io.BytesIO(content)) as container:
        return [(frame.time, number_of(frame)) for frame in container.decode(video=0)]


@pytest.mark.parametrize("audio", [None, "aac", "pcm_mulaw"])
def test_an_hevc_clip_becomes_h264_with_its_times_and_sound(
    system: MemorySystem, client: Client, tmp_path: Path, audio: str | None
) -> None:
    suffix = "mov" if audio == "pcm_mulaw" else "mp4"
    given = video_bytes(tmp_path, suffix, codec="hevc", b_frames=2, audio=audio)
    put_clip(system, given)
    answer = client.get(PATH, params=H264)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "video/mp4"
    content = answer.content
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        sounds = [stream.codec_context.name for stream in container.streams.audio]
        assert sounds == ([] if audio is None else ["aac"])
        if audio is not None:
            length_s = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
            assert length_s == pytest.approx(3.0, abs=0.1)
    assert numbers(content) == [(pytest.approx(number / 10), number) for number in range(30)]
    piece = client.get(PATH, params=H264, headers={"Range": "bytes=10-19"})
    assert (piece.status_code, piece.content) == (206, content[10:20])
    head = client.head(PATH, params=H264)
    assert head.headers["content-length"] == str(len(content))
    # the original stays as it is
    assert client.get(PATH).content == given


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_a_turned_clip_becomes_upright(
    system: MemorySystem, client: Client, tmp_path: Path, degrees: int
) -> None:
    flat = make_video(tmp_path / "flat.mp4", VideoSpec(codec="hevc", wh=(160, 96), num_frames=3))
    with av.open(str(flat)) as film, av.open(str(tmp_path / "turned.mp4"), "w") as out:
        stream = film.streams.video[0]
        copy: Any = out.add_stream_from_template(stream, opaque=True)
        copy.set_display_rotation(degrees)
        for packet in film.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    put_clip(system, (tmp_path / "turned.mp4").read_bytes())
    content = client.get(PATH, params=H264).content
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(video=0))
    assert {frame.rotation for frame in frames} == {0}
    shown = [frame.to_ndarray(format="rgb24") for frame in frames]
    for number, image in enumerate(shown):
        stored = np.rot90(image, -degrees // 90)
        difference = np.abs(stored.astype(int) - picture(number, (160, 96)))
        assert difference.mean() < 6


@pytest.mark.parametrize(
    ("spec", "codec"),
    [({"codec": "hevc"}, "hvc1"), ({"codec": "h264"}, "avc1."), ({"codec": "mpeg4"}, "mp4v")],
)
def test_head_names_the_codec(
    system: MemorySystem, client: Client, tmp_path: Path, spec: dict[str, Any], codec: str
) -> None:
    put_clip(system, video_bytes(tmp_path, **spec))
    assert client.head(PATH).headers["x-video-codec"].startswith(codec)


def test_a_file_without_video_has_no_codec() -> None:
    assert web_codec(io.BytesIO(b"no video")) is None


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        (H264, 422, "cannot be converted to H.264"),
        ({"codec": "av1"}, 422, "h264"),
        ({"part": 1, **H264}, 404, "no part 1"),
    ],
)
def test_what_cannot_be_converted(
    system: MemorySystem, client: Client, params: dict[str, Any], status: int, words: str
) -> None:
    put_clip(system, b"this is no video")
    assert_problem(client.get(PATH, params=params), status, words)


def test_a_deleted_clip_is_not_served_from_what_was_converted(
    system: MemorySystem, client: Client, tmp_path: Path
) -> None:
    put_clip(system, video_bytes(tmp_path, codec="hevc", num_frames=3))
    assert client.get(PATH, params=H264).status_code == 200
    del system.objects.files["file:///clips/h.mp4"]
    assert_problem(client.get(PATH, params=H264), 404, "no such object")


def objects_at(folder: Path, uris: list[str]) -> MemoryObjects:
    """A short clip that is stored under each address."""
    objects = MemoryObjects()
    objects.files |= dict.fromkeys(uris, video_bytes(folder, codec="hevc", num_frames=3))
    return objects


def converted(folder: Path, uris: list[str], **limits: Any) -> ConvertedClips:
    """Conversions of these clips."""
    objects = objects_at(folder, uris)
    return ConvertedClips(folder / "clips", objects, limits=ConversionLimits(**limits))


def test_a_clip_that_many_request_is_converted_once(tmp_path: Path) -> None:
    clips = converted(tmp_path, ["a"])

    async def scenario() -> list[Path]:
        found = await asyncio.gather(*(clips.file_of("a", None) for _ in range(5)))
        return [*found, await clips.file_of("a", None)]

    assert len(set(asyncio.run(scenario()))) == 1
    assert clips.num_converted == 1


def test_a_client_that_leaves_does_not_stop_the_conversion(tmp_path: Path) -> None:
    clips = converted(tmp_path, ["a"])

    async def scenario() -> None:
        leaving = asyncio.create_task(clips.file_of("a", None))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await clips.file_of("a", None)

    asyncio.run(scenario())
    assert clips.num_converted == 1


def test_too_many_conversions_are_refused(tmp_path: Path) -> None:
    uris = ["a", "b", "c"]
    clips = converted(tmp_path, uris, max_waiting=2)

    async def scenario() -> list[Path | BaseException]:
        calls = (clips.file_of(uri, None) for uri in uris)
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(scenario())
    assert [type(one) for one in found].count(OverloadedError) == 1


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"max_files": 2}, [False, True, True]),
        ({"max_bytes": 1}, [False, False, True]),  # the one just made is always kept
        ({"max_age_s": 500.0}, [False, True, True]),
        ({}, [True, True, True]),
    ],
)
def test_converted_clips_stay_within_their_limits(
    tmp_path: Path, limits: dict[str, Any], kept: list[bool]
) -> None:
    uris = ["a", "b", "c"]
    clips = converted(tmp_path, uris)

    async def scenario(clips: ConvertedClips, uris: list[str]) -> list[Path]:
        return [await clips.file_of(uri, None) for uri in uris]

    first, second = asyncio.run(scenario(clips, uris[:2]))
    now = second.stat().st_mtime
    os.utime(first, (now - 1000, now - 1000))
    os.utime(second, (now - 100, now - 100))
    leftover = first.with_suffix(".1-2.part")  # of a process that was killed
    leftover.touch()
    os.utime(leftover, (0, 0))
    limited = converted(tmp_path, uris, **limits)
    (third,) = asyncio.run(scenario(limited, uris[2:]))
    assert [path.exists() for path in (first, second, third)] == kept
    assert not leftover.exists()


def test_a_clip_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such object"):
        asyncio.run(converted(tmp_path, []).file_of("a", None))
