"""How far a running store is with its clips: in the spool, in the journal, in the event store."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx

from storeguard.recording.spool import Spool
from tests.system.asking import events, metric


def spool_files(folder: Path, camera_id: str) -> list[str]:
    """Names of the files in a camera's spool, without its locks and a checkpoint of nothing."""
    spool = folder / "spool" / camera_id
    names = [path.name for path in spool.iterdir() if not path.name.endswith(".lock")]
    checkpoint = Spool(spool, prefix="any").load()
    if not checkpoint.requests and not checkpoint.recordings:
        return [name for name in names if name != "recorder.json"]
    return names


def second_fragment_written(folder: Path, camera_id: str) -> bool:
    """Whether the file that is being written has a whole fragment, which a kill must not destroy."""
    with contextlib.suppress(FileNotFoundError):
        parts = list((folder / "spool" / camera_id).glob(".*.part"))
        return any(part.read_bytes().count(b"moof") >= 2 for part in parts)
    return False


def has_clip_or_reason(event: dict[str, Any]) -> bool:
    """Whether an event links its clip or has the reason why there is none."""
    clip = event.get("clip") or {}
    return bool(clip.get("uri") or clip.get("error"))


def unfinished(api: httpx.Client, folder: Path, *camera_ids: str) -> list[Any]:
    """What is left to do for removed cameras: files in spools, events, changes to be shipped."""
    # In this order: without a file nothing more is journalled, and without a backlog all of the
    # journal is in the event store.
    files = [file for name in camera_ids for file in spool_files(folder, name)]
    backlog = metric(api, "storeguard_journal_backlog_events")
    incomplete = [
        one for one in events(api) if one["status"] == "open" or not has_clip_or_reason(one)
    ]
    return [*files, *incomplete, *([] if backlog == 0 else [f"backlog {backlog}"])]
