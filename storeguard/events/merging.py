"""How the rules' next version of an event and what was amended beside them become one."""

from __future__ import annotations

from storeguard.events.event import Event, EventStatus, Latency


def merged(newest: Event, incoming: Event) -> Event:
    """The rules' next version of an event, numbered after `newest`, with what was amended kept.

    Clip, snapshot, keep mark, latency and attributes are added beside the rules; a clip that has
    been stored is not replaced by one that is only asked for. A closed event stays closed.
    """
    clip = incoming.clip
    if clip is None or (clip.uri is None and newest.clip is not None and newest.clip.uri):
        clip = newest.clip
    scores = [score for score in (newest.score, incoming.score) if score is not None]
    changes: dict[str, object] = {
        "version": max(newest.version + 1, incoming.version),
        "clip": clip,
        "snapshot": incoming.snapshot or newest.snapshot,
        "keep": incoming.keep or newest.keep,
        "attributes": {**newest.attributes, **incoming.attributes},
        "score": max(scores, default=None),
        "model": incoming.model or newest.model,
    }
    if incoming.latency_ms == Latency():
        changes["latency_ms"] = newest.latency_ms
    if newest.status is EventStatus.CLOSED and incoming.status is EventStatus.OPEN:
        changes |= {"status": newest.status, "ended_at": newest.ended_at}
    return incoming.model_copy(update=changes)
