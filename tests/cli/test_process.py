"""`storeguard process`: its options, and what it takes for a source."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import av
import pytest
from typer.testing import CliRunner, Result

from storeguard.cli.main import app
from storeguard.cli.options import moment
from storeguard.errors import ConfigError, SourceError
from tests.conftest import MakeVideo
from tests.valkey import refusing_port


def process(*words: object) -> Result:
    return CliRunner().invoke(app, ["process", *map(str, words)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T09:00:00+09:00", datetime(2026, 1, 31, 0, 0, tzinfo=UTC)),
        ("2026-01-31T09:00:00Z", datetime(2026, 1, 31, 9, 0, tzinfo=UTC)),
        ("2026-01-31T09:00:00-03:30", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
        ("2026-01-31T09:00:00", datetime(2026, 1, 31, 9, 0, tzinfo=UTC)),
        ("2026-01-31 09:00:00.250", datetime(2026, 1, 31, 9, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_taken_as_written(text: str, expected: datetime) -> None:
    assert moment("--start", text) == expected
    assert moment("--start", text).tzinfo is UTC


def test_what_is_no_time_is_named(video: MakeVideo) -> None:
    done = process(video("mp4"), "--start", "9 o'clock")

    assert isinstance(done.exception, ConfigError)
    assert "--start: expected a time such as" in str(done.exception)


@pytest.mark.parametrize("option", ["--events", "--tracks", "--video", "--metrics"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(
    option: str, video: MakeVideo, tmp_path: Path
) -> None:
    for path, expected in [
        (tmp_path / "missing" / "out.mp4", "expected an existing folder"),
        (tmp_path, "expected a file, found a folder"),
    ]:
        done = process(video("mp4"), option, path)

        assert isinstance(done.exception, ConfigError)
        assert f"{option} {path}: {expected}" in str(done.exception)


def test_names_that_ffmpeg_takes_for_addresses_work(
    video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "2026-01-31T09:00:00.mp4"

    done = process(
        video("mp4"), "--start", "2026-01-31T09:00:00+09:00", "--video", name,
        "--events", "e.jsonl", "--metrics", "m.json",
    )  # fmt: skip

    assert done.exception is None, done.output
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].frames == json.loads(done.stdout)["frames"]["processed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "e.jsonl", "m.json"]


def test_an_address_keeps_its_slashes() -> None:
    with refusing_port() as port:
        done = process(f"rtsp://admin:geheim@127.0.0.1:{port}//s")

    assert isinstance(done.exception, SourceError)
    assert f"rtsp://***@127.0.0.1:{port}//s: " in str(done.exception)
    assert "Connection refused" in str(done.exception)


def test_what_is_no_address_is_refused() -> None:
    done = process("rtps://admin:geheim@cam/s")

    assert isinstance(done.exception, ConfigError)
    assert "expected a path or one of rtsp://" in str(done.exception)
    assert "geheim" not in str(done.exception)
