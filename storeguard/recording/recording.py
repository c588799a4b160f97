"""One recording: from packets to clip files, as a state machine without threads.

A recording starts at the last keyframe at or before the requested start, and ends when decoding
time reaches the requested end, so that no clip is shorter than requested. Each file states both the
requested span and the span that it really covers.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storeguard.config.store import Container, RecordingSettings
from storeguard.errors import RecordingError
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.muxer import ClipWriter
from storeguard.video.packets import EncodedPacket, MediaKind, StreamFormat

_MAX_GAP = timedelta(seconds=60)  # a longer gap in the stream begins a new file
_TOLERANCE = timedelta(milliseconds=2)  # of time stamps, when spans are compared


@dataclass(frozen=True, slots=True)
class ClipFile:
    """One finished file of a recording.

    Attributes:
        camera_id: whose video it is.
        recording_id: which recording it is of; a long recording has several files.
        part: 0, 1, 2, ... within the recording.
        path: the file.
        container: mp4 or mkv.
        codec: of its video.
        start, end: capture time of its first picture, and the end of its last.
        requested_start, requested_end: the span requested of this file.
        num_frames: pictures in it.
        sha256, size_bytes: of the file.
        complete: whether it covers the requested span and no packet in between was lost.
        faults: what is not as requested, remarks included; empty if all is.
    """

    camera_id: str
    recording_id: str
    part: int
    path: Path
    container: Container
    codec: str
    start: datetime
    end: datetime
    requested_start: datetime
    requested_end: datetime
    num_frames: int
    sha256: str
    size_bytes: int
    complete: bool
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _OpenFile:
    writer: ClipWriter
    part: int
    requested_start: datetime
    start: datetime
    end: datetime
    faults: list[Fault]
    complete: bool


class Recording:
    """One recording, as a state machine without threads: fed with packets, it gives files.

    Not thread-safe.

    Args:
        camera_id: for names and messages.
        settings: container, prefix, default and longest duration.
        folder: where its files go.
        requested_start: where it begins.
        requested_end: where it ends; None ends it `default_duration_s` after `now`.
        now: the camera's own present, the end of its newest picture.
        recording_id: its name; None makes a random one.

    Raises:
        RecordingError: it would end before it starts.
    """

    def __init__(
        self,
        *,
        camera_id: str,
        settings: RecordingSettings,
        folder: Path,
        requested_start: datetime,
        requested_end: datetime | None,
        now: datetime,
        recording_id: str | None = None,
    ) -> None:
        self.recording_id = recording_id or uuid.uuid4().hex
        self.requested_start = requested_start
        self.requested_end = requested_end or now + timedelta(seconds=settings.default_duration_s)
        if self.requested_end < requested_start:
            raise RecordingError(
                f"camera {camera_id!r}: a recording cannot end ({self.requested_end}) before it "
                f"starts ({requested_start})"
            )
        self.done = False
        self.started_at: datetime | None = None
        self._camera_id = camera_id
        self._settings = settings
        self._folder = folder
        self._max = timedelta(seconds=settings.max_duration_s)
        self._file: _OpenFile | None = None
        self._num_parts = 0
        self._waiting = True  # for a keyframe
        self._segment: int | None = None
        self._video: StreamFormat | None = None
        self._audio: StreamFormat | None = None
        self._audio_known = False
        self._pending: list[Fault] = []

    def extend(self, to: datetime) -> bool:
        """Record until `to`, if that is later than planned; False if it is over already."""
        if not self.done:
            self.requested_end = max(self.requested_end, to)
        return not self.done

    def stop(self, at: datetime) -> None:
        """End at `at`, if that is earlier than planned. May be in the past."""
        self.requested_end = max(min(self.requested_end, at), self.requested_start)

    def expect_audio(self, audio: StreamFormat | None) -> None:
        """Set the format of the audio to come; to be called before the first picture."""
        self._audio = audio

    def lost(self, num_packets: int) -> None:
        """Packets were dropped before they could be fed: wait for a keyframe, and note the loss."""
        fault = Fault(code=FaultCode.PACKETS_LOST, count=num_packets)
        if self._file is not None:
            self._file.faults.append(fault)
            self._file.complete = False
        else:
            self._pending.append(fault)
        self._waiting = True

    def feed(self, packet: EncodedPacket) -> list[ClipFile]:
        """Take the next packet; returns the files it completes.

        Raises:
            RecordingError: it cannot be written. The recording is over, its open file removed.
        """
        if self.done:
            return []
        try:
            if packet.kind is MediaKind.AUDIO:
                is_due = packet.format == self._audio and packet.captured_at < self.requested_end
                if self._file is not None and is_due:
                    self._file.writer.write(packet)
                return []
            return self._feed_video(packet)
        except RecordingError:
            self.done = True
            self._file = None
            raise

    def close(self, reason: FaultCode | None = None) -> list[ClipFile]:
        """End now with what there is; `reason` is why it ends early."""
        self.done = True
        return self._finish_file(reason)

    def abort(self) -> None:
        """End now and remove the open file."""
        self.done = True
        if self._file is not None:
            self._file.writer.abort()
            self._file = None

    def _feed_video(self, packet: EncodedPacket) -> list[ClipFile]:
        if self._ends_before(packet):
            self._reach_the_end(packet)
            return self._finish_file()
        finished: list[ClipFile] = []
        if packet.segment != self._segment:
            self._segment = packet.segment
            self._waiting = True
        if packet.is_keyframe:
            self._waiting = False
            if self._file is not None and self._needs_new_file(packet, self._file):
                finished = self._finish_file()
            if self._file is None:
                self._file = self._begin_file(packet)
        elif self._video is not None and packet.format != self._video:
            self._waiting = True
        if self._waiting or self._file is None:
            return finished
        if self._file.writer.write(packet):
            self._file.end = max(self._file.end, packet.ends_at)
        return finished

    def _reach_the_end(self, packet: EncodedPacket) -> None:
        """Where packets are missing before the end, the first behind it closes the span."""
        file = self._file
        same = packet.segment == self._segment and packet.format == self._video
        if file is None or file.end >= self.requested_end or not same or self._waiting:
            return
        if file.writer.write(packet):
            file.end = max(file.end, packet.ends_at)

    def _ends_before(self, packet: EncodedPacket) -> bool:
        # By decoding time: pictures that belong before the end may still come after one behind it.
        early = timedelta(microseconds=packet.time_us - packet.decode_us)
        if self._file is not None and packet.captured_at - early >= self.requested_end:
            self.done = True
        return self.done

    def _needs_new_file(self, packet: EncodedPacket, file: _OpenFile) -> bool:
        return (
            packet.format != self._video
            or packet.captured_at - file.start >= self._max
            or packet.captured_at - file.end > _MAX_GAP
        )

    def _begin_file(self, packet: EncodedPacket) -> _OpenFile:
        start = packet.captured_at
        part, self._num_parts = self._num_parts, self._num_parts + 1
        requested = self.requested_start if part == 0 else start
        self._video = packet.format
        writer = ClipWriter(
            self._path(start, part),
            container=self._settings.container,
            video=packet.format,
            audio=self._audio,
            comment=json.dumps(
                {
                    "camera_id": self._camera_id,
                    "recording_id": self.recording_id,
                    "part": part,
                    "start": start.isoformat(),
                    "requested_start": requested.isoformat(),
                    "requested_end": self.requested_end.isoformat(),
                }
            ),
        )
        self.started_at = self.started_at or start
        faults, self._pending = self._pending, []
        return _OpenFile(writer, part, requested, start, start, faults, complete=not faults)

    def _path(self, start: datetime, part: int) -> Path:
        prefix = self._settings.file_prefix or f"{self._camera_id}_"
        stamp = f"{start.astimezone(UTC):%Y%m%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
        name = f"{prefix}{stamp}_{self.recording_id[:8]}_{part}.{self._settings.container}"
        return self._folder / name

    def _finish_file(self, reason: FaultCode | None = None) -> list[ClipFile]:
        file, self._file = self._file, None
        if file is None:
            return []
        written = file.writer.finish()
        if written.cut_at_s is not None:
            file.end = min(file.end, file.start + timedelta(seconds=written.cut_at_s))
            file.complete = False
        end = self.requested_end if self.done else min(self.requested_end, file.end)
        end = max(end, file.requested_start)
        faults = [*file.faults, *([Fault(code=reason)] if reason else []), *written.faults]
        late, early = file.start - file.requested_start, end - file.end
        if late > _TOLERANCE:
            faults.append(Fault(code=FaultCode.STARTS_LATE, seconds=late.total_seconds()))
        if early > _TOLERANCE:
            faults.append(Fault(code=FaultCode.ENDS_EARLY, seconds=early.total_seconds()))
        covers = late <= _TOLERANCE and early <= _TOLERANCE
        return [
            ClipFile(
                camera_id=self._camera_id,
                recording_id=self.recording_id,
                part=file.part,
                path=written.path,
                container=self._settings.container,
                codec=written.codec,
                start=file.start,
                end=file.end,
                requested_start=file.requested_start,
                requested_end=end,
                num_frames=written.num_frames,
                sha256=written.sha256,
                size_bytes=written.size_bytes,
                complete=file.complete and covers,
                faults=tuple(faults),
            )
        ]
