"""The `storeguard` command."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from storeguard.camera.status import CameraState, CameraStatus
from storeguard.cli import bench, classify, clips, engine, events, models, train
from storeguard.cli.api_client import ApiClient
from storeguard.cli.demo import demo_config
from storeguard.cli.events import event_table
from storeguard.cli.live_table import live_table
from storeguard.cli.options import moment, require_writable
from storeguard.config.addresses import redact, resolve_source, trace_of
from storeguard.config.loading import load_config, load_zones, parse
from storeguard.config.models import AttributeSettings, DetectorSettings
from storeguard.config.store import StoreConfig
from storeguard.errors import ConfigError, StoreguardError

app = typer.Typer(
    help="Watches the cameras of unmanned stores: people, dwell, events and clips.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
for name, commands in (
    ("events", events.app),
    ("clips", clips.app),
    ("models", models.app),
    ("engine", engine.app),
    ("train", train.app),
):
    app.add_typer(commands, name=name)
app.command()(classify.classify)
app.command(context_settings={"allow_extra_args": True, "allow_interspersed_args": False})(
    bench.bench
)
_PLAIN_EVERY_S = 5.0

Seconds = Annotated[
    float | None,
    typer.Option(min=1, help="Stop after so many seconds; run without end if left out."),
]
RayAddress = Annotated[
    str | None, typer.Option(help="A running Ray cluster, e.g. auto; a local Ray if left out.")
]
ModelOption = Annotated[str, typer.Option(help="`bundled`, or an ONNX file.")]
InputSize = Annotated[
    int | None, typer.Option(help="Side of the model's input in pixels, a multiple of 32.")
]


def main() -> None:
    """Run the command.

    A StoreguardError ends it with its message and exit code 2, any other error with a traceback
    without credentials and exit code 1.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        app()
    except StoreguardError as error:
        _print_error(str(error))
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - its text may quote an address
        _print_error(f"unexpected, please report it: {trace_of(error)}\n{error}")
        sys.exit(1)


class RedactingFormatter(logging.Formatter):
    """Hides credentials in all that is logged, also in other libraries' messages."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _print_error(text: str) -> None:
    console.print(f"[bold red]error:[/] {escape(redact(text))}", highlight=False, soft_wrap=True)


# --------------------------------------------------------------------------- the system


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The store's YAML configuration.")],
    seconds: Seconds = None,
    ray_address: RayAddress = None,
) -> None:
    """Run a store: cameras, detector, rules, event store and HTTP API."""
    _run_store(load_config(config), seconds=seconds, ray_address=ray_address)


@app.command()
def demo(
    seconds: Seconds = None,
    source: Annotated[
        str | None,
        typer.Option(help="A file, device or address such as rtsp://... for the only camera."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="HTTP port; 0 for any free port.")
    ] = 8080,
) -> None:
    """Run the demo store: two cameras with real video, or one with --source; all embedded."""
    config = demo_config(source)
    api = config.api.model_copy(update={"port": port})
    _run_store(config.model_copy(update={"api": api}), seconds=seconds, any_port=True)


def _run_store(
    config: StoreConfig,
    *,
    seconds: float | None,
    ray_address: str | None = None,
    any_port: bool = False,
) -> None:
    from serve.runner import free_port, running_store  # noqa: PLC0415, TID251 - one edge upwards

    if any_port or config.api.port == 0:
        port = free_port(config.api.host, config.api.port)
        config = config.model_copy(update={"api": config.api.model_copy(update={"port": port})})
    signal.signal(signal.SIGTERM, _interrupt)
    began = datetime.now(UTC)
    statuses: list[CameraStatus] = []
    try:
        with running_store(config, ray_address=ray_address, say=_report) as store:
            console.print(
                f"dashboard  {store.url}/\nAPI        {store.url}/docs   {store.url}/api/v1/events"
            )
            for camera in config.cameras:
                console.print(f"live view  {store.url}/api/v1/cameras/{camera.id}/live")
            statuses = _watch(store, config.store, seconds)
            events = _recent_events(store.url, config, began)
    except KeyboardInterrupt:
        console.print("stopped")
        return
    _summarise(statuses, events)


def _interrupt(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the stopping short
    raise KeyboardInterrupt


def _report(what: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {what}", highlight=False)


def _watch(store: Any, store_id: str, seconds: float | None) -> list[CameraStatus]:
    """Show the cameras until the time is over or all have ended; returns their last state."""
    ends_at = None if seconds is None else time.monotonic() + seconds
    statuses: list[CameraStatus] = []
    with _table_display() as show:
        while ends_at is None or time.monotonic() < ends_at:
            statuses = store.cameras()
            show(statuses, store_id)
            if statuses and all(status.state is CameraState.ENDED for status in statuses):
                break
            time.sleep(1.0)
    return statuses


@contextmanager
def _table_display() -> Iterator[Any]:
    """A table that is redrawn on a terminal, and printed every few seconds elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            yield lambda statuses, store: live.update(live_table(statuses, title=f"store {store}"))
        return
    last_at = 0.0

    def show(statuses: Sequence[CameraStatus], store: str) -> None:
        nonlocal last_at
        if time.monotonic() - last_at >= _PLAIN_EVERY_S:
            last_at = time.monotonic()
            console.print(live_table(statuses, title=f"store {store}"))

    yield show


