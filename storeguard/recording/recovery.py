"""Finishing what a killed recorder left in its spool."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from storeguard.config.store import Container
from storeguard.events.clip import ClipSpan
from storeguard.events.faults import Fault, FaultCode
from storeguard.files import TEMPORARY_PREFIX
from storeguard.recording.clip_requests import ClipRequest
from storeguard.recording.part import (
    Contents,
    finished,
    leftover_parts,
    mend,
    part_of,
    sha256_of,
)
from storeguard.recording.recording import ClipFile
from storeguard.recording.spool import (
    EventItem,
    RecorderCheckpoint,
    RequestItem,
    Spool,
    closed_event,
)

_log = logging.getLogger(__name__)

_TEMPORARY_0_1: Final = ".tmp"  # ended the names of unfinished files until release 0.1
_CLIPS: Final = (".mp4", ".mkv")
_KILLED: Final = Fault(code=FaultCode.PROCESS_ENDED)


def recover(spool: Spool, *, goes_on: bool) -> RecorderCheckpoint:
    """Finish what a killed recorder was writing; the caller holds the writer's lock.

    Interrupted files are finished and queued with the events they are for. A file for no event is
    removed, because nothing would ever delete it; an event for which there is no file gets a fault.
    Killed in the middle, the next call does the rest.

    Args:
        spool: the camera's spool.
        goes_on: whether a recorder takes over, so that open events of rules go on; without one
            every request ends here.

    Returns:
        The checkpoint to go on from; it is saved.

    Raises:
        OSError: the folder cannot be read or written.
    """
    for pattern in (f"{TEMPORARY_PREFIX}*", f".*{_TEMPORARY_0_1}"):
        for stray in spool.folder.glob(pattern):
            stray.unlink(missing_ok=True)
    _reopen_unannounced(spool)
    checkpoint = spool.load()
    requests = {one.event_id: one for one in checkpoint.requests}
    for clip in recover_files(spool.folder):
        events = checkpoint.recordings.get(clip.recording_id, ())
        served = [
            requests[event_id]
            for event_id in events
            if event_id in requests and requests[event_id].shares(clip.start, clip.end)
        ]
        if not served:
            _log.warning("%s: for no event, removed", clip.path.name)
            clip.path.unlink(missing_ok=True)
            continue
        for request in served:
            request.covered.append((clip.start, clip.end))
        links = [_link(request, goes_on=goes_on) for request in served]
        spool.put(spool.clip_item(clip, links), clip.path.name)
    left = [one for one in requests.values() if not _conclude(spool, one, goes_on=goes_on)]
    ended = [one.event_id for one in requests.values() if one not in left]
    recovered = checkpoint.model_copy(
        update={
            "requests": tuple(left),
            "recordings": {},
            "finished": (*checkpoint.finished, *ended),
        }
    )
    if recovered != checkpoint or requests:
        spool.save(recovered)
    _sweep(spool)
    return recovered


def recover_files(folder: Path) -> list[ClipFile]:
    """Finish the part files below a folder; those without a picture are removed.

    Returns:
        The files that were saved, marked as not complete.
    """
    saved = []
    for part in leftover_parts(folder):
        mended = mend(part)
        if mended is None:
            _log.warning("%s: nothing could be saved, removed", part.name)
            continue
        path = finished(part)
        clip = _recovered(path, mended)
        if clip is None:
            _log.warning("%s: saved, but its description is unreadable", path.name)
            continue
        _log.warning("%s: saved %.1f s", path.name, mended.duration_s)
        saved.append(clip)
    return saved


def _link(request: ClipRequest, *, goes_on: bool) -> ClipSpan:
    final = request.final or request.manual is not None or not goes_on
    return request.span.model_copy(update={"final": final})


def _conclude(spool: Spool, request: ClipRequest, *, goes_on: bool) -> bool:
    """End a request that can get no more video; False if it goes on."""
    if goes_on and request.manual is None and not request.final:
        return False
    manual = request.manual
    if not request.final:
        request.conclude(max(request.end, request.covered_to()))
    fault = None if request.covered else _KILLED
    spool.put(RequestItem(links=(request.span,), fault=fault), request.event_id)
    if manual is not None:  # only the recorder's own process would have closed it
        ended_at = max((end for _, end in request.covered), default=manual.updated_at)
        event = closed_event(manual, ended_at)
        spool.put(EventItem(event=event), event.event_id)
    return True


def _reopen_unannounced(spool: Spool) -> None:
    """Files finished but not queued yet are treated as if they had been interrupted."""
    announced = spool.announced()
    for path in spool.folder.iterdir():
        if path.suffix in _CLIPS and not path.name.startswith("."):
            if path.name not in announced:
                path.replace(part_of(path))
            else:
                part_of(path).unlink(missing_ok=True)


def _sweep(spool: Spool) -> None:
    """Remove pictures that were never queued and clips that could not be described."""
    announced = spool.announced()
    for path in spool.folder.iterdir():
        if path.suffix in {".jpg", *_CLIPS} and path.name not in announced:
            path.unlink(missing_ok=True)


def _recovered(path: Path, contents: Contents) -> ClipFile | None:
    try:
        comment = json.loads(contents.comment)
        start = datetime.fromisoformat(comment["start"])
        requested_start = datetime.fromisoformat(comment["requested_start"])
        requested_end = datetime.fromisoformat(comment["requested_end"])
        camera_id, recording_id = comment["camera_id"], comment["recording_id"]
        part = comment["part"]
    except (ValueError, KeyError, TypeError):
        return None
    return ClipFile(
        camera_id=camera_id,
        recording_id=recording_id,
        part=part,
        path=path,
        container=Container(path.suffix.removeprefix(".")),
        codec=contents.codec,
        start=start,
        end=start + timedelta(seconds=contents.duration_s),
        requested_start=requested_start,
        requested_end=requested_end,
        num_frames=contents.num_frames,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        complete=False,
        faults=(Fault(code=FaultCode.RECOVERED), *contents.faults),
    )
