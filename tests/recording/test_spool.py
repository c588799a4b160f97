"""The spool folder: whole manifests in order, locks, and what a crash leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import pytest

from storeguard.config.store import CameraConfig, RecordingSettings
from storeguard.errors import RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.events.faults import Fault, FaultCode
from storeguard.recording.clip_requests import ClipRequest
from storeguard.recording.recording import ClipFile, Recording
from storeguard.recording.recovery import recover
from storeguard.recording.spool import (
    ClipItem,
    EventItem,
    RecorderCheckpoint,
    RequestItem,
    Spool,
    key_prefix,
)
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader

START = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def request(
    name: str, start_s: float, end_s: float, *, final: bool = False, manual: Event | None = None
) -> ClipRequest:
    return ClipRequest(event_id=name, start=at(start_s), end=at(end_s), final=final, manual=manual)


def span(name: str, start_s: float, end_s: float) -> ClipSpan:
    return request(name, start_s, end_s).span


def note(spool: Spool, recording_id: str, *requests: ClipRequest) -> None:
    """Save what a recorder saves before it writes a recording."""
    recordings = {recording_id: tuple(one.event_id for one in requests)}
    spool.save(RecorderCheckpoint(requests=requests, recordings=recordings))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "till", prefix="shop/till")


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedPacket]:
    path = make_video(tmp_path_factory.mktemp("video") / "v.mp4", VideoSpec(num_frames=100))
    read: list[EncodedPacket] = []
    camera = CameraConfig(id="till", source=str(path), pace="fast")
    reader = CameraReader(camera, on_frame=lambda _: None, on_packet=read.append, start=START)
    with reader:
        assert reader.join(180)
    return read


def begin(spool: Spool, name: str, packets: list[EncodedPacket]) -> Recording:
    """A recording whose process dies some time later: nobody closes it."""
    recording = Recording(
        camera_id="till",
        settings=RecordingSettings(),
        folder=spool.folder,
        requested_start=at(1),
        requested_end=at(60),
        now=at(1),
        recording_id=name,
    )
    for packet in packets:
        recording.feed(packet)
    return recording


def finish(spool: Spool, name: str, packets: list[EncodedPacket]) -> ClipFile:
    (clip,) = begin(spool, name, packets).close()
    return clip


def links_of(spool: Spool, kind: type[ClipItem | RequestItem]) -> list[list[str]]:
    manifests = (item.manifest for item in spool.items())
    return [[link.event_id for link in one.links] for one in manifests if isinstance(one, kind)]


def names(spool: Spool) -> set[str]:
    return {path.name for path in spool.folder.iterdir() if path.suffix != ".lock"}


def plays(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_manifests_come_in_the_order_they_were_put_also_after_a_restart(spool: Spool):
    for number in range(12):
        again = Spool(spool.folder, prefix="shop/till")
        fault = Fault(code=FaultCode.OTHER, detail=str(number))
        again.put(RequestItem(links=(), fault=fault), f"{99 - number}")
    assert [item.manifest.fault.detail for item in spool.items()] == [str(n) for n in range(12)]  # type: ignore[union-attr]


def test_a_half_written_manifest_is_none(spool: Spool):
    (spool.folder / ".000000000000-x.ready.json.tmp").write_text('{"kind": "wi')
    (spool.folder / ".part-0a1b2c-000000000001-x.ready.json").write_text('{"kind": "wi')
    assert list(spool.items()) == []
    assert spool.size()[0] == 0
    recover(spool, goes_on=False)
    assert names(spool) == set()


def test_an_interrupted_clip_is_finished_and_queued_for_its_events(
    spool: Spool, packets: list[EncodedPacket]
):
    begin(spool, "r1", packets)
    requests = (
        request("before", -20, -10, final=True),
        request("open", 1, 2),
        request("closed", 2, 3, final=True),
    )
    note(spool, "r1", *requests)
    left = recover(spool, goes_on=True)
    assert [one.event_id for one in left.requests] == ["open"]
    (item,) = [one.manifest for one in spool.items() if isinstance(one.manifest, ClipItem)]
    assert [link.event_id for link in item.links] == ["open", "closed"]
    assert [link.final for link in item.links] == [False, True]
    assert plays(spool.folder / item.file) == item.num_frames > 50
    assert [fault.code for fault in item.faults] == [FaultCode.RECOVERED]
    reports = [one.manifest for one in spool.items() if isinstance(one.manifest, RequestItem)]
    assert {one.links[0].event_id: one.fault and one.fault.code for one in reports} == {
        "before": FaultCode.PROCESS_ENDED,
        "closed": None,
    }
    manifests = {one.path.name for one in spool.items()}
    assert names(spool) == {item.file, "recorder.json", *manifests}
    assert recover(spool, goes_on=True) == left  # and that was all
    assert {one.path.name for one in spool.items()} == manifests


@pytest.mark.parametrize("part_left", [False, True])
def test_a_finished_clip_that_was_not_queued_is(
    spool: Spool, packets: list[EncodedPacket], *, part_left: bool
):
    clip = finish(spool, "r1", packets)
    if part_left:  # killed between the two steps of finishing
        clip.path.with_name(f".{clip.path.name}.part").write_bytes(clip.path.read_bytes())
    note(spool, "r1", request("a", 1, 2))
    recover(spool, goes_on=False)
    assert links_of(spool, ClipItem) == [["a"]]
    (item,) = [one.manifest for one in spool.items() if isinstance(one.manifest, ClipItem)]
    assert plays(spool.folder / item.file) == clip.num_frames


def test_a_queued_clip_is_left_alone(spool: Spool, packets: list[EncodedPacket]):
    clip = finish(spool, "r1", packets)
    spool.put(spool.clip_item(clip, [span("a", 1, 2)]), clip.path.name)
    before = names(spool)
    recover(spool, goes_on=False)
    assert names(spool) == before


def test_a_clip_for_no_event_is_removed(spool: Spool, packets: list[EncodedPacket]):
    begin(spool, "r1", packets)
    finish(spool, "r2", packets)
    (spool.folder / ".broken_20260501_0.mp4.part").write_bytes(b"no video")
    (spool.folder / "stray.jpg").write_bytes(b"never queued")
    recover(spool, goes_on=False)
    assert names(spool) == set()


def test_events_of_a_recording_without_a_file_get_a_fault(spool: Spool):
    manual = Event(
        event_id="manual",
        version=1,
        type=EventType.MANUAL,
        status=EventStatus.OPEN,
        store_id="shop",
        camera_id="till",
        started_at=at(3),
        updated_at=at(3),
    )
    note(spool, "r1", request("manual", 1, 3, manual=manual), request("rule", 2, 4))
    recover(spool, goes_on=False)
    assert links_of(spool, RequestItem) == [["manual"], ["rule"]]
    (closed,) = [one.manifest.event for one in spool.items() if isinstance(one.manifest, EventItem)]
    assert (closed.status, closed.ended_at, closed.version) == (EventStatus.CLOSED, at(3), 2)


@pytest.mark.parametrize("content", [b"", b"{", bytes(300), b'{"format": 9, "cursor": null}'])
def test_an_unreadable_checkpoint_is_set_aside(
    spool: Spool, packets: list[EncodedPacket], content: bytes
):
    begin(spool, "r1", packets)
    (spool.folder / "recorder.json").write_bytes(content)
    assert recover(spool, goes_on=True) == RecorderCheckpoint()
    assert links_of(spool, ClipItem) == []
    assert (spool.folder / ".recorder.json.damaged").read_bytes() == content


def test_a_spool_of_release_0_1_is_taken_over(spool: Spool, packets: list[EncodedPacket]):
    """Its waiting manifests are shipped, its interrupted recording is recovered."""
    begin(spool, "r1", packets)
    links = [{"event_id": "a", "start": at(1).isoformat(), "end": at(2).isoformat(), "final": True}]
    note_0_1 = {"recording_id": "r1", "links": links, "asked": []}
    (spool.folder / "r1.events.json").write_text(json.dumps(note_0_1))
    wish = {"kind": "wish", "links": links, "error": "the disk was full"}
    (spool.folder / "000000000000-a.ready.json").write_text(json.dumps(wish))
    clip = {
        "kind": "clip",
        "camera_id": "till",
        "recording_id": "r0",
        "part": 0,
        "links": links,
        "file": "x.mp4",
        "key": "shop/x.mp4",
        "upload": False,
        "container": "mp4",
        "codec": "h264",
        "start": at(1).isoformat(),
        "end": at(2).isoformat(),
        "requested_start": at(1).isoformat(),
        "requested_end": at(2).isoformat(),
        "num_frames": 10,
        "sha256": "0" * 64,
        "size_bytes": 1,
        "complete": False,
        "note": "encoded from mjpeg; 3 packets lost",
        "fault": "3 packets lost",
    }
    (spool.folder / "000000000001-x.ready.json").write_text(json.dumps(clip))
    spool = Spool(spool.folder, prefix="shop/till")
    recover(spool, goes_on=False)
    first, second, *_ = [item.manifest for item in spool.items()]
    assert isinstance(first, RequestItem)
    assert first.fault == Fault(code=FaultCode.OTHER, detail="the disk was full")
    assert isinstance(second, ClipItem)
    assert second.faults == (Fault(code=FaultCode.OTHER, detail="3 packets lost"),)
    assert links_of(spool, ClipItem) == [["a"], ["a"]]
    assert not list(spool.folder.glob("*.events.json"))


def test_one_writes_and_one_takes(spool: Spool):
    other = Spool(spool.folder, prefix="shop/till")
    with spool.writing(), other.taking() as takes, other.writing() as writes:
        assert (takes, writes) == (True, False)
    with other.writing() as writes:
        assert writes


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordingError, match="cannot be made"):
        Spool(tmp_path / "file" / "till", prefix="shop/till")


@pytest.mark.parametrize(
    ("folder", "prefix"),
    [
        ("", "shop/till"),
        ("front/left", "shop/front/left"),
        ("/front//left/", "shop/front/left"),
        ("../../etc", "shop/etc"),  # no way out of the store's own folder
        ("..", "shop/till"),
    ],
)
def test_keys_stay_below_the_store(folder: str, prefix: str):
    assert key_prefix("shop", "till", folder) == prefix
