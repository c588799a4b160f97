"""Commands on a real Valkey stream: carried out once, and whatever is wrong with one, the next."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storeguard.errors import NotFoundError, RecordingError
from storeguard.events.commands import STREAM, CommandConsumer, RecordCommand, read_command
from storeguard.testing import FakeClock
from tests.valkey import ValkeyProcess, running_valkey
from tests.waiting import wait_for

START = {"command": "start-recording", "sensor": {"id": "till"}}
STOP = {"command": "stop-recording", "sensor": {"id": "till"}}


def encoded(fields: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in fields.items()}


@pytest.mark.parametrize(
    "fields",
    [
        {"message": json.dumps(START)},
        {"metadata": json.dumps(START)},  # whatever the producer calls it
        {"command": "start-recording", "sensor": '{"id": "till"}'},
        {"command": "start-recording", "sensor.id": "till"},
    ],
)
def test_a_command_in_any_of_its_shapes(fields: dict[str, str]):
    assert read_command(encoded(fields)) == RecordCommand.model_validate(START)


def test_times_keep_their_zone():
    span = {"start": "2026-05-01T10:00:00+02:00", "end": "2026-05-01T08:00:09.5Z"}
    command = read_command(encoded({"x": json.dumps({**START, **span})}))
    assert command.start == datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert command.end == datetime(2026, 5, 1, 8, 0, 9, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"message": "{broken"},
        {"message": "[]"},
        {"message": json.dumps({"command": "start-recording"})},  # which camera?
        {"message": json.dumps({**START, "command": "explode"})},
        {"message": json.dumps({**START, "start": "yesterday"})},
        {"message": json.dumps({**START, "start": "2026-05-01T10:00:00"})},  # no zone
        {"message": json.dumps({**START, "duration_s": -1})},
        {"message": json.dumps({**START, "surprise": 1})},
        {"command": "start-recording", "sensor": "till"},
        {"a": "1", "b": "2"},
    ],
)
def test_what_is_no_command_is_refused(fields: dict[str, str]):
    with pytest.raises(ValueError):  # noqa: PT011 - each names another fault
        read_command(encoded(fields))


@dataclass
class Cameras:
    """Carries out commands for one camera; `till` alone is here."""

    done: list[tuple[str, str]] = field(default_factory=list)
    recording: bool = False
    fails: Callable[[], Exception] | None = None

    def execute(self, camera_id: str, command: RecordCommand) -> None:
        if self.fails is not None:
            raise self.fails()
        if camera_id != "till":
            raise NotFoundError(f"there is no camera {camera_id!r}")
        if command.command == "stop-recording" and not self.recording:
            raise RecordingError("there is nothing to stop")
        self.recording = command.command == "start-recording"
        self.done.append((camera_id, command.command))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    options = {"appendfsync": "no"}  # a slow disk holds no answer up; a kill loses nothing by it
    with running_valkey(tmp_path / "valkey", append_only=True, options=options) as valkey:
        yield valkey


def send(server: ValkeyProcess, *commands: Any, at_ms: int | None = None) -> None:
    with server.client() as client:
        for number, command in enumerate(commands):
            text = command if isinstance(command, str) else json.dumps(command)
            client.xadd(
                STREAM, {"message": text}, id="*" if at_ms is None else f"{at_ms}-{number + 1}"
            )


def consumer(server: ValkeyProcess, cameras: Cameras, store_id: str = "shop") -> CommandConsumer:
    # The clock stands still: a command is as old as its id, however late it is read.
    clock = FakeClock(datetime.now(UTC))
    commands = CommandConsumer(server.url, store_id=store_id, execute=cameras.execute, clock=clock)
    commands._redis.connection_pool.connection_kwargs["socket_timeout"] = 60
    return commands


def test_commands_are_carried_out_in_order_and_faults_are_counted(server: ValkeyProcess):
    cameras = Cameras()
    commands = consumer(server, cameras)
    commands.step()  # makes the group
    elsewhere = {**START, "sensor": {"id": "door"}}
    send(server, STOP, START, "{broken", elsewhere, STOP)
    commands.step()
    stats = commands.stats()
    assert cameras.done == [("till", "start-recording"), ("till", "stop-recording")]
    assert (stats.done, stats.refused, stats.invalid, stats.foreign) == (2, 1, 1, 1)
    commands.stop()


def test_a_surprise_while_carrying_out_does_not_end_the_reading(server: ValkeyProcess):
    cameras = Cameras(fails=lambda: ZeroDivisionError("oh"))
    commands = consumer(server, cameras)
    commands.step()
    send(server, START)
    commands.step()
    cameras.fails = None
    send(server, START)
    commands.step()
    assert cameras.done == [("till", "start-recording")]
    assert commands.stats().refused == 1
    commands.stop()


def test_what_was_sent_while_nobody_listened_is_found_and_stale_starts_are_not_done(
    server: ValkeyProcess,
):
    first = consumer(server, Cameras())
    first.step()
    first.stop()
    cameras = Cameras()
    later = consumer(server, cameras)
    now_ms = int(time.time() * 1000)
    span = {"start": "2026-05-01T10:00:00Z", "end": "2026-05-01T10:00:09Z"}
    send(server, START, {**START, **span}, at_ms=now_ms - 100_000)  # as if sent long ago
    send(server, START)
    later.step()
    assert later.stats().stale == 1
    assert len(cameras.done) == 2
    later.stop()


def test_a_command_read_but_not_done_before_a_crash_is_done_after_it(server: ValkeyProcess):
    cameras = Cameras()
    crashed, again = consumer(server, Cameras()), consumer(server, cameras)
    crashed.step()
    send(server, START)
    assert crashed._read(">")  # and here it died
    again.step()
    assert len(cameras.done) == 1
    assert again.step() == 0
    crashed.stop()
    again.stop()


def test_every_store_gets_every_command(server: ValkeyProcess):
    stores = [Cameras(), Cameras()]
    consumers = [consumer(server, one, f"shop-{n}") for n, one in enumerate(stores)]
    for one in consumers:
        one.step()
    send(server, START)
    for one in consumers:
        one.step()
        one.stop()
    assert [len(one.done) for one in stores] == [1, 1]


def test_its_thread_outlives_a_server_that_goes_and_comes(server: ValkeyProcess):
    cameras = Cameras()
    commands = consumer(server, cameras)
    commands.start()
    try:
        wait_for(lambda: server.client().exists(STREAM))
        send(server, START)
        wait_for(lambda: cameras.done)
        server.kill()
        time.sleep(0.2)  # long enough to be noticed, mostly
        server.start()
        send(server, STOP)
        # The first one once more if the server ended before it was acknowledged.
        wait_for(lambda: cameras.done[-1] == ("till", "stop-recording"))
    finally:
        commands.stop()
