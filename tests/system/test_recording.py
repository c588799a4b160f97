"""Smart recording on a real Ray: events to clips that play over HTTP, and what may go wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import redis

from actors.naming import NAMESPACE, actor_name
from serve.runner import RunningStore, running_store
from storeguard.config.store import StoreConfig
from storeguard.events.commands import STREAM
from tests.clip_truth import check_clips, frames_of, moment
from tests.system.asking import (
    PATIENT_TRACKER,
    START_S,
    add_camera,
    camera,
    client,
    events,
    metric,
    port,
    remove_camera,
)
from tests.system.clip_progress import second_fragment_written, spool_files, unfinished
from tests.waiting import EVERYWHERE, wait_for

PRE_S, POST_S = 2.0, 1.0


def config_of(folder: Path, bikes: Path, visit: Path) -> StoreConfig:
    roll = {"pre_roll_s": PRE_S, "post_roll_s": POST_S}
    return StoreConfig.model_validate(
        {
            "store": "clips",
            "data_dir": folder,
            "api": {"port": port()},
            "storage": {"min_free_bytes": 0},
            "tracker": PATIENT_TRACKER,
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
                            "rules": [
                                {"type": "loitering", "loiter_s": 2, "max_gap_s": 60, **roll}
                            ],
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
    with client(store.url) as asked:
        yield asked


def event(api: httpx.Client, event_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/v1/events/{event_id}").json()
    return found


def spans(clip: dict[str, Any]) -> dict[str, datetime]:
    return {name: moment(clip[name]) for name in ("requested_start", "requested_end", "end")}


def with_clip(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """Closed events that have the whole of their video in one file, and of no more than that: what
    a stalled machine says late of an event is recorded for longer, or in parts.
    """
    before, behind = timedelta(seconds=PRE_S), timedelta(seconds=POST_S)
    return [
        one
        for one in events(api, status="closed", **query)
        if (clip := one["clip"] or {}).get("uri")
        and not clip["error"]
        and (span := spans(clip))["requested_start"] == moment(one["started_at"]) - before
        and span["requested_end"] == moment(one["ended_at"]) + behind
        and span["requested_end"] <= span["end"]
    ]


def test_an_event_has_a_clip_that_plays_over_http(api: httpx.Client) -> None:

    def whole() -> dict[str, Any] | None:
        found = with_clip(api, camera="street", type="intrusion")
        return next((one for one in found if one["snapshot"]), None)

    one = wait_for(whole, seconds=START_S, found=lambda: events(api, camera="street")[:3])
    clip = one["clip"]

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


def taken(answer: httpx.Response) -> httpx.Response | None:
    """The answer to a command, unless the camera had none in time."""
    return None if answer.status_code == 503 else answer


def last_seen(api: httpx.Client, camera_id: str) -> datetime | None:
    at = camera(api, camera_id)["last_frame_at"]
    return None if at is None else moment(at)


def manual(api: httpx.Client, event_id: str) -> dict[str, Any] | None:
    """A recording that was asked for, once the last of its files is stored."""
    answer = api.get(f"/api/v1/events/{event_id}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    if found.get("status") != "closed" or not (clip := found.get("clip") or {}).get("uri"):
        return None
    last = max(moment(file["end"]) for file in (clip, *clip["parts"]))
    return found if last >= moment(clip["requested_end"]) else None


def test_a_recording_asked_for_over_http(api: httpx.Client) -> None:
    begun = wait_for(lambda: last_seen(api, "quiet"), seconds=START_S)
    so_much = timedelta(seconds=2.5)  # and a little less is asked of the past
    wait_for(lambda: (now := last_seen(api, "quiet")) and now >= begun + so_much)
    answer = wait_for(lambda: taken(record(api, "quiet", command="start-recording", duration_s=2)))
    assert answer.status_code == 202, answer.text
    (event_id,) = answer.json()["event_ids"]
    assert moment(answer.json()["available_from"]) <= moment(answer.json()["start"])
    found = wait_for(lambda: manual(api, event_id))
    clip = found["clip"]
    assert found["type"] == "manual"
    assert clip["requested_start"] == answer.json()["start"]
    assert clip["requested_end"] == answer.json()["end"]
    span = spans(clip)
    assert span["requested_end"] - span["requested_start"] == timedelta(seconds=4)
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
        wait_for(lambda known=known: camera(api, known)["frames_processed"], seconds=START_S)
    answer = wait_for(lambda: taken(record(api, camera_id, **command)))
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    assert "Traceback" not in answer.json()["detail"]


def test_commands_on_the_stream(api: httpx.Client, store: RunningStore) -> None:
    def outcome(name: str) -> float:
        return metric(api, f'storeguard_commands_total{{outcome="{name}"}}')

    def outcomes() -> list[float] | None:
        found = [outcome("done"), outcome("refused")]
        return found if min(found) >= 0 else None

    wait_for(lambda: camera(api, "quiet")["frames_processed"], seconds=START_S)
    url = ray.get(store.supervisor.store_url.remote())
    before = {one["event_id"] for one in events(api, camera="quiet", type="manual")}
    # Longer than any stall, so that there is something to stop.
    wanted = {"command": "start-recording", "sensor": {"id": "quiet"}, "duration_s": 600}
    start = {"message": json.dumps(wanted)}
    stop = {"command": "stop-recording", "sensor.id": "quiet"}
    rounds = 0
    with redis.Redis.from_url(url) as stream:

        def carried_out(command: dict[str, str]) -> bool:
            """Whether it was; one whose answer comes too late is counted as refused."""
            done, refused = wait_for(outcomes)
            stream.xadd(STREAM, command)
            wait_for(lambda: outcome("done") > done or outcome("refused") > refused)
            return outcome("done") > done

        def started_and_stopped() -> bool:
            nonlocal rounds
            rounds += 1
            return carried_out(start) and carried_out(stop)

        wait_for(lambda: stream.exists(STREAM))  # made by who listens, from then on
        stream.xadd(STREAM, {"message": "{broken"})
        elsewhere = {**wanted, "sensor": {"id": "elsewhere"}}
        stream.xadd(STREAM, {"message": json.dumps(elsewhere)})
        wait_for(lambda: outcome("invalid") == 1 and outcome("foreign") == 1)
        wait_for(started_and_stopped)
        assert not carried_out(stop)  # there is nothing to stop any more

    def more() -> set[str]:
        return {one["event_id"] for one in events(api, camera="quiet", type="manual")} - before

    fresh = wait_for(more)
    assert len(fresh) <= rounds
    for event_id in fresh:
        wait_for(lambda event_id=event_id: manual(api, event_id))


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
    going, *_ = wait_for(
        lambda: [
            one
            for one in events(api, camera="cabin", status="open")
            if (one.get("clip") or {}).get("uri") and any(spool_files(folder, "cabin"))
        ],
        seconds=START_S,
    )
    wait_for(lambda: second_fragment_written(folder, "cabin"))
    parts = len(event(api, going["event_id"])["clip"]["parts"])
    killed_at = datetime.now(UTC)
    os.kill(pid_of("cameras-0"), signal.SIGKILL)
    os.kill(pid_of("uploader-cameras-0"), signal.SIGKILL)

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
        remove_camera(api, camera_id)
    late = {"id": "late", "source": str(bikes), "loop": True, "recording": {"smart_record": "off"}}
    add_camera(api, late)
    wait_for(lambda: camera(api, "late")["frames_processed"], seconds=START_S)

    def left() -> list[Any]:
        return unfinished(api, folder, "cabin", "street", "quiet")

    wait_for(lambda: not left(), seconds=START_S, found=left)
    check_clips(events(api), folder / "objects")
