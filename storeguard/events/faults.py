"""What is wrong with an event's clip, as data.

Recording, uploading and the event journal decide by a fault's code and numbers. `in_words` makes
the sentence that people read; nothing ever reads a sentence back.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict


class FaultCode(StrEnum):
    """Each kind of fault."""

    # What the stored files leave uncovered of the requested span: recomputed with each file.
    STARTS_LATE = "starts_late"
    ENDS_EARLY = "ends_early"
    GAP = "gap"
    NO_VIDEO = "no_video"
    OVERDUE = "overdue"
    # Why a span could not be recorded.
    NOTHING_KEPT = "nothing_kept"
    NOTHING_CAME = "nothing_came"
    NO_RECORDER = "no_recorder"
    PROCESS_ENDED = "process_ended"
    PAUSED = "paused"
    WRITE_FAILED = "write_failed"
    FILE_LOST = "file_lost"
    CLOCK_SET_BACK = "clock_set_back"
    DELETED = "deleted"
    # What is missing inside a file.
    PACKETS_LOST = "packets_lost"
    CUT_OFF = "cut_off"
    CAMERA_SILENT = "camera_silent"
    RECORDER_CLOSED = "recorder_closed"
    RECOVERED = "recovered"
    CHECKSUM_CHANGED = "checksum_changed"
    # Remarks: nothing is missing.
    ENCODED = "encoded"
    AUDIO_LEFT_OUT = "audio_left_out"
    INDEX_AT_END = "index_at_end"
    # Written by an earlier release, as words alone.
    OTHER = "other"


_COVERAGE: Final = frozenset(
    {
        FaultCode.STARTS_LATE,
        FaultCode.ENDS_EARLY,
        FaultCode.GAP,
        FaultCode.NO_VIDEO,
        FaultCode.OVERDUE,
    }
)
_REMARKS: Final = frozenset({FaultCode.ENCODED, FaultCode.AUDIO_LEFT_OUT, FaultCode.INDEX_AT_END})
_WORDS: Final = {
    FaultCode.STARTS_LATE: "starts {seconds:.2f} s later than requested",
    FaultCode.ENDS_EARLY: "ends {seconds:.2f} s earlier than requested",
    FaultCode.GAP: "{seconds:.2f} s are missing within",
    FaultCode.NO_VIDEO: "there is no video of it",
    FaultCode.OVERDUE: (
        "its video has not arrived for minutes: the camera's disk may be lost, or object storage "
        "unreachable"
    ),
    FaultCode.NOTHING_KEPT: "nothing of it was kept",
    FaultCode.NOTHING_CAME: "no video came while it was recorded",
    FaultCode.NO_RECORDER: "no camera was there to record it",
    FaultCode.PROCESS_ENDED: "the camera's process ended before its video was written",
    FaultCode.PAUSED: "recording is paused: {detail}",
    FaultCode.WRITE_FAILED: "{detail}",
    FaultCode.FILE_LOST: "the file {detail} was lost on the spool's disk",
    FaultCode.CLOCK_SET_BACK: "the camera's clock was set back before its time came",
    FaultCode.DELETED: "{detail}",
    FaultCode.PACKETS_LOST: "{count} packets lost, the disk is too slow",
    FaultCode.CUT_OFF: "cut off: {detail}",
    FaultCode.CAMERA_SILENT: "the camera sent no more",
    FaultCode.RECORDER_CLOSED: "the recorder was closed",
    FaultCode.RECOVERED: "recovered after a crash",
    FaultCode.CHECKSUM_CHANGED: "it changed on disk before it was stored",
    FaultCode.ENCODED: "encoded from {detail}",
    FaultCode.AUDIO_LEFT_OUT: "audio left out: {detail}",
    FaultCode.INDEX_AT_END: "index not in front: {detail}",
    FaultCode.OTHER: "{detail}",
}


class Fault(BaseModel):
    """One fault of a clip.

    Attributes:
        code: its kind.
        seconds: how much is missing, for coverage faults; None elsewhere.
        count: how many, for lost packets; None elsewhere.
        detail: what an operating system or library reported, redacted; None if there is nothing.
        in_file: whether it is about the inside of one stored file, not about the whole span.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: FaultCode
    seconds: float | None = None
    count: int | None = None
    detail: str | None = None
    in_file: bool = False

    @property
    def is_coverage(self) -> bool:
        """Whether it says which part of the requested span has no file yet; more files mend it."""
        return self.code in _COVERAGE

    @property
    def is_remark(self) -> bool:
        """Whether nothing is missing because of it."""
        return self.code in _REMARKS

    def in_words(self) -> str:
        """One sentence fragment in English, for people."""
        words = _WORDS[self.code].format(
            seconds=self.seconds or 0.0, count=self.count or 0, detail=self.detail or "unknown"
        )
        return f"in the file: {words}" if self.in_file else words


def in_words(faults: Iterable[Fault]) -> str | None:
    """All faults as one line; None if there is none."""
    return "; ".join(dict.fromkeys(fault.in_words() for fault in faults)) or None
