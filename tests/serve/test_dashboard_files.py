"""The dashboard's files as they are served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.api.dashboard import FOLDER
from storeguard.config.store import ApiSettings
from tests.serve.dashboard_system import (
    TOKEN,
    DashboardSystem,
    serving,
)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        serving(DashboardSystem(ApiSettings(token=TOKEN), folder=tmp_path)) as system,
        httpx.Client(base_url=system.url, trust_env=False, timeout=120) as client,
    ):
        yield client


def test_files_have_types_validators_and_a_policy_and_need_no_token(client: httpx.Client) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    places = {f"/dashboard/{path.name}": types.get(path.suffix) for path in FOLDER.iterdir()}
    places |= {"/": "text/html", "/dashboard/index.html": "text/html"}
    places |= {"/favicon.ico": "image/svg+xml"}
    for place, media_type in places.items():
        answer = client.get(place)
        assert answer.status_code == 200, place
        assert media_type is not None, f"{place}: not a file for a browser"
        assert answer.headers["content-type"].startswith(media_type)
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        etag = answer.headers["etag"]
        again = client.get(place, headers={"If-None-Match": f'"other", {etag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(place, headers={"If-None-Match": '"other"'}).status_code == 200
        head = client.head(place)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    "place", ["/dashboard/no.js", "/dashboard/..%2fapi.py", "/dashboard/%2e%2e/api.py"]
)
def test_nothing_but_the_files_is_served(client: httpx.Client, place: str) -> None:
    answer = client.get(place, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_comes_from_elsewhere() -> None:
    own = {"http://www.w3.org/2000/svg"}
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"'\s)<]+", text)) <= own, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(", text), path.name
