"""A fault run: ten faults, one after the other, in a real store while it raises events.

Ray, Valkey, SeaweedFS (S3) and the spool's small disk are real; three cameras play real video over
and over. From the end of each fault two times are measured: until all events in the journal, and a
new one, are in the HTTP response; and until every camera has a new event with its whole clip. At
the end the cameras are removed, and the events in the local journal are compared with the event
store, with the HTTP responses and with every stored file.

    python -m benchmarks.failover            # about ten minutes
    python -m benchmarks.failover --quick    # shorter outages; writes no result
    python -m benchmarks.failover --only "S3 down" --quick

The exit code is 1 if anything was lost, doubled or wrong, or if the system did not recover. The
disk is a tmpfs, which only root may mount; for other users that fault is left out, and the table
shows it. The wall clock is the system's injected one; the machine's is not set.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.failover_audit import Audit, audit
from benchmarks.failover_faults import FAULTS, QUICK, Fault, Lengths, spool_full
from benchmarks.failover_system import LIMIT_S, System, is_whole, running_system, wait_until
from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results" / "failover.json"
CALM_S = 5.0
console = Console(width=140)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How the system recovered from one fault.

    Attributes:
        fault: its name.
        lasted_s: from its beginning to its end; None if it could not be caused on this machine.
        events_s: from then until all events so far, and a new one, are in the HTTP response.
        clips_s: from then until each camera has a new event with its whole clip. Both are None if
            that did not happen within the limit.
    """

    fault: str
    lasted_s: float | None
    events_s: float | None
    clips_s: float | None

    @property
    def recovered(self) -> bool:
        """Whether events and clips recovered."""
        return self.lasted_s is None or (self.events_s is not None and self.clips_s is not None)


def recover(system: System, fault: Fault, lengths: Lengths) -> Recovery:
    """Cause a fault and wait until the system has recovered from it."""
    if fault.inflict is spool_full and not system.spool_is_mount:
        return Recovery(fault.name, None, None, None)
    began = time.monotonic()
    fault.inflict(system, lengths)
    over = time.monotonic()
    mark = system.journal.newest_seq()

    def all_stored() -> bool:
        answered = {one["event_id"]: one["version"] for one in system.events() or ()}
        sent = system.journal.events().items()
        fresh = any(one.opened_seq > mark and name in answered for name, one in sent)
        return fresh and all(
            answered.get(name, 0) >= one.event["version"]
            for name, one in sent
            if one.last_seq <= mark
        )

    def clips_whole() -> bool:
        answered = system.events() or ()
        sent = system.journal.events()  # read after the response, it has all of its events
        fresh = {
            one["camera_id"]
            for one in answered
            if sent[one["event_id"]].opened_seq > mark and is_whole(one)
        }
        return fresh >= set(system.cameras)

    events_s = wait_until(all_stored)
    clips_s = wait_until(clips_whole)
    return Recovery(
        fault.name,
        round(over - began, 1),
        None if events_s is None else round(events_s, 1),
        None if clips_s is None else round(time.monotonic() - over, 1),
    )


def run(
    system: System, faults: tuple[Fault, ...], lengths: Lengths
) -> tuple[list[Recovery], Audit]:
    """All faults, then the audit."""
    if wait_until(lambda: any(is_whole(one) for one in system.events() or ())) is None:
        raise RuntimeError(f"expected an event with its clip within {LIMIT_S} s, found none")
    recoveries = []
    for fault in faults:
        time.sleep(CALM_S)
        recoveries.append(recover(system, fault, lengths))
        console.print(f"  {recoveries[-1]}")
    for camera_id in system.cameras:
        system.api.delete(f"/api/v1/cameras/{camera_id}").raise_for_status()
    rested_s = wait_until(system.at_rest)
    found = audit(system)
    if rested_s is None:
        found.faults.append(f"spools or journal: expected nothing left after {LIMIT_S} s")
        found.wrong += 1
    return recoveries, found


def show(recoveries: list[Recovery], found: Audit) -> None:
    """Both tables."""
    table = Table("fault", "lasts s", "events recovered after s", "clips recovered after s")
    for one in recoveries:
        left_out = one.lasted_s is None
        table.add_row(
            one.fault,
            *(
                "not run: needs root" if left_out else "NEVER" if value is None else f"{value:.1f}"
                for value in (one.lasted_s, one.events_s, one.clips_s)
            ),
        )
    console.print(table)
    events = Table("events sent", "versions", "stored", "over HTTP", "doubled", "lost", "strange")
    events.add_row(
        *map(
            str,
            (
                found.sent, found.versions, found.stored, found.over_http, found.doubled,
                found.lost, found.strange,
            ),
        )
    )  # fmt: skip
    console.print(events)
    clips = Table(
        "clips requested", "complete", "incomplete, with reason", "wrong", "files", "orphans"
    )
    clips.add_row(
        *map(
            str,
            (
                found.requested, found.complete, found.incomplete, found.wrong, found.files,
                found.orphans,
            ),
        )
    )  # fmt: skip
    console.print(clips)
    for reason, number in found.reasons.items():
        console.print(f"  incomplete, {number}: {reason}")
    for fault in found.faults[:40]:
        console.print(f"  [red]{fault}", markup=True)


def main() -> int:
    """Run, show, save; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter outages, no result file")
    parser.add_argument("--only", action="append", default=[], help="part of a fault's name")
    parser.add_argument("--detect-fps", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    faults = tuple(
        fault
        for fault in FAULTS
        if not arguments.only or any(part in fault.name for part in arguments.only)
    )
    lengths = QUICK if arguments.quick else Lengths()
    with tempfile.TemporaryDirectory(prefix="failover-") as folder:
        system = running_system(Path(folder), detect_fps=arguments.detect_fps, say=console.print)
        with system as running:
            recoveries, found = run(running, faults, lengths)
    show(recoveries, found)
    if not arguments.quick and not arguments.only:
        document = {
            "settings": {**asdict(lengths), "detect_fps": arguments.detect_fps, "cameras": 3},
            "machine": machine(),
            "recoveries": [asdict(one) for one in recoveries],
            "audit": asdict(found),
        }
        arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        console.print(f"saved {arguments.out.name}")
    return 0 if found.passed and all(one.recovered for one in recoveries) else 1


if __name__ == "__main__":
    sys.exit(main())