def _recent_events(url: str, config: StoreConfig, since: datetime) -> list[dict[str, Any]]:
    try:
        with ApiClient(url, token=config.api.token) as api:
            return api.events(limit=20, start=since.isoformat())
    except StoreguardError as error:
        console.print(f"[red]error:[/] the latest events cannot be read: {escape(str(error))}")
        return []


def _summarise(statuses: Sequence[CameraStatus], events: Sequence[dict[str, Any]]) -> None:
    console.print(event_table(events, title="latest events in the event store"))
    for status in statuses:
        dropped = sum(status.dropped.values())
        console.print(
            f"{status.id}: {status.frames_in} frames in, {status.frames_processed} processed, "
            f"{dropped} dropped, {status.num_events} events",
            highlight=False,
        )


# --------------------------------------------------------------------------- one file


@app.command()
def process(  # noqa: PLR0917 - Typer reads options off the signature
    video: Annotated[str, typer.Argument(help="A video file, folder of images or address.")],
    zones: Annotated[Path | None, typer.Option(help="YAML list of zones with rules.")] = None,
    events: Annotated[
        Path | None, typer.Option(help="Write events to this file, JSON lines.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option(help="Write tracks to this file, MOTChallenge text.")
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option("--video", help="Write the video with its overlay to this file, mp4."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Write the metrics to this file, JSON.")
    ] = None,
    model: ModelOption = "bundled",
    input_size: InputSize = None,
    every: Annotated[int, typer.Option(min=1, help="Process only each n-th frame.")] = 1,
    start: Annotated[
        str | None,
        typer.Option(
            help="Capture time of the first frame, such as 2026-01-31T09:00:00+09:00; UTC without "
            "an offset; 1970-01-01 if left out."
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=MODEL.onnx[=LABEL,LABEL...]: classify each person once a second; may be "
            "repeated."
        ),
    ] = None,
) -> None:
    """Run one video file through detection, tracking and rules; every frame, no Ray."""
    from storeguard.offline.following import FILE_START  # noqa: PLC0415
    from storeguard.offline.outputs import ProcessOutputs  # noqa: PLC0415
    from storeguard.offline.process import ProcessOptions, VideoProcessor  # noqa: PLC0415

    options = ProcessOptions(
        zones=load_zones(zones) if zones else (),
        every=every,
        started_at=moment("--start", start) if start else FILE_START,
    )
    for option, path in (
        ("--events", events),
        ("--tracks", tracks),
        ("--video", overlay),
        ("--metrics", metrics),
    ):
        require_writable(option, path)
    outputs = ProcessOutputs(events=events, tracks=tracks, video=overlay, metrics=metrics)
    source = resolve_source(video)
    with _progress("frames") as step:
        processor = VideoProcessor(
            _detector_settings(model, input_size),
            attributes=[_attribute(text) for text in attribute or ()],
            progress=step,
        )
        report = processor.process(source, options, outputs)
    print(json.dumps(report.document(), indent=2))  # noqa: T201 - the command's output


@app.command()
def detect(
    images: Annotated[Path, typer.Argument(help="A folder of pictures (jpg, png, bmp, webp).")],
    out: Annotated[Path, typer.Option(help="Write to this file, one JSON line a picture.")],
    model: ModelOption = "bundled",
    input_size: InputSize = None,
    min_score: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
) -> None:
    """Find people in a folder of pictures; one line each: image, boxes_xyxy (pixels), scores."""
    from storeguard.offline.pictures import detect_folder  # noqa: PLC0415

    require_writable("--out", out)
    settings = _detector_settings(model, input_size).model_copy(update={"min_score": min_score})
    with _progress("pictures") as step:
        result = detect_folder(images, out, settings, progress=step)
    console.print(f"{result.num_pictures} pictures, boxes in {out}")
    if result.lost:
        console.print(f"files that gave no picture: {result.losses}")


def _attribute(text: str) -> AttributeSettings:
    name, _, rest = text.partition("=")
    model, _, labels = rest.partition("=")
    document = {"name": name, "model": model, "labels": labels.split(",") if labels else None}
    if not model:
        raise ConfigError(f"--attribute: expected NAME=MODEL.onnx, found {text!r}")
    return parse(AttributeSettings, document, where=f"--attribute {text}")


def _detector_settings(model: str, input_size: int | None) -> DetectorSettings:
    from storeguard.inference.backend import available_cores  # noqa: PLC0415

    try:
        return DetectorSettings(model=model, input_size=input_size, num_cpus=available_cores())
    except ValidationError as error:
        complaint = error.errors()[0]["msg"]
        raise ConfigError(f"--input-size: {complaint}, found {input_size}") from None


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.update(task, completed=done)


if __name__ == "__main__":
    main()
