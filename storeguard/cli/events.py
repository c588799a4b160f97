"""`storeguard events`: shows, lists and exports the events of a running store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from storeguard.cli.api_client import DEFAULT_URL, ApiClient
from storeguard.errors import QueryError
from storeguard.events.event import EventStatus, EventType

app = typer.Typer(help="Show, list and export the events of a running store.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Address of the running store.")]
Token = Annotated[
    str | None,
    typer.Option(envvar="STOREGUARD_API_TOKEN", help="Bearer token, if the API needs one."),
]

Camera = Annotated[str | None, typer.Option()]
Zone = Annotated[str | None, typer.Option()]
Person = Annotated[str | None, typer.Option()]
Kind = Annotated[EventType | None, typer.Option("--type")]
Status = Annotated[EventStatus | None, typer.Option()]
Start = Annotated[str | None, typer.Option(help="RFC 3339, from this moment on.")]
End = Annotated[str | None, typer.Option(help="RFC 3339, before this moment.")]


Wide = Annotated[bool, typer.Option("--wide", help="All columns, however wide the terminal is.")]
_MORE = ("status", "zone", "person")
_WIDE = 1000  # characters: the table takes what it needs


@app.command("list")
def list_events(  # noqa: PLR0917 - Typer reads options off the signature
    camera: Camera = None,
    zone: Zone = None,
    person: Person = None,
    kind: Kind = None,
    status: Status = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line an event.")] = False,
    wide: Wide = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """List events, newest first."""
    with ApiClient(url, token=token) as api:
        events = api.events(
            camera=camera,
            zone=zone,
            person=person,
            type=kind and kind.value,
            status=status and status.value,
            start=start,
            end=end,
            limit=limit,
        )
    if as_json:
        for event in events:
            print(json.dumps(event))  # noqa: T201 - the command's output
    else:
        print_table(event_table(events, title=f"events of {url}", wide=wide), wide=wide)


@app.command("get")
def get_event(event_id: str, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show one event as JSON."""
    with ApiClient(url, token=token) as api:
        print(json.dumps(api.event(event_id), indent=2))  # noqa: T201 - the command's output


@app.command("export")
def export(  # noqa: PLR0917 - Typer reads options off the signature
    out: Annotated[str, typer.Option(help="An empty folder, file:// or s3:// address.")],
    camera: Camera = None,
    zone: Zone = None,
    person: Person = None,
    kind: Kind = None,
    status: Status = None,
    start: Start = None,
    end: End = None,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Export this track log (DATA_DIR/tracks) instead of events."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
    s3_endpoint: Annotated[
        str | None, typer.Option(help="Address of an S3-compatible server.")
    ] = None,
    s3_region: Annotated[str | None, typer.Option()] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write events, or tracks, as a Parquet dataset with a folder a day (date=YYYY-MM-DD, UTC)."""
    # pyarrow is slow to load, and the other commands do not need it.
    from storeguard.analytics.dataset import Destination  # noqa: PLC0415
    from storeguard.analytics.events_table import export_events  # noqa: PLC0415
    from storeguard.analytics.tracks_table import TrackQuery, export_tracks  # noqa: PLC0415

    to = Destination(out, overwrite=overwrite, s3_endpoint=s3_endpoint, s3_region=s3_region)
    only_events = {"zone": zone, "type": kind and kind.value, "status": status and status.value}
    if tracks is not None:
        if given := [name for name, value in only_events.items() if value is not None]:
            raise QueryError(
                f"--{given[0]}: expected only without --tracks: tracks have no {given[0]}"
            )
        span = {"start": _moment("start", start), "end": _moment("end", end)}
        done = export_tracks(tracks, TrackQuery(camera=camera, person=person, **span), to)
    else:
        filters = {"camera": camera, "person": person, "start": start, "end": end}
        with ApiClient(url, token=token) as api:
            done = export_events(api.events_pages(**only_events, **filters), to)
    what = "rows of tracks" if tracks is not None else "events"
    if done.rows:
        print(f"{done.rows} {what}, {done.files} days, in {done.uri}")  # noqa: T201 - the output
    else:
        print(f"no {what} found, nothing was written")  # noqa: T201 - as above


def _moment(name: str, text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(
            f"--{name}: expected a time such as 2026-01-31T09:30:00Z, found {text!r}"
        ) from None


def event_table(events: Sequence[dict[str, Any]], *, title: str, wide: bool = False) -> Table:
    """A table of events as the API returns them, one a row, with whole ids.

    Args:
        events: as in the API's answer.
        title: of the table.
        wide: every column; else those that fit into 80 characters.
    """
    table = open_table(
        title, ("event", "type", "camera", "started (UTC)", "dwell s"), more=_MORE if wide else ()
    )
    for event in events:
        dwell, person = event.get("dwell_s"), event.get("person_id")
        started = event["started_at"].replace("T", " ").removesuffix("Z")
        row = (
            event["event_id"],
            event["type"],
            event["camera_id"],
            started if wide else started[5:19],
            "-" if dwell is None else f"{dwell:.1f}",
        )
        more = (event["status"], event.get("zone_id") or "-", person or "-")
        table.add_row(*row, *(more if wide else ()))
    return table


def open_table(title: str, headings: Sequence[str], *, more: Sequence[str] = ()) -> Table:
    """An empty table without lines, whose first column is never cut; the others are folded."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, heading in enumerate((*headings, *more)):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    return table


def print_table(table: Table, *, wide: bool) -> None:
    """Print a table, in the terminal's width or as wide as it is."""
    console = Console(width=_WIDE if wide else None)
    console.print(table, crop=False)
