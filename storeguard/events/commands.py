"""Commands to record, and the Redis stream that may carry them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

import redis
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from redis.backoff import NoBackoff
from redis.retry import Retry

from storeguard.clock import Clock, SystemClock
from storeguard.config.addresses import redact
from storeguard.errors import NotFoundError, StoreError, StoreguardError

_log = logging.getLogger(__name__)

STREAM: Final = "storeguard:commands"
_BLOCK_MS: Final = 1000
_BATCH: Final = 32
_STALE_S: Final = 60.0
_RETRY_S: Final = 2.0


class Sensor(BaseModel):
    """Which camera a command is meant for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(max_length=256)


class RecordCommand(BaseModel):
    """Start or stop recording a camera.

    Attributes:
        start: begin of the requested span, at most as old as the camera's cache; None begins
            `recording.start_before_now_s` ago.
        end: end of the requested span; with neither end nor duration the recording stops by command
            or after `recording.default_duration_s`.
        duration_s: length from now on, instead of `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["start-recording", "stop-recording"]
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    duration_s: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    sensor: Sensor | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"expected start before end, found {self.start} and {self.end}")
        if self.end is not None and self.duration_s is not None:
            raise ValueError("expected at most one of 'end' and 'duration_s', found both")
        return self


@dataclass(frozen=True, slots=True)
class CommandStats:
    """What was received on the stream.

    Attributes:
        done: commands carried out.
        refused: commands that could not be carried out: a stop without a start, ...
        invalid: messages that are no commands.
        foreign: commands for cameras that this store does not have.
        stale: starts of "now" that waited for longer than a minute.
        last_error: the latest fault, in words; None if there was none.
    """

    done: int = 0
    refused: int = 0
    invalid: int = 0
    foreign: int = 0
    stale: int = 0
    last_error: str | None = None


def read_command(fields: Mapping[bytes, bytes]) -> RecordCommand:
    """A command from a stream entry's fields.

    Either one field, whatever its name, that holds the whole command as JSON, or one field for
    each of its keys; `sensor` is then JSON, or `sensor.id` the id alone.

    Raises:
        ValueError: it is no command, or names no sensor.
    """
    texts = {name.decode(errors="replace"): value for name, value in fields.items()}
    if "command" in texts:
        document: Any = {}
        for name, value in texts.items():
            text = value.decode()
            if name == "sensor":
                document["sensor"] = json.loads(text)
            elif name == "sensor.id":
                document["sensor"] = {"id": text}
            else:
                document[name] = text
    elif len(texts) == 1:
        document = json.loads(next(iter(texts.values())))
    else:
        raise ValueError(f"expected a command, found the fields {sorted(texts)[:10]}")
    command = RecordCommand.model_validate(document)
    if command.sensor is None:
        raise ValueError("sensor: expected {'id': <camera id>}, found nothing")
    return command


class CommandConsumer:
    """Reads commands off a Redis stream, on a thread of its own, and has them carried out.

    A consumer group of the store keeps what was done, so that a command sent while no consumer ran
    is carried out later, unless it is about a "now" that is over. A faulty message is logged and
    counted. The producers trim the stream.

    Args:
        url: redis://, rediss:// or unix://.
        store_id: names the consumer group.
        execute: carries out a command for a camera; raises NotFoundError if there is none such.
        clock: for the age of messages.
    """

    def __init__(
        self,
        url: str,
        *,
        store_id: str,
        execute: Callable[[str, RecordCommand], object],
        clock: Clock | None = None,
    ) -> None:
        self._name = redact(url)
        self._group = f"storeguard:{store_id}"
        self._execute = execute
        self._clock = clock or SystemClock()
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=_BLOCK_MS / 1000 + 5.0,
                socket_connect_timeout=3.0,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise StoreError(
                f"command stream {self._name}: not a usable address: {error}"
            ) from None
        self._stats = CommandStats()
        self._newest = "$"  # at first only what is sent from now on
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        """Begin to read; returns at once. While the server is unreachable it is tried again."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within seconds, and close."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * _BLOCK_MS / 1000 + 5.0)
        self._redis.close()

    def stats(self) -> CommandStats:
        """Counters."""
        return self._stats

    def step(self) -> int:
        """Read and carry out commands, waiting up to a second for one; returns how many.

        Raises:
            redis.RedisError, OSError: the server does not answer.
        """
        # What was read but not acknowledged before a crash is first.
        entries = self._read("0") or self._read(">")
        for entry_id, fields in entries:
            if self._stop.is_set():
                break
            self._handle(entry_id, fields)
            self._redis.xack(STREAM, self._group, entry_id)
        return len(entries)

    # ------------------------------------------------------------------ inside

    def _run(self) -> None:
        failing = False
        while not self._stop.is_set():
            try:
                self.step()
            except (redis.RedisError, OSError) as error:
                if not failing:
                    _log.warning("command stream %s: %s", self._name, redact(str(error)))
                failing = True
                self._stop.wait(_RETRY_S)
            else:
                failing = False

    def _read(self, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        try:
            answer: Any = self._redis.xreadgroup(
                self._group,
                "supervisor",
                {STREAM: after},
                count=_BATCH,
                block=_BLOCK_MS if after == ">" else None,
            )
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # A server that lost its data may have commands already: go on after the last one read.
            self._redis.xgroup_create(STREAM, self._group, id=self._newest, mkstream=True)
            if self._newest == "$":
                self._newest = "0"
            return []
        # RESP2 gives pairs of stream and entries, RESP3 a mapping from one to the other.
        streams = (
            answer.values() if isinstance(answer, dict) else [part[1] for part in answer or []]
        )
        return [entry for stream in streams for entry in _flat(stream)]

    def _handle(self, entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> None:
        name = entry_id.decode()
        self._newest = name
        try:
            command = read_command(fields or {})
            camera_id = command.sensor.id if command.sensor else ""
        except (ValueError, ValidationError, UnicodeDecodeError) as error:
            self._count("invalid", f"message {name} is no command: {_brief(error)}")
            return
        age_s = self._clock.now().timestamp() - int(name.split("-", 1)[0]) / 1000
        if command.command == "start-recording" and command.start is None and age_s > _STALE_S:
            self._count("stale", f"message {name}: sent {age_s:.0f} s ago, nothing is recorded now")
            return
        try:
            self._execute(camera_id, command)
        except NotFoundError as error:
            self._count("foreign", f"message {name}: {_brief(error)}")
        except (StoreguardError, ConnectionError, TimeoutError) as error:
            self._count("refused", f"message {name}: {_brief(error)}")
        except Exception as error:  # noqa: BLE001 - one message must not end the reading
            _log.exception("message %s", name)
            self._count("refused", f"message {name}: {_brief(error)}")
        else:
            self._stats = replace(self._stats, done=self._stats.done + 1)

    def _count(self, what: str, fault: str) -> None:
        _log.warning("command stream: %s", fault)
        self._stats = replace(
            self._stats, **{what: getattr(self._stats, what) + 1, "last_error": fault}
        )


def _flat(stream: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of one stream; RESP3 wraps them in a list of batches."""
    if stream and isinstance(stream[0], list) and stream[0] and isinstance(stream[0][0], tuple):
        return [entry for batch in stream for entry in batch]
    return list(stream)


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return "; ".join(faults)[:300]
    return redact(" ".join(str(error).split()))[:300]
