"""The faults, one a function: each causes the fault, waits, and ends it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.failover_system import System

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long faults last, in seconds.

    Attributes:
        outage_s: outages of the event store and of S3.
        short_s: pauses before a restart.
        full_s: of the full disk.
    """

    outage_s: float = 60.0
    short_s: float = 5.0
    full_s: float = 30.0


QUICK = Lengths(outage_s=8.0, short_s=2.0, full_s=8.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: for the table.
        inflict: causes the fault; returns once it has ended.
    """

    name: str
    inflict: Callable[[System, Lengths], None]


def store_killed(system: System, lengths: Lengths) -> None:
    """The event store dies and returns with its append-only file."""
    system.valkey.kill()
    time.sleep(lengths.short_s)
    system.valkey.start()


def store_paused(system: System, lengths: Lengths) -> None:
    """The event store keeps its connections open and does not answer."""
    system.valkey.pause()
    time.sleep(lengths.outage_s)
    system.valkey.resume()


def store_emptied(system: System, lengths: Lengths) -> None:
    """The event store dies and returns without its data."""
    system.valkey.kill()
    shutil.rmtree(system.valkey.folder)
    time.sleep(lengths.short_s)
    system.valkey.start()


def s3_down(system: System, lengths: Lengths) -> None:
    """S3 refuses connections."""
    system.s3.kill()
    time.sleep(lengths.outage_s)
    system.s3.start()


def spool_full(system: System, lengths: Lengths) -> None:
    """The spool's disk stays full, also after files were removed from it."""
    filler = system.spool / "filler"
    until = time.monotonic() + lengths.full_s
    with filler.open("ab", buffering=0) as file:
        while time.monotonic() < until:
            for chunk in (2**20, 4096):
                with contextlib.suppress(OSError):
                    while file.write(bytes(chunk)) == chunk:
                        pass
            time.sleep(0.05)
    filler.unlink()


def camera_killed(system: System, _: Lengths) -> None:
    """`kill -9` of a camera actor while it records."""
    system.kill_actor("cameras-0")


def uploader_killed(system: System, _: Lengths) -> None:
    """`kill -9` of the actor that uploads."""
    system.kill_actor("uploader-cameras-0")


def rules_killed(system: System, _: Lengths) -> None:
    """`kill -9` of the actor that runs the rules, keeps the journal and ships it."""
    system.kill_actor("rules")


def clock_forward(system: System, lengths: Lengths) -> None:
    """The wall clock is set forward by an hour; then a camera actor restarts."""
    system.clock.set(HOUR_S)
    time.sleep(lengths.short_s)
    system.kill_actor("cameras-0")


def clock_back(system: System, lengths: Lengths) -> None:
    """The wall clock is set back by an hour; then a camera actor restarts."""
    system.clock.set(0.0)
    time.sleep(lengths.short_s)
    system.kill_actor("cameras-0")


FAULTS = (
    Fault("store killed, restarted", store_killed),
    Fault("store hangs", store_paused),
    Fault("store restarted empty", store_emptied),
    Fault("S3 down", s3_down),
    Fault("spool's disk full", spool_full),
    Fault("camera actor kill -9", camera_killed),
    Fault("uploader kill -9", uploader_killed),
    Fault("rules actor kill -9", rules_killed),
    Fault("wall clock +1 h, camera kill -9", clock_forward),
    Fault("wall clock -1 h, camera kill -9", clock_back),
)
