"""Smart recording on a real Ray: events to clips that play over HTTP, and what may go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import redis

from actors.naming import NAMESPACE, actor_name
from serve.runner import RunningStore, free_port, running_store
from storeguard.config import StoreConfig
from storeguard.events.commands import STREAM
from tests.clip_truth import check_clips, frames_of, moment
from tests.system.asking import metric
from tests.waiting import EVERYWHERE, wait_for

PRE_S, POST_S = 2.0, 1.0


def config_of(folder: Path, bikes: Path, visit: Path) -> StoreConfig:
    roll = {"pre_roll_s": PRE_S, "post_roll_s": POST_S}
    return StoreConfig.model_validate(
        {
            "store": "clips",
            "data_dir": folder,
            "api": {"port": free_port("127.0.0.1", 0)},
            "storage": {"min_free_bytes": 0},
            "placement": {"cameras_per_actor": 1},
            "cameras": [
                {
                    "id": "cabin",
                    "source": str(visit),
                    "loop": True,
                    "recording": {"max_duration_s": 6},
                    "zones": [
                        {
                            "id": "seat",
                            "polygon": EVERYWHERE,
                            "rules": [{"type": "loitering", "loiter_s": 2, **roll}],
                        }
                    ],
                },
                {
                    "id": "street",
                    "source": str(bikes),
                    "loop": True,
                    "zones": [
                        {
                            "id": "road",
                            "polygon": EVERYWHERE,
                            "rules": [
                                {
                                    "type": "intrusion",
                                    "anchor": "foot",
                                    "grace_s": 0.3,
                                    **roll,
                                }
                            ],
                        }
                    ],
                },
                {
                    "id": "quiet",
                    "source": str(bikes),
                    "loop": True,
                    "recording": {"smart_record": "commands", "start_before_now_s": 2},
                },
                {
                    "id": "blind",
                    "source": str(bikes),
                    "loop": True,
                    "recording": {"smart_record": "off"},
                },
            ],
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(folder: Path, bikes: Path, long_visit: Path) -> Iterator[RunningStore]:
    with running_store(config_of(folder, bikes, long_visit), say=lambda _: None) as running:
        yield running


@pytest.fixture
def api(store: RunningStore) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=store.url, timeout=30) as client:
        yield client


def events(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = api.get("/api/v1/events", params={"limit": 1000, **query})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def event(api: httpx.Client, event_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/v1/events/{event_id}").json()
    return found


def camera(api: httpx.Client, camera_id: str) -> dict[str, Any]:
    cameras = api.get("/api/v1/cameras").json()["cameras"]
    return next(one for one in cameras if one["id"] == camera_id)


def with_clip(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """Closed events that have the whole of their video."""
    return [
        one
        for one in events(api, status="closed", **query)
        if (one.get("clip") or {}).get("uri")
        and moment(one["clip"]["requested_end"])
        >= moment(one["ended_at"]) + timedelta(seconds=POST_S)
        and one["clip"]["requested_end"] <= one["clip"]["end"]
    ]


def test_an_event_has_a_clip_that_plays_over_http(api: httpx.Client) -> None:

    def whole() -> dict[str, Any] | None:
        found = with_clip(api, camera="street", type="intrusion")
        return next((one for one in found if one["snapshot"] and not one["clip"]["error"]), None)

    one = wait_for(whole)
    clip = one["clip"]
    asked_from = moment(one["started_at"]) - timedelta(seconds=PRE_S)
    assert moment(clip["requested_start"]) == asked_from
    assert moment(clip["requested_end"]) == moment(one["ended_at"]) + timedelta(seconds=POST_S)
    assert moment(clip["end"]) >= moment(clip["requested_end"])

    url = f"/api/v1/events/{one['event_id']}/clip"
    # As a browser does: the first bytes, then a part, then the end.
    head = api.get(url, headers={"Range": "bytes=0-1"})
    assert head.status_code == 206
    size = int(head.headers["content-range"].rpartition("/")[2])
    middle = api.get(url, headers={"Range": f"bytes=2-{size // 2}"})
    tail = api.get(url, headers={"Range": f"bytes={size // 2 + 1}-"})
    content = head.content + middle.content + tail.content
    assert content == api.get(url).content
    times = frames_of(content)
    lasts = (moment(clip["end"]) - moment(clip["start"])).total_seconds()
    assert times[-1] == pytest.approx(lasts, abs=0.1)
    assert len(times) > 20 * lasts

    picture = api.get(f"/api/v1/events/{one['event_id']}/snapshot")
    assert picture.status_code == 200
    assert picture.content[:2] == b"\xff\xd8"


def record(api: httpx.Client, camera_id: str, **command: Any) -> httpx.Response:
    return api.post(f"/api/v1/cameras/{camera_id}/recordings", json=command)


def manual(api: httpx.Client, event_id: str) -> dict[str, Any] | None:
    """A recording that was asked for, once it is stored."""
    answer = api.get(f"/api/v1/events/{event_id}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    stored = found.get("status") == "closed" and (found.get("clip") or {}).get("uri")
    return found if stored else None


def test_a_recording_asked_for_over_http(api: httpx.Client) -> None:
    wait_for(lambda: camera(api, "quiet")["frames_processed"])
    time.sleep(2.5)  # so much is asked of the past
    answer = record(api, "quiet", command="start-recording", duration_s=2)
    assert answer.status_code == 202, answer.text
    (event_id,) = answer.json()["event_ids"]
    found = wait_for(lambda: manual(api, event_id))
    clip = found["clip"]
    assert found["type"] == "manual"
    assert clip["requested_start"] == answer.json()["start"]
    assert clip["requested_end"] == answer.json()["end"]
    assert moment(clip["end"]) - moment(clip["requested_start"]) >= timedelta(seconds=4)
    assert frames_of(api.get(f"/api/v1/events/{event_id}/clip").content)

    kept = api.patch(f"/api/v1/events/{event_id}", json={"keep": True})
    assert kept.status_code == 200, kept.text
    assert kept.json()["keep"] is True
    wait_for(lambda: event(api, event_id)["keep"])


@pytest.mark.parametrize(
    ("camera_id", "command", "status", "says"),
    [
        ("street", {"command": "stop-recording"}, 409, "nothing to stop"),
        ("blind", {"command": "start-recording"}, 409, "smart_record is off"),
        ("quiet", {"command": "start-recording", "start": "2999-01-01T00:00:00Z"}, 422, "ahead"),
        ("none", {"command": "start-recording"}, 404, "no camera"),
    ],
)
def test_an_impossible_command_is_answered(
    api: httpx.Client, camera_id: str, command: dict[str, Any], status: int, says: str
) -> None:
    for known in ("street", "quiet", "blind"):
        wait_for(lambda known=known: camera(api, known)["frames_processed"])
    answer = record(api, camera_id, **command)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert "Traceback" not in answer.json()["detail"]


def test_commands_on_the_stream(api: httpx.Client, store: RunningStore) -> None:
    def outcome(name: str) -> float:
        return metric(api, f'storeguard_commands_total{{outcome="{name}"}}')

    wait_for(lambda: camera(api, "quiet")["frames_processed"])
    url = ray.get(store.supervisor.store_url.remote())
    with redis.Redis.from_url(url) as client:
        before = {one["event_id"] for one in events(api, camera="quiet", type="manual")}
        start = {"command": "start-recording", "sensor": {"id": "quiet"}}
        client.xadd(STREAM, {"message": "{broken"})
        client.xadd(STREAM, {"message": json.dumps({**start, "sensor": {"id": "elsewhere"}})})
        client.xadd(STREAM, {"message": json.dumps(start)})
        wait_for(lambda: outcome("done") >= 1)
        stop = {"command": "stop-recording", "sensor.id": "quiet"}
        client.xadd(STREAM, stop)
        client.xadd(STREAM, stop)
        wait_for(lambda: outcome("done") >= 2 and outcome("refused") >= 1)
    wait_for(lambda: outcome("invalid") == 1 and outcome("foreign") == 1)

    def more() -> set[str]:
        return {one["event_id"] for one in events(api, camera="quiet", type="manual")} - before

    (fresh,) = wait_for(more)
    assert wait_for(lambda: manual(api, fresh))


def knows(event: dict[str, Any]) -> bool:
    """Whether an event has heard of its video."""
    clip = event.get("clip") or {}
    return bool(clip.get("uri") or clip.get("error"))


def unrest(api: httpx.Client, folder: Path, *camera_ids: str) -> list[Any]:
    """What of removed cameras is not settled: files, events, what the event store has not got."""
    files = [file for name in camera_ids for file in spool_files(folder, name)]
    unsettled = [one for one in events(api) if one["status"] == "open" or not knows(one)]
    backlog = metric(api, "storeguard_journal_backlog_events")
    return [*files, *unsettled, *([] if backlog == 0 else [f"backlog {backlog}"])]


def spool_files(folder: Path, camera_id: str) -> list[str]:
    spool = folder / "spool" / camera_id
    return [path.name for path in spool.iterdir() if not path.name.endswith(".lock")]


def second_fragment_written(folder: Path, camera_id: str) -> bool:
    """Whether the file that is being written holds video that a kill must leave behind."""
    with contextlib.suppress(FileNotFoundError):
        parts = list((folder / "spool" / camera_id).glob(".*.part"))
        return any(part.read_bytes().count(b"moof") >= 2 for part in parts)
    return False


def pid_of(role: str) -> int:
    (name,) = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["name"].startswith(actor_name("clips", role))
    ]
    actor = ray.get_actor(name, namespace=NAMESPACE)
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))


def test_kill_9_of_camera_and_recorder_while_clips_are_written(
    api: httpx.Client, folder: Path
) -> None:
    """The cabin is recorded all the time, in files of six seconds."""
    (going,) = wait_for(
        lambda: [
            one
            for one in events(api, camera="cabin", status="open")
            if (one.get("clip") or {}).get("uri") and any(spool_files(folder, "cabin"))
        ]
    )
    wait_for(lambda: second_fragment_written(folder, "cabin"))
    parts = len(event(api, going["event_id"])["clip"]["parts"])
    killed_at = datetime.now(UTC)
    os.kill(pid_of("cameras-0"), signal.SIGKILL)
    os.kill(pid_of("recorder-cameras-0"), signal.SIGKILL)

    def recovered() -> bool:
        cabin, now = camera(api, "cabin"), event(api, going["event_id"])
        alive = cabin["recording"] and moment(cabin["last_frame_at"]) > killed_at
        return alive and len(now["clip"]["parts"]) > parts

    wait_for(recovered)


def test_nothing_is_left_over_and_every_event_knows_its_clip(
    api: httpx.Client, folder: Path, bikes: Path
) -> None:
    """Runs last: takes the cameras away, adds another at once, and looks at what they leave."""
    for camera_id in ("cabin", "street", "quiet"):
        assert api.delete(f"/api/v1/cameras/{camera_id}").status_code == 204
    late = {"id": "late", "source": str(bikes), "loop": True, "recording": {"smart_record": "off"}}
    assert api.post("/api/v1/cameras", json=late).status_code == 201
    wait_for(lambda: camera(api, "late")["frames_processed"])

    def left() -> list[Any]:
        return unrest(api, folder, "cabin", "street", "quiet")

    wait_for(lambda: not left(), found=left)
    check_clips(events(api), folder / "objects")
