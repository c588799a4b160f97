"""The table of cameras that `run` and `demo` show."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from storeguard.camera.status import CameraState, CameraStatus

_STATE_STYLE = {
    CameraState.PLAYING: "green",
    CameraState.CONNECTING: "yellow",
    CameraState.NO_PICTURE: "bold red",
    CameraState.STARVING: "bold red",
    CameraState.OVERLOADED: "bold red",
    CameraState.RECONNECTING: "yellow",
    CameraState.FAILED: "bold red",
    CameraState.ENDED: "dim",
    CameraState.STOPPED: "dim",
    CameraState.DISABLED: "dim",
}


def live_table(statuses: Sequence[CameraStatus], *, title: str) -> Table:
    """One row a camera: state, frame rates, frames in and processed, drops, people, events."""
    table = Table(title=title, title_justify="left", expand=False, pad_edge=False)
    table.add_column("camera", style="bold", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("picture", no_wrap=True)
    for heading in ("fps in", "done", "frames in", "done"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("dropped")
    table.add_column("people", justify="right", no_wrap=True)
    table.add_column("events", justify="right", style="bold", no_wrap=True)
    for status in statuses:
        table.add_row(
            status.id,
            Text(status.state.value, style=_STATE_STYLE[status.state]),
            f"{status.width}x{status.height}" if status.width else "-",
            _number(status.fps_in),
            _number(status.fps_processed),
            str(status.frames_in),
            str(status.frames_processed),
            ", ".join(f"{n} {cause}" for cause, n in sorted(status.dropped.items())) or "none",
            str(status.people_in_view),
            str(status.num_events),
        )
        if words := status.state_reason or status.last_error:
            table.caption = Text(f"{status.id}: {words}", style="red")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
