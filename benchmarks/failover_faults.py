"""The faults, one a function: each does the harm, lets it last, and takes it away again."""

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
        outage_s: of the store and of S3 when they hang or are gone for long.
        short_s: of what is only restarted.
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
        inflict: does it; returns once it is taken away.
    """

    name: str
    inflict: Callable[[System, Lengths], None]


def store_killed(system: System, lengths: Lengths) -> None:
    """It comes back with its append-only file."""
    system.valkey.kill()
    time.sleep(lengths.short_s)
    system.valkey.start()


def store_paused(system: System, lengths: Lengths) -> None:
    """Its connections stay open and nothing answers."""
    system.valkey.pause()
    time.sleep(lengths.outage_s)
    system.valkey.resume()


def store_emptied(system: System, lengths: Lengths) -> None:
    """It comes back without any of its data."""
    system.valkey.kill()
    shutil.rmtree(system.valkey.folder)
    time.sleep(lengths.short_s)
    system.valkey.start()


def s3_down(system: System, lengths: Lengths) -> None:
    """Nobody listens at its address."""
    system.s3.kill()
    time.sleep(lengths.outage_s)
    system.s3.start()


def spool_full(system: System, lengths: Lengths) -> None:
    """Not one byte is left on the spool's disk, also not after files have gone."""
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
    """`kill -9` in the middle of its recordings."""
    system.kill_actor("cameras-0")


def recorder_killed(system: System, _: Lengths) -> None:
    """`kill -9` in the middle of its uploads."""
    system.kill_actor("recorder-cameras-0")


def rules_killed(system: System, _: Lengths) -> None:
    """`kill -9` of the one who judges, keeps the journal and ships it."""
    system.kill_actor("rules")


def clock_forward(system: System, lengths: Lengths) -> None:
    """Somebody sets the clock an hour ahead; a camera starts anew under it."""
    system.clock.set(HOUR_S)
    time.sleep(lengths.short_s)
    system.kill_actor("cameras-0")


def clock_back(system: System, lengths: Lengths) -> None:
    """Somebody sets the clock back by an hour; a camera starts anew under it."""
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
    Fault("recorder actor kill -9", recorder_killed),
    Fault("rules actor kill -9", rules_killed),
    Fault("wall clock +1 h, camera kill -9", clock_forward),
    Fault("wall clock -1 h, camera kill -9", clock_back),
)
