"""`storeguard events`: asking a running store what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from storeguard.api_client import DEFAULT_URL, ApiClient
from storeguard.events.event import EventStatus, EventType

app = typer.Typer(help="Ask a running store for its events.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Address of the running store.")]
Token = Annotated[
    str | None, typer.Option(envvar="STOREGUARD_API_TOKEN", help="Bearer token, if it needs one.")
]


@app.command("list")
def list_events(  # noqa: PLR0917 - Typer reads options off the signature
    camera: Annotated[str | None, typer.Option()] = None,
    zone: Annotated[str | None, typer.Option()] = None,
    person: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[EventType | None, typer.Option("--type")] = None,
    status: Annotated[EventStatus | None, typer.Option()] = None,
    start: Annotated[str | None, typer.Option(help="RFC 3339, from this moment on.")] = None,
    end: Annotated[str | None, typer.Option(help="RFC 3339, before this moment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line an event.")] = False,
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
        Console().print(event_table(events, title=f"events of {url}"))


@app.command("get")
def get_event(event_id: str, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Show one event as JSON."""
    with ApiClient(url, token=token) as api:
        print(json.dumps(api.event(event_id), indent=2))  # noqa: T201 - the command's output


def event_table(events: Sequence[dict[str, Any]], *, title: str) -> Table:
    """Events as the API gives them, one a row."""
    table = Table(title=title, title_justify="left")
    for heading in ("type", "status", "camera", "zone", "person", "started (UTC)", "dwell s"):
        table.add_column(heading, no_wrap=True)
    for event in events:
        dwell, person = event.get("dwell_s"), event.get("person_id")
        table.add_row(
            event["type"],
            event["status"],
            event["camera_id"],
            event.get("zone_id") or "-",
            f"#{person.rsplit('-', 1)[-1]}" if person else "-",
            event["started_at"].replace("T", " ").removesuffix("Z"),
            "-" if dwell is None else f"{dwell:.1f}",
        )
    return table
