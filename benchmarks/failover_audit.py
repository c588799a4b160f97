"""The truth at the end of a fault run: what was sent against what is stored and can be played."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import av

from benchmarks.failover_system import Document, System, is_whole, moment
from storeguard.events.query import EventQuery
from storeguard.events.store import EventStore

_SLACK_S = 0.25  # between what a file says it covers and its last decoded picture


@dataclass(slots=True)
class Audit:
    """Figures of a whole run.

    Attributes:
        sent: events in the journal; versions: changes of them.
        stored: of these, in the event store in their newest version.
        over_http: of these, in the HTTP answers, equal to the journal's newest version.
        doubled: events listed twice, or two events for one stay of one person in one zone.
        lost: events not stored, or not in their newest version, or gone from the journal.
        strange: stored events that were never sent.
        asked, complete, incomplete, wrong: events that want video, by what they have of it. Wrong
            is an event that neither has the whole of it nor says why, or whose files are not what
            it says.
        reasons: why clips are incomplete, with their number.
        files: clip files fetched and decoded.
        orphans: stored files that no event refers to.
        faults: what is wrong, in words.
    """

    sent: int = 0
    versions: int = 0
    stored: int = 0
    over_http: int = 0
    doubled: int = 0
    lost: int = 0
    strange: int = 0
    asked: int = 0
    complete: int = 0
    incomplete: int = 0
    wrong: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    files: int = 0
    orphans: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled, invented or told wrongly."""
        return not (self.lost or self.doubled or self.strange or self.wrong or self.orphans)


def audit(system: System) -> Audit:
    """Compare journal, event store, HTTP answers and files."""
    result = Audit()
    sent = {event_id: one.event for event_id, one in system.journal.events().items()}
    _compare_events(system, sent, result)
    result.doubled += _doubled_stays(sent, result)
    _check_clips(system, sent, result)
    return result


def _compare_events(system: System, sent: dict[str, Document], result: Audit) -> None:
    with EventStore(system.valkey.url) as store:
        stored = {event_id: event.version for event_id, event in _stored(store)}
        held = store.count()
    answered = system.events() or []
    by_id = {event["event_id"]: event for event in answered}
    result.sent, result.versions = len(sent), system.journal.newest_seq()
    result.stored = sum(stored.get(name) == event["version"] for name, event in sent.items())
    result.over_http = sum(
        by_id.get(name, {}).get("version") == event["version"] for name, event in sent.items()
    )
    gone = system.journal.missing()
    missing = [name for name in sent if stored.get(name) != sent[name]["version"]]
    unheard = [name for name in sent if by_id.get(name, {}).get("version") != sent[name]["version"]]
    result.lost = len({*missing, *unheard}) + gone
    result.strange = len(stored.keys() - sent.keys())
    result.doubled = (held - len(stored)) + (len(answered) - len(by_id))
    result.faults += [f"not stored as sent: {name}" for name in missing]
    result.faults += [f"not over HTTP as sent: {name}" for name in unheard]
    result.faults += [f"{gone} events are gone from the journal"] if gone else []


def _stored(store: EventStore) -> Iterator[tuple[str, Any]]:
    cursor: str | None = None
    while True:
        page = store.query(EventQuery(limit=1000, cursor=cursor))
        yield from ((event.event_id, event) for event in page.events)
        cursor = page.next_cursor
        if cursor is None:
            return


def _doubled_stays(sent: dict[str, Document], result: Audit) -> int:
    """Events of one rule about one person in one zone whose times overlap: one stay, told twice."""
    doubled = 0
    latest: dict[tuple[Any, ...], Document] = {}
    for event in sorted(sent.values(), key=lambda one: moment(one["started_at"])):
        key = tuple(event.get(name) for name in ("type", "camera_id", "zone_id", "person_id"))
        before = latest.get(key)
        if before is not None and (
            "ended_at" not in before or moment(event["started_at"]) < moment(before["ended_at"])
        ):
            doubled += 1
            result.faults.append(f"one stay, two events: {before['event_id']}, {event['event_id']}")
        latest[key] = event
    return doubled


def _check_clips(system: System, sent: dict[str, Document], result: Audit) -> None:
    known: dict[str, str | None] = {}
    linked: set[str] = set()
    reasons: Counter[str] = Counter()
    for name, event in sent.items():
        clip = event.get("clip") or {}
        parts = [clip, *clip.get("parts", ())] if clip.get("uri") else []
        snapshot = (event.get("snapshot") or {}).get("uri")
        linked |= {one["uri"] for one in parts} | ({snapshot} if snapshot else set())
        if not event["rule"].get("record"):
            continue
        result.asked += 1
        fault = next(
            filter(None, (_fault_of(system, name, n, one, known) for n, one in enumerate(parts))),
            None,
        )
        if fault or event["status"] != "closed":
            result.wrong += 1
            result.faults.append(f"{name}: {fault or 'still open'}")
        elif is_whole(event):
            result.complete += 1
        elif clip.get("error"):
            result.incomplete += 1
            reasons[_kind(clip["error"])] += 1
        else:
            result.wrong += 1
            result.faults.append(f"{name}: no whole clip and no reason: {clip}")
    result.files = len(known)
    result.reasons = dict(reasons.most_common())
    objects = system.objects
    orphans = {f"{objects.uri}/{key}" for key, _ in objects.list()} - linked
    result.orphans = len(orphans)
    result.faults += [f"no event refers to {uri}" for uri in sorted(orphans)]


def _fault_of(
    system: System, event_id: str, number: int, part: Document, known: dict[str, str | None]
) -> str | None:
    """What is wrong with one file, fetched over HTTP and decoded; None if nothing is."""
    uri = part["uri"]
    if uri not in known:
        answer = system.api.get(f"/api/v1/events/{event_id}/clip", params={"part": number})
        known[uri] = (
            f"{uri}: {answer.text}" if answer.is_error else _unplayable(answer.content, part)
        )
    return known[uri]


def _unplayable(content: bytes, part: Document) -> str | None:
    uri = part["uri"]
    if hashlib.sha256(content).hexdigest() != part["sha256"]:
        return f"{uri}: is not the file that was stored"
    try:
        with av.open(io.BytesIO(content)) as container:
            times = [frame.time for frame in container.decode(video=0) if frame.time is not None]
    except (av.FFmpegError, ValueError) as error:
        return f"{uri}: does not play: {error}"
    lasts_s = (moment(part["end"]) - moment(part["start"])).total_seconds()
    if not times or abs(times[-1] - lasts_s) > _SLACK_S:
        return f"{uri}: says {lasts_s:.2f} s, plays {times[-1] if times else 0:.2f} s"
    return None


def _kind(error: str) -> str:
    """An error without its figures and names, so that equal ones can be counted."""
    first = re.sub(r"^\S+\.(mp4|mkv): ", "", error.partition("; ")[0])
    return re.sub(r"[0-9]+(\.[0-9]+)?", "#", first)
