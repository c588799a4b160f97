"""`storeguard clips`: records cameras of a running store, lists and downloads clips."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from storeguard.cli.api_client import DEFAULT_URL, ApiClient
from storeguard.cli.events import Token, Url, Wide, open_table, print_table
from storeguard.errors import ConfigError, StoreError

app = typer.Typer(help="Record cameras of a running store; list and get clips.")
console = Console(stderr=True)
_STORED_S = 60.0  # a recording is expected to be stored within this after its end


@app.callback()
def clips() -> None:
    """Record cameras of a running store; list and get clips."""


@app.command("record")
def record_camera(  # noqa: PLR0917 - Typer reads options off the signature
    camera: Annotated[str, typer.Argument(help="The camera's id.")],
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=86_400, help="From now on; the camera's default if left out."),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the recording.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Wait until the clip is stored, and write it to this file.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Record a camera, from some seconds before now on (`recording.start_before_now_s`)."""
    command: dict[str, Any] = {"command": "stop-recording" if stop else "start-recording"}
    if seconds is not None:
        if stop:
            raise ConfigError("--seconds: expected only without --stop, found both")
        command["duration_s"] = seconds
    with ApiClient(url, token=token) as api:
        answer = api.record(camera, command)
        print(json.dumps(answer, indent=2))  # noqa: T201 - the command's output
        if out is not None:
            _save_when_stored(api, answer, out)


@app.command("list")
def list_clips(  # noqa: PLR0917 - Typer reads options off the signature
    camera: Annotated[str | None, typer.Option()] = None,
    start: Annotated[str | None, typer.Option(help="RFC 3339, from this moment on.")] = None,
    end: Annotated[str | None, typer.Option(help="RFC 3339, before this moment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Events to search.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line an event.")] = False,
    wide: Wide = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """List events that have a clip or wait for one, newest first."""
    with ApiClient(url, token=token) as api:
        found = [
            event
            for event in api.events(camera=camera, start=start, end=end, limit=limit)
            if event.get("clip")
        ]
    if as_json:
        for event in found:
            print(json.dumps(event))  # noqa: T201 - the command's output
    else:
        print_table(clip_table(found, title=f"clips of {url}", wide=wide), wide=wide)


@app.command("get")
def get_clip(
    event_id: str,
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write an event's clip to a file; a long clip has further files, NAME.part1.mp4 and so on."""
    with ApiClient(url, token=token) as api:
        _save(api, event_id, out)


def clip_table(events: Sequence[dict[str, Any]], *, title: str, wide: bool = False) -> Table:
    """A table of events with clips, as the API returns them, one a row, with whole ids.

    Args:
        events: as in the API's answer.
        title: of the table.
        wide: every column; else those that fit into 80 characters.
    """
    table = open_table(
        title,
        ("event", "camera", "from (UTC)", "seconds", "state"),
        more=("type", "requested s") if wide else (),
    )
    for event in events:
        clip = event["clip"]
        stored = clip.get("uri") is not None
        last = clip["parts"][-1]["end"] if clip.get("parts") else clip.get("end")
        start = clip["start"].replace("T", " ").removesuffix("Z") if stored else "-"
        row = (
            event["event_id"],
            event["camera_id"],
            start if wide else start[5:19] or start,
            _seconds(clip.get("start"), last),
            clip.get("error") or ("stored" if stored else "not stored yet"),
        )
        more = (event["type"], _seconds(clip.get("requested_start"), clip.get("requested_end")))
        table.add_row(*row, *(more if wide else ()))
    return table


def _seconds(start: str | None, end: str | None) -> str:
    if start is None or end is None:
        return "-"
    return f"{(datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds():.1f}"


def _save_when_stored(api: ApiClient, answer: dict[str, Any], out: Path) -> None:
    event_id = answer["event_ids"][0]
    lasts_s = datetime.fromisoformat(answer["end"]).timestamp() - time.time()
    deadline_s = time.monotonic() + max(0.0, lasts_s) + _STORED_S
    with console.status("recording"):
        while time.monotonic() < deadline_s:
            event = api.event(event_id) if _exists(api, event_id) else {}
            clip = event.get("clip") or {}
            if event.get("status") == "closed" and clip.get("uri"):
                _save(api, event_id, out)
                return
            if event.get("status") == "closed" and clip.get("error"):
                break
            time.sleep(0.5)
    reason = clip.get("error") or f"waited {_STORED_S:g} s after the recording's end"
    raise StoreError(f"event {event_id}: its clip was not stored: {reason}")


def _exists(api: ApiClient, event_id: str) -> bool:
    """Whether the event has reached the store yet."""
    return any(event["event_id"] == event_id for event in api.events(type="manual", limit=50))


def _save(api: ApiClient, event_id: str, out: Path) -> None:
    try:
        files = api.save_clip(event_id, out)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    for file in files:
        console.print(f"{file}: {file.stat().st_size} bytes")
