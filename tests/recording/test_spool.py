"""The spool folder: whole manifests in order, locks, and what a crash leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import pytest

from storeguard.config.store import CameraConfig, RecordingSettings
from storeguard.errors import RecordingError
from storeguard.events.clip import ClipSpan
from storeguard.events.event import Event, EventStatus, EventType
from storeguard.recording.recording import ClipFile, Recording
from storeguard.recording.spool import (
    ClipItem,
    EventItem,
    RecordingEvents,
    Spool,
    WishItem,
    key_prefix,
)
from storeguard.testing.video import VideoSpec, make_video
from storeguard.video.packets import EncodedPacket
from storeguard.video.reader import CameraReader

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
WHY = "killed"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def wish(name: str, start_s: float, end_s: float, *, final: bool = False) -> ClipSpan:
    return ClipSpan(event_id=name, start=at(start_s), end=at(end_s), final=final)


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


def links_of(spool: Spool, kind: type[ClipItem | WishItem]) -> list[list[str]]:
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
        again.put(WishItem(links=(), error=str(number)), f"{99 - number}")
    assert [item.manifest.error for item in spool.items()] == [str(n) for n in range(12)]  # type: ignore[union-attr]


def test_a_half_written_manifest_is_none(spool: Spool):
    (spool.folder / ".000000000000-x.ready.json.tmp").write_text('{"kind": "wi')
    assert list(spool.items()) == []
    spool.recover(WHY)
    assert names(spool) == set()


def test_an_interrupted_clip_is_finished_and_queued_for_its_events(
    spool: Spool, packets: list[EncodedPacket]
):
    begin(spool, "r1", packets)
    links = (wish("before", -20, -10, final=True), wish("open", 1, 2), wish("closed", 2, 3))
    spool.note(RecordingEvents(recording_id="r1", links=links))
    assert spool.recover(WHY) == 1
    (item,) = [one.manifest for one in spool.items() if isinstance(one.manifest, ClipItem)]
    assert [link.event_id for link in item.links] == ["open", "closed"]
    assert all(link.final for link in item.links)
    assert plays(spool.folder / item.file) == item.num_frames > 50
    assert item.fault == "recovered after a crash"
    (failure,) = [one.manifest for one in spool.items() if isinstance(one.manifest, WishItem)]
    assert ([link.event_id for link in failure.links], failure.error) == (["before"], WHY)
    assert names(spool) == {item.file, *(one.path.name for one in spool.items())}
    assert spool.recover(WHY) == 0  # and that was all


@pytest.mark.parametrize("part_left", [False, True])
def test_a_finished_clip_that_was_not_queued_is(
    spool: Spool, packets: list[EncodedPacket], *, part_left: bool
):
    clip = finish(spool, "r1", packets)
    if part_left:  # killed between the two steps of finishing
        clip.path.with_name(f".{clip.path.name}.part").write_bytes(clip.path.read_bytes())
    spool.note(RecordingEvents(recording_id="r1", links=(wish("a", 1, 2),)))
    assert spool.recover(WHY) == 1
    assert links_of(spool, ClipItem) == [["a"]]
    (item,) = [one.manifest for one in spool.items() if isinstance(one.manifest, ClipItem)]
    assert plays(spool.folder / item.file) == clip.num_frames


def test_a_queued_clip_is_left_alone(spool: Spool, packets: list[EncodedPacket]):
    clip = finish(spool, "r1", packets)
    spool.put(spool.clip_item(clip, [wish("a", 1, 2)]), clip.path.name)
    before = names(spool)
    assert spool.recover(WHY) == 0
    assert names(spool) == before


def test_a_clip_for_no_event_is_removed(spool: Spool, packets: list[EncodedPacket]):
    begin(spool, "r1", packets)
    finish(spool, "r2", packets)
    (spool.folder / ".broken_20260501_0.mp4.part").write_bytes(b"no video")
    (spool.folder / "stray.jpg").write_bytes(b"never queued")
    assert spool.recover(WHY) == 0
    assert names(spool) == set()


def test_events_of_a_recording_without_a_file_are_told_why(spool: Spool):
    asked = Event(
        event_id="asked",
        version=1,
        type=EventType.MANUAL,
        status=EventStatus.OPEN,
        store_id="shop",
        camera_id="till",
        started_at=at(3),
        updated_at=at(3),
    )
    links = (wish("asked", 1, 3), wish("rule", 2, 4))
    spool.note(RecordingEvents(recording_id="r1", links=links, asked=(asked,)))
    spool.recover(WHY)
    assert links_of(spool, WishItem) == [["asked", "rule"]]
    (closed,) = [one.manifest.event for one in spool.items() if isinstance(one.manifest, EventItem)]
    assert (closed.status, closed.ended_at, closed.version) == (EventStatus.CLOSED, at(3), 2)
    assert not list(spool.folder.glob("*.events.json"))


def test_unreadable_notes_do_not_stop_recovery(spool: Spool, packets: list[EncodedPacket]):
    (spool.folder / "r0.events.json").write_text("{")
    begin(spool, "r1", packets)
    spool.note(RecordingEvents(recording_id="r1", links=(wish("a", 1, 2),)))
    assert spool.recover(WHY) == 1
    assert links_of(spool, ClipItem) == [["a"]]


def test_one_writes_and_one_takes(spool: Spool):
    other = Spool(spool.folder, prefix="shop/till")
    with spool.writing(), other.taking() as takes, other.writing() as writes:
        assert (takes, writes) == (True, False)
    with other.writing() as writes:
        assert writes


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
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
