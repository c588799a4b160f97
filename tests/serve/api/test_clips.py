"""Clips and snapshots over HTTP: byte ranges, validators, several files."""

from __future__ import annotations

import pytest

from storeguard.events.event import SnapshotRef
from tests.serve.api.memory_system import (
    CLIP,
    SECOND_FILE,
    Client,
    MemorySystem,
    assert_problem,
    event,
)


@pytest.mark.parametrize(
    ("header", "status", "content_range", "expected"),
    [
        (None, 200, None, CLIP),
        ("bytes=0-0", 206, "bytes 0-0/10240", CLIP[:1]),
        ("bytes=100-199", 206, "bytes 100-199/10240", CLIP[100:200]),
        ("bytes=10000-", 206, "bytes 10000-10239/10240", CLIP[10000:]),
        ("bytes=-100", 206, "bytes 10140-10239/10240", CLIP[-100:]),
        ("bytes=-99999", 206, "bytes 0-10239/10240", CLIP),
        ("bytes=5-99999", 206, "bytes 5-10239/10240", CLIP[5:]),
        ("bytes=10240-", 416, "bytes */10240", None),
        ("bytes=-0", 416, "bytes */10240", None),
        # A server may send the whole for these (RFC 9110, 14.2).
        ("bytes=9-5", 200, None, CLIP),
        ("bytes=0-1,5-6", 200, None, CLIP),
        ("pages=1-2", 200, None, CLIP),
        ("bytes=a-b", 200, None, CLIP),
        ("bytes=" + "9" * 400 + "-", 200, None, CLIP),
    ],
)
def test_clip_ranges(
    client: Client,
    header: str | None,
    status: int,
    content_range: str | None,
    expected: bytes | None,
) -> None:
    headers = {} if header is None else {"Range": header}
    response = client.get("/api/v1/events/event-1/clip", headers=headers)
    assert response.status_code == status
    assert response.headers.get("content-range") == content_range
    assert response.headers["accept-ranges"] == "bytes"
    if expected is None:
        assert_problem(response, 416, "Range")
        return
    assert response.content == expected
    assert response.headers["content-length"] == str(len(expected))
    assert response.headers["content-type"] == "video/mp4"
    head = client.head("/api/v1/events/event-1/clip", headers=headers)
    assert head.status_code == status
    assert head.headers["content-length"] == str(len(expected))
    assert head.content == b""


def test_clip_validators(client: Client) -> None:
    path = "/api/v1/events/event-1/clip"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    part = {"Range": "bytes=0-9"}
    assert client.get(path, headers={**part, "If-Range": etag}).status_code == 206
    assert client.get(path, headers={**part, "If-Range": '"other"'}).status_code == 200


def test_a_further_file_of_a_clip(client: Client) -> None:
    path = "/api/v1/events/event-1/clip"
    assert client.get(path, params={"part": 0}).content == client.get(path).content == CLIP
    whole = client.get(path, params={"part": 1})
    assert whole.content == SECOND_FILE
    assert whole.headers["etag"] == f'"{"cd" * 32}"'
    piece = client.get(path, params={"part": 1}, headers={"Range": "bytes=2-4"})
    assert (piece.status_code, piece.content) == (206, SECOND_FILE[2:5])
    head = client.head(path, params={"part": 1})
    assert head.headers["content-length"] == str(len(SECOND_FILE))


@pytest.mark.parametrize(
    ("event_id", "part", "status", "words"),
    [
        ("event-1", "2", 404, "no part 2 of its clip, which consists of 2 files, parts 0 to 1"),
        ("event-3", "1", 404, "no part 1 of its clip, which consists of 1 file, part 0"),
        ("event-2", "1", 404, "the disk was full"),
        ("event-1", "-1", 422, "part"),
        ("event-1", "last", 422, "part"),
    ],
)
def test_a_file_that_a_clip_does_not_have(
    client: Client, event_id: str, part: str, status: int, words: str
) -> None:
    answer = client.get(f"/api/v1/events/{event_id}/clip", params={"part": part})
    assert_problem(answer, status, words)


def test_missing_clips_give_the_reason(system: MemorySystem, client: Client) -> None:
    assert_problem(client.get("/api/v1/events/event-2/clip"), 404, "the disk was full")
    assert_problem(client.get("/api/v1/events/event-3/clip"), 404, "no such object")
    assert_problem(client.get("/api/v1/events/event-2/snapshot"), 404, "no snapshot")
    system.objects.down = True
    assert_problem(client.get("/api/v1/events/event-1/clip"), 503, "connection refused")


def test_snapshot(client: Client) -> None:
    response = client.get("/api/v1/events/event-1/snapshot")
    assert response.content == b"\xff\xd8"
    assert response.headers["content-type"] == "image/jpeg"


def test_another_file_of_the_same_size_has_another_etag(
    system: MemorySystem, client: Client
) -> None:
    path = "/api/v1/events/event-1/snapshot"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    system.objects.files["file:///clips/b.jpg"] = b"\xff\xd9"
    newer = SnapshotRef(uri="file:///clips/b.jpg")
    system.events.events["event-1"] = event(1, snapshot=newer)
    response = client.get(path, headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (200, b"\xff\xd9")
    # a weak one never proves that a part is of this file
    part = {"Range": "bytes=0-0", "If-Range": response.headers["etag"]}
    assert client.get(path, headers=part).status_code == 200
