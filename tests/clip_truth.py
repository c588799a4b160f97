"""Checks what events state of their clips against the stored files."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import av


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def frames_of(content: bytes) -> list[float]:
    """Times of the decoded frames in seconds; fails if one cannot be decoded."""
    with av.open(io.BytesIO(content)) as container:
        times = [float(frame.time) for frame in container.decode(video=0) if frame.time is not None]
    assert times[0] == 0.0
    return times


def check_clips(events: list[dict[str, Any]], objects: Path) -> None:
    """Every event has its whole clip or a reason; every file plays and belongs to an event.

    Args:
        events: as the API lists them, all closed, with all uploads finished.
        objects: the folder of stored files.
    """
    linked: set[str] = set()
    for one in events:
        clip = one["clip"]
        assert clip, one
        assert clip.get("uri") or clip.get("error"), one
        files = [clip, *clip["parts"]] if clip.get("uri") else []
        snapshot = one.get("snapshot") or {}
        linked |= {file["uri"] for file in (*files, snapshot) if file}
        spans = [(file["start"], file["end"]) for file in files]
        covered = spans and min(spans)[0] <= clip["requested_start"]
        covered = covered and max(end for _, end in spans) >= clip["requested_end"]
        assert covered or clip.get("error"), one
        for file in files:
            content = Path(file["uri"].removeprefix("file://")).read_bytes()
            assert frames_of(content)
    stored = {path.as_uri() for path in objects.rglob("*") if path.is_file()}
    assert stored == linked
